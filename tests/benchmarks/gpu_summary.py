"""The summary of gpu.sh: correctness, goals, and what of this package is not faster than torchvision's.

    python tests/benchmarks/gpu_summary.py FOLDER

Reads the JSON lines in FOLDER. Only lines that were measured on a GPU count, and of them only those with the commit and the
GPU of the newest one: what a machine that was taken away early did not reach is `not measured`, whatever older lines say.
"""

import json
import statistics
import sys
from pathlib import Path

from measuring import format_spread, ratio

BENCHMARKS = ("device_checks", "train_step", "hot_path")
CASE, PEER = "resnet50_fpn_800", "torchvision, AMP"
GOAL_IMAGES_PER_S = 180  # of one H100: NVIDIA's Mask R-CNN in MLPerf Training 3.0
GOAL_RATIO = 2.5         # to torchvision's loop with its AMP
WORTHWHILE = 1.05        # what is not this much faster than its counterpart is a candidate for deletion
NOT_MEASURED = "not measured"
# What could be deleted -> variants of train_step.py with and without it, which differ in nothing else.
CANDIDATES = {"model.heads=native": ("bf16", "bf16, torchvision's heads"),
              "model.heads=native, compiled": ("bf16, compiled", "bf16, torchvision's heads, compiled"),
              "run.compile": ("bf16, compiled", "bf16"),
              "run.compile with model.heads=torchvision": ("bf16, torchvision's heads, compiled", "bf16, torchvision's heads")}
# Of hot_path.py, which measures each with torchvision's in its place.
OPERATIONS = ("NMS by rounds", "RoIAlign of all levels at once", "RPN losses at sampled cells", "preprocessing of uint8 images")


def lines_of_last_run(folder: Path) -> dict[str, list[dict]]:
    """Returns the lines of each of BENCHMARKS that were measured on a GPU, with the commit and the GPU of the newest one."""
    paths = {name: folder / f"{name}.jsonl" for name in BENCHMARKS}
    lines = {name: [line for line in map(json.loads, path.read_text().splitlines() if path.exists() else []) if line["gpus"]]
             for name, path in paths.items()}
    by_time = sorted((line for of_benchmark in lines.values() for line in of_benchmark), key=lambda line: line.get("time", 0))
    newest = run_of(by_time[-1]) if by_time else None
    return {name: [line for line in of_benchmark if run_of(line) == newest] for name, of_benchmark in lines.items()}


def run_of(line: dict) -> tuple:
    return line["gpus"], line.get("commit")


def last_seconds(steps: list[dict], *variants: str) -> tuple[int, list[list[float]]] | None:
    """Returns batch size and seconds of each round, by variant, of the last line that has all variants; None without one."""
    for line in reversed(steps):
        if line["case"] == CASE and all(variant in line["seconds"] for variant in variants):
            return line["batch"], [line["seconds"][variant] for variant in variants]
    return None


def check_rows(lines: list[dict]) -> list[str]:
    """Returns a row for each check of device_checks.py in its last line."""
    checks = lines[-1]["checks"] if lines else {}
    return [f"{name}: {'yes' if result['good'] else 'NO'}; {result['about']}" for name, result in checks.items()] or [
        f"correctness: {NOT_MEASURED}"]


def goal_rows(steps: list[dict]) -> list[str]:
    """Returns the rows of both goals, for the fastest variant of this package."""
    own = {variant for pair in CANDIDATES.values() for variant in pair if "heads" not in variant}
    speeds = {name: measured[0] / statistics.median(measured[1][0]) for name in own if (measured := last_seconds(steps, name))}
    fastest = max(speeds, key=speeds.get, default="")
    beside_peer = last_seconds(steps, PEER, fastest) if fastest else None
    rows = [f"goal: at least {GOAL_IMAGES_PER_S} images/s: "
            + (f"{speeds[fastest]:.0f} ({fastest}); {verdict(speeds[fastest] >= GOAL_IMAGES_PER_S)}" if fastest else NOT_MEASURED)]
    times = ratio(*beside_peer[1]) if beside_peer else None
    return rows + [f"goal: at least {GOAL_RATIO} times torchvision's loop with its AMP: "
                   + (f"{format_spread(times)} ({fastest}); {verdict(times['median'] >= GOAL_RATIO)}" if times else NOT_MEASURED)]


def verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "NOT reached"


def candidate_rows(steps: list[dict], operations: list[dict]) -> list[str]:
    """Returns a row for each of CANDIDATES and OPERATIONS: its ratio, and whether it is one for deletion."""
    last = {line["operation"]: [line["seconds"]["torchvision"], line["seconds"]["own"]]
            for line in operations if line["case"] == CASE}
    measured = {name: (last_seconds(steps, other, own) or [0, None])[1] for name, (own, other) in CANDIDATES.items()}
    return [candidate_row(name, seconds) for name, seconds in (measured | {name: last.get(name) for name in OPERATIONS}).items()]


def candidate_row(name: str, seconds: list[list[float]] | None) -> str:
    """Returns the row of what takes the second list of `seconds`, and its counterpart the first."""
    if seconds is None:
        return f"{name}: {NOT_MEASURED}"
    times = ratio(*seconds)
    advice = "worth it" if times["median"] >= WORTHWHILE else f"below {WORTHWHILE}: a candidate for deletion"
    return f"{name}: {format_spread(times)} times as fast as without; {advice}"


def summary(folder: Path) -> str:
    checks, steps, operations = lines_of_last_run(folder).values()
    lines = [*checks, *steps, *operations]
    machine, commit = (", ".join(lines[0]["gpus"]), lines[0].get("commit") or "unknown") if lines else ("no GPU", "unknown")
    return "\n".join([f"ResNet-50 FPN at 800/1333, bf16, on {machine}; commit {commit}", *check_rows(checks), *goal_rows(steps),
                      *candidate_rows(steps, operations)])


if __name__ == "__main__":
    print(summary(Path(sys.argv[1])))
