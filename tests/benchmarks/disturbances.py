"""A run on a real Slurm of two nodes that is preempted, reaches its time limit, is requeued by hand and loses a node.

    python tests/benchmarks/disturbances.py [--rounds 2] [--steps 120]

Each round has these four disturbances. The run must end with the bits of an undisturbed run, and with each step once in
its metrics.jsonl; exits 1 otherwise. Appends a JSON line to tests/benchmarks/results/disturbances.jsonl.
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
from measuring import append_result  # noqa: E402
from slurm_cluster import Cluster, assert_same_end, missing  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=120)
    args = parser.parse_args()
    if missing():
        sys.exit(missing())
    with tempfile.TemporaryDirectory(prefix="fleet-disturbed-") as folder:
        cluster = Cluster(Path(folder) / "cluster")
        if error := cluster.up("--gpus", "0", "--kill-wait", "8", "--grace", "10"):
            sys.exit(error)
        try:
            elapsed_s = run_disturbed(cluster, Path(folder), ROUND * args.rounds, args.steps)
        finally:
            cluster.control("down")
    line = {"disturbances": [disturb.__name__ for disturb in ROUND * args.rounds], "steps": args.steps,
            "elapsed_s": round(elapsed_s, 1), "same_bits": True, "each_step_once": True}
    append_result("disturbances", line)
    print(f"{len(ROUND) * args.rounds} disturbances in {args.steps} steps: the weights of the undisturbed run, each step once")


def run_disturbed(cluster: Cluster, folder: Path, disturbances: list, total_steps: int) -> float:
    """Returns the seconds of the disturbed run; raises AssertionError if it ends differently from the undisturbed one."""
    (folder / "empty.yaml").write_text("")
    args = [str(folder / "empty.yaml"), *tiny_run(draw_shapes(folder / "shapes"), folder), f"schedule.steps={total_steps}",
            "run.save_every_steps=3", "evaluate.every_epochs=5"]
    runs = folder / "runs"
    cluster.fleet("train", *args, "run.name=undisturbed", "--on", "torchrun", "--processes", "4")
    started_at = time.monotonic()
    train_disturbed(cluster, [*args, "run.name=disturbed", "--on", "slurm", "--nodes", "2", "--processes", "2", "--hours", "1"],
                    runs / "disturbed", disturbances)
    assert_same_end(runs / "disturbed", runs / "undisturbed", total_steps)
    return time.monotonic() - started_at


if __name__ == "__main__":
    main()
