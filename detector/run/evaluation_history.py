"""Reads metrics.jsonl: the evaluations of a run, the best one, and early stopping.

An evaluation with a metric that is not finite, such as a loss, comes from a network that has diverged: it is never the
best, and no improvement.
"""

import math
from pathlib import Path

from detector.config.aliases import METRICS as RENAMED_METRICS
from detector.run.files import METRICS_FILE, read_json_lines


def read_metrics(folder: Path) -> list[dict]:
    """Returns the lines of metrics.jsonl in a run folder, with the metric names of today.

    Each line holds "kind" ("train" or "evaluation"), "step" and the values by name; null is read as NaN. Damaged lines
    are left out.
    """
    return [{RENAMED_METRICS.get(name, name): math.nan if value is None else value for name, value in line.items()}
            for line in read_json_lines(folder / METRICS_FILE)
            if isinstance(line.get("kind"), str) and isinstance(line.get("step"), int)]


def evaluations_of(folder: Path, metric: str) -> list[tuple[int, float]]:
    """Returns (step, value) of every evaluation in metrics.jsonl that has this metric; for the value see value_of."""
    return [(line["step"], value_of(line, metric)) for line in read_metrics(folder)
            if line["kind"] == "evaluation" and metric in line]


def value_of(metrics: dict, name: str) -> float:
    """Returns a metric of an evaluation; NaN if any of its metrics is not finite."""
    return math.nan if not_finite(metrics) else metrics[name]


def not_finite(metrics: dict) -> list[str]:
    """Returns the names of the metrics that are not finite."""
    return [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]


def best_of(evaluations: list[tuple[int, float]]) -> tuple[int, float] | None:
    """Returns the (step, value) with the largest value; of equal ones, the first. None if no value is finite."""
    return max((pair for pair in evaluations if math.isfinite(pair[1])), key=lambda pair: pair[1], default=None)


def out_of_patience(evaluations: list[tuple[int, float]], patience: int) -> bool:
    """Returns whether training stops early: the last `patience` evaluations (0: never) brought no new best value."""
    if not patience or not evaluations:
        return False
    values = [value if math.isfinite(value) else -math.inf for _, value in evaluations]
    return len(values) - 1 - values.index(max(values)) >= patience
