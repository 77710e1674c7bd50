"""The summary of gpu.sh: correctness, goals, and what of this package is not faster than torchvision's.

    python tests/benchmarks/gpu_summary.py FOLDER

Reads the JSON lines in FOLDER. Only lines that were measured on a GPU count; what has none is `not measured`.
"""

import json
import statistics
import sys
from pathlib import Path

from measuring import format_spread, ratio

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


def gpu_lines(folder: Path, name: str) -> list[dict]:
    """Returns the lines of a benchmark that were measured on a GPU."""
    path = folder / f"{name}.jsonl"
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return [line for line in lines if line["gpus"]]


def last_seconds(steps: list[dict], *variants: str) -> tuple[int, list[list[float]]] | None:
    """Returns batch size and seconds of each round, by variant, of the last line that has all variants; None without one."""
    for line in reversed(steps):
        if line["case"] == CASE and all(variant in line["seconds"] for variant in variants):
            return line["batch"], [line["seconds"][variant] for variant in variants]
    return None


def check_rows(folder: Path) -> list[str]:
    """Returns a row for each check of device_checks.py in its last line."""
    lines = gpu_lines(folder, "device_checks")
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


def candidate_rows(steps: list[dict]) -> list[str]:
    """Returns a row for each of CANDIDATES: its ratio, and whether it is one for deletion."""
    rows = []
    for name, (own, other) in CANDIDATES.items():
        measured = last_seconds(steps, other, own)
        if measured is None:
            rows.append(f"{name}: {NOT_MEASURED}")
            continue
        times = ratio(*measured[1])
        advice = "worth it" if times["median"] >= WORTHWHILE else f"below {WORTHWHILE}: a candidate for deletion"
        rows.append(f"{name}: {format_spread(times)} times as fast as without; {advice}")
    return rows


def summary(folder: Path) -> str:
    steps = gpu_lines(folder, "train_step")
    machines = sorted({gpu for line in steps for gpu in line["gpus"]})
    return "\n".join([f"ResNet-50 FPN at 800/1333, bf16, on {', '.join(machines) or 'no GPU'}", *check_rows(folder),
                      *goal_rows(steps), *candidate_rows(steps)])


if __name__ == "__main__":
    print(summary(Path(sys.argv[1])))
