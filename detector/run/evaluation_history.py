"""Reads metrics.jsonl: the evaluations of a run, the best one, and early stopping.

An evaluation with a metric that is not finite, such as a loss, comes from a network that has diverged: it is never the
best, and no improvement.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from detector.config.aliases import METRICS as RENAMED_METRICS
from detector.run.files import METRICS_FILE, read_json_lines

PER_CLASS = "per_class"  # key of an evaluation's line that holds the metrics of each class by name


@dataclass(frozen=True)
class PastEvaluation:
    """An evaluation in metrics.jsonl; a number that was not finite is NaN."""

    step: int
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]  # empty in files of version 0.4 and before


def read_metrics(folder: Path) -> list[dict]:
    """Returns the lines of metrics.jsonl in a run folder, with the metric names of today.

    Each line holds "kind" ("train" or "evaluation"), "step" and the values by name; null is read as NaN. Damaged lines
    are left out.
    """
    return [{RENAMED_METRICS.get(name, name): math.nan if value is None else value for name, value in line.items()}
            for line in read_json_lines(folder / METRICS_FILE)
            if isinstance(line.get("kind"), str) and isinstance(line.get("step"), int)]


def read_evaluations(folder: Path) -> list[PastEvaluation]:
    """Returns all evaluations in metrics.jsonl, the oldest first."""
    evaluations = []
    for line in read_metrics(folder):
        if line["kind"] == "evaluation":
            metrics = {name: value for name, value in line.items()
                       if isinstance(value, (int, float)) and name != "step"}
            per_class = {name: {key: math.nan if value is None else value for key, value in values.items()}
                         for name, values in (line.get(PER_CLASS) or {}).items()}
            evaluations.append(PastEvaluation(line["step"], metrics, per_class))
    return evaluations


def best_evaluation(evaluations: list[PastEvaluation], metric: str) -> PastEvaluation | None:
    """Returns the evaluation that `best_of` returns for this metric; None if no value is finite."""
    best = best_of([(past.step, value_of(past.metrics, metric)) for past in evaluations if metric in past.metrics])
    return next((past for past in evaluations if best and past.step == best[0]), None)


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
