"""Reads metrics.jsonl: the evaluations of a run, the best one, and early stopping."""

from pathlib import Path

from detector.config.aliases import METRICS as RENAMED_METRICS
from detector.run.files import METRICS_FILE, read_json_lines


def read_metrics(folder: Path) -> list[dict]:
    """Returns the lines of metrics.jsonl in a run folder, with the metric names of today.

    Each line holds "kind" ("train" or "evaluation"), "step" and the values by name.
    """
    return [{RENAMED_METRICS.get(name, name): value for name, value in line.items()}
            for line in read_json_lines(folder / METRICS_FILE)]


def evaluations_of(folder: Path, metric: str) -> list[tuple[int, float]]:
    """Returns (step, value) of every evaluation in metrics.jsonl that has this metric."""
    return [(line["step"], line[metric]) for line in read_metrics(folder)
            if line["kind"] == "evaluation" and metric in line]


def best_of(evaluations: list[tuple[int, float]]) -> tuple[int, float] | None:
    """Returns the (step, value) with the largest value; of equal ones, the first. None if there is no evaluation."""
    return max(evaluations, key=lambda pair: pair[1], default=None)


def out_of_patience(evaluations: list[tuple[int, float]], patience: int) -> bool:
    """Returns whether training stops early: the last `patience` evaluations (0: never) brought no new best value."""
    if not patience or not evaluations:
        return False
    values = [value for _, value in evaluations]
    return len(values) - 1 - values.index(max(values)) >= patience
