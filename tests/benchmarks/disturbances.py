"""One run on a real Slurm of two nodes that is preempted, meets its time limit, is requeued by hand and loses a node, all of it twice.

    python tests/benchmarks/disturbances.py [--rounds 2] [--steps 120]

It has to end with the bits of a run that nothing happened to, and with each step once in its record; exits 1 otherwise.
Appends a JSON line to tests/benchmarks/results/disturbances.jsonl.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "whole")]

from conftest import TINY  # noqa: E402
from disturbances import ROUND, train_disturbed  # noqa: E402
from slurm_cluster import Cluster, assert_same_end, missing  # noqa: E402

from detector.data import shapes  # noqa: E402
from detector.surroundings import surroundings  # noqa: E402

RESULTS = TESTS / "benchmarks" / "results" / "disturbances.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=120)
    said = parser.parse_args()
    if missing():
        sys.exit(missing())
    with tempfile.TemporaryDirectory(prefix="fleet-disturbed-") as folder:
        cluster = Cluster(Path(folder) / "cluster")
        if wrong := cluster.up("--gpus", "0", "--kill-wait", "8", "--grace", "10"):
            sys.exit(wrong)
        try:
            elapsed_s = disturbed(cluster, Path(folder), ROUND * said.rounds, said.steps)
        finally:
            cluster.control("down")
    line = {"benchmark": "disturbances", "disturbances": [each.__name__ for each in ROUND * said.rounds], "steps": said.steps,
            "elapsed_s": round(elapsed_s, 1), "same_bits": True, "each_step_once": True, **surroundings()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with open(RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{len(ROUND) * said.rounds} disturbances in {said.steps} steps: the weights of the run that was left alone, each step once")


def disturbed(cluster: Cluster, folder: Path, disturbances: list, total: int) -> float:
    """Seconds of the disturbed run; an AssertionError where it ends otherwise than the other."""
    for split, count in (("train", 10), ("val", 5)):
        (folder / "shapes").mkdir(exist_ok=True)
        shapes.draw_split(str(folder / "shapes"), split, count)
    (folder / "empty.yaml").write_text("")
    arguments = [str(folder / "empty.yaml"), *TINY, "data.format=shapes", f"data.root={folder / 'shapes'}",
                 f"data.cache={folder / 'cache'}", f"run.folder={folder}", f"schedule.steps={total}", "run.save_every_steps=3",
                 "evaluate.every_epochs=5"]
    cluster.fleet("train", *arguments, "run.name=undisturbed", "--on", "torchrun", "--processes", "4")
    started_at = time.monotonic()
    train_disturbed(cluster, [*arguments, "run.name=disturbed", "--on", "slurm", "--nodes", "2", "--processes", "2", "--hours", "1"],
                    folder / "disturbed", disturbances)
    assert_same_end(folder / "disturbed", folder / "undisturbed", total)
    return time.monotonic() - started_at


if __name__ == "__main__":
    main()
