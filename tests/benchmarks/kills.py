"""Kills a small run at random moments on a real Slurm, over and over, and compares how each run ends with one that was left alone.

    python tests/benchmarks/kills.py [--trials 50] [--seed 0]

A trial is one kill: SIGTERM or the user signal to the job, or SIGKILL to one rank. Exits 1 if a run does not end, or ends with
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
from measuring import append  # noqa: E402
from slurm_cluster import Cluster, assert_same_end, missing  # noqa: E402

STEPS, A_RUN = 20, 5  # kills at the most that one run gets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    if missing():
        sys.exit(missing())
    with tempfile.TemporaryDirectory(prefix="fleet-kills-") as folder:
        cluster = Cluster(Path(folder) / "cluster")
        cluster.control("up", "--nodes", "1", "--gpus", "0", "--kill-wait", "8")
        try:
            hit, runs, elapsed_s = trials(cluster, Path(folder), said.trials, said.seed)
        finally:
            cluster.control("down")
    line = {"trials": len(hit), "runs": runs, "seed": said.seed, "elapsed_s": round(elapsed_s, 1),
            "hit": dict(sorted(Counter(hit).items()))}
    append("kills", line)
    print(f"{len(hit)} kills in {runs} runs: each run ended with the weights of the one that was left alone")


def trials(cluster: Cluster, folder: Path, wanted: int, seed: int) -> tuple[list[str], int, float]:
    (folder / "empty.yaml").write_text("")
    arguments = [str(folder / "empty.yaml"), *tiny_run(draw_shapes(folder / "shapes"), folder), f"schedule.steps={STEPS}",
                 "run.save_every_steps=2", "evaluate.every_epochs=1", "--on", "sbatch", "--template", "srun", "--processes", "2"]
    alone = folder / "runs" / "alone"
    started_at = time.monotonic()
    job = cluster.submit(*arguments, "run.name=alone")
    assert cluster.wait(job, alone) == "COMPLETED"
    longest_s, hit, runs = time.monotonic() - started_at, [], 0
    while len(hit) < wanted:
        run, runs = alone.with_name(f"run-{runs}"), runs + 1
        more = train_with_kills(cluster, [*arguments, f"run.name={run.name}"], run, min(A_RUN, wanted - len(hit)), longest_s,
                                seed + runs)
        assert_same_end(run, alone, STEPS)
        hit += more
        print(f"run {runs}: {', '.join(more) or 'it was faster'}; {len(hit)} of {wanted}", flush=True)
    return hit, runs, time.monotonic() - started_at


if __name__ == "__main__":
    main()
