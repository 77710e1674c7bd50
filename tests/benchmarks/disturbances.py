"""One run on a real Slurm of two nodes that is preempted, meets its time limit, is requeued by hand and loses a node, all of it twice.

    python tests/benchmarks/disturbances.py [--rounds 2] [--steps 120]

It has to end with the bits of a run that nothing happened to, and with each step once in its record; exits 1 otherwise.
Appends a JSON line to tests/benchmarks/results/disturbances.jsonl.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "whole")]

from conftest import draw_shapes, tiny_run  # noqa: E402
from disturbances import ROUND, train_disturbed  # noqa: E402
from measuring import append  # noqa: E402
from slurm_cluster import Cluster, assert_same_end, missing  # noqa: E402


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
    line = {"disturbances": [each.__name__ for each in ROUND * said.rounds], "steps": said.steps,
            "elapsed_s": round(elapsed_s, 1), "same_bits": True, "each_step_once": True}
    append("disturbances", line)
    print(f"{len(ROUND) * said.rounds} disturbances in {said.steps} steps: the weights of the run that was left alone, each step once")


def disturbed(cluster: Cluster, folder: Path, disturbances: list, total: int) -> float:
    """Seconds of the disturbed run; an AssertionError where it ends otherwise than the other."""
    (folder / "empty.yaml").write_text("")
    arguments = [str(folder / "empty.yaml"), *tiny_run(draw_shapes(folder / "shapes"), folder), f"schedule.steps={total}",
                 "run.save_every_steps=3", "evaluate.every_epochs=5"]
    runs = folder / "runs"
    cluster.fleet("train", *arguments, "run.name=undisturbed", "--on", "torchrun", "--processes", "4")
    started_at = time.monotonic()
    train_disturbed(cluster, [*arguments, "run.name=disturbed", "--on", "slurm", "--nodes", "2", "--processes", "2", "--hours", "1"],
                    runs / "disturbed", disturbances)
    assert_same_end(runs / "disturbed", runs / "undisturbed", total)
    return time.monotonic() - started_at


if __name__ == "__main__":
    main()
