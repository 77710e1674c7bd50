"""Kills a small run at random moments on a real Slurm, and compares its end with that of an undisturbed run.

    python tests/benchmarks/kills.py [--trials 50] [--seed 0]

A trial is one kill: SIGTERM or SIGUSR2 to the job, or SIGKILL to one rank. Exits 1 if a run does not end, or ends with
other weights. Appends a JSON line to tests/benchmarks/results/kills.jsonl.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "whole")]

from conftest import draw_shapes, tiny_run  # noqa: E402
from kills import train_with_kills  # noqa: E402
from measuring import append_result  # noqa: E402
from slurm_cluster import Cluster, assert_same_end, missing  # noqa: E402

STEPS, MAX_KILLS_PER_RUN = 20, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if missing():
        sys.exit(missing())
    with tempfile.TemporaryDirectory(prefix="fleet-kills-") as folder:
        cluster = Cluster(Path(folder) / "cluster")
        cluster.control("up", "--nodes", "1", "--gpus", "0", "--kill-wait", "8")
        try:
            hits, runs, elapsed_s = run_trials(cluster, Path(folder), args.trials, args.seed)
        finally:
            cluster.control("down")
    line = {"trials": len(hits), "runs": runs, "seed": args.seed, "elapsed_s": round(elapsed_s, 1),
            "hit": dict(sorted(Counter(hits).items()))}
    append_result("kills", line)
    print(f"{len(hits)} kills in {runs} runs: each run ended with the weights of the undisturbed one")


def run_trials(cluster: Cluster, folder: Path, trials: int, seed: int) -> tuple[list[str], int, float]:
    """Returns what each kill hit, the number of runs, and the elapsed seconds."""
    (folder / "empty.yaml").write_text("")
    args = [str(folder / "empty.yaml"), *tiny_run(draw_shapes(folder / "shapes"), folder), f"schedule.steps={STEPS}",
            "run.save_every_steps=2", "evaluate.every_epochs=1", "--on", "sbatch", "--template", "srun", "--processes", "2"]
    undisturbed = folder / "runs" / "undisturbed"
    started_at = time.monotonic()
    job = cluster.submit(*args, f"run.name={undisturbed.name}")
    assert cluster.wait(job, undisturbed) == "COMPLETED"
    longest_s, hits, runs = time.monotonic() - started_at, [], 0
    while len(hits) < trials:
        run, runs = undisturbed.with_name(f"run-{runs}"), runs + 1
        new_hits = train_with_kills(cluster, [*args, f"run.name={run.name}"], run, min(MAX_KILLS_PER_RUN, trials - len(hits)),
                                    longest_s, seed + runs)
        assert_same_end(run, undisturbed, STEPS)
        hits += new_hits
        print(f"run {runs}: {', '.join(new_hits) or 'it ended before the first kill'}; {len(hits)} of {trials}", flush=True)
    return hits, runs, time.monotonic() - started_at


if __name__ == "__main__":
    main()
