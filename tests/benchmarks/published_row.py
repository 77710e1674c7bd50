"""AP and minutes of a row of the published tables, trained once for each seed.

    python tests/benchmarks/published_row.py ROW [key=value ...] [--seeds 0 1 2]

Trains the runs that `fleet-rcnn reproduce ROW --seeds 3` trains, one after the other, so that seeds can also be measured one by one;
finished runs below run.folder are not trained again. Appends a JSON line for each seed to
tests/benchmarks/results/published_row.jsonl. Exits 1 if a run does not count for its row: other options, or not finished.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from measuring import append_result

from launcher.reproduce import training_commands


def collect(row: str, seeds: list[int], runs: Path) -> list[dict]:
    """Returns a result line for each of the seeds, read from the run folders below `runs`; ends the program if a run does not count."""
    from detector.run.files import RESULTS_FILE
    from detector.run.usage import read_cost
    from detector.tables.measured import read_measured_row
    measured = read_measured_row(row, runs)
    finished = [run for run in measured.runs if run.config.seed in seeds]
    if not measured.is_counted or len(finished) < len(seeds):
        sys.exit(f"{row}: {runs} does not hold finished runs of the seeds {seeds} with the options of the row")
    lines = []
    for run in finished:
        results = json.loads((run.folder / RESULTS_FILE).read_text())
        lines.append({"row": row, "seed": run.config.seed, "step": results["step"], "hardware": run.hardware,
                      "minutes": round(60 * read_cost(run.folder).hours, 1),
                      "metrics": {key: value for key, value in results["metrics"].items() if key.startswith("AP")}})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="", help="file to which the JSON lines are appended")
    parser.add_argument("overrides", nargs="*", help="options of train, such as data.root=DIR and run.folder=DIR")
    args = parser.parse_intermixed_args()
    commands = training_commands(args.row, max(args.seeds) + 1, 0, args.overrides)
    for seed in args.seeds:
        subprocess.run([sys.executable, "-m", "launcher.cli", *commands[seed]], check=True)
    folders = [option.partition("=")[2] for option in args.overrides if option.startswith("run.folder=")]
    lines = collect(args.row, args.seeds, Path(folders[-1] if folders else "runs"))
    for line in lines:
        append_result("published_row", line, args.out)
    print(f"{args.row}: AP50 {statistics.mean(line['metrics']['AP50'] for line in lines):.4f}, mean of seeds {args.seeds}, in "
          f"{statistics.mean(line['minutes'] for line in lines):.1f} minutes each")


if __name__ == "__main__":
    main()
