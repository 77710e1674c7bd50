"""The evaluations recorded in metrics.jsonl: best one, early stopping."""

from pathlib import Path

from detector.run.files import read_lines


def evaluations_of(folder: Path, metric: str) -> list[tuple[int, float]]:
    """(step, value) of every evaluation on the record of a run."""
    return [(line["step"], line[metric]) for line in read_lines(folder / "metrics.jsonl")
            if line["kind"] == "evaluation" and metric in line]


def best_of(evaluations: list[tuple[int, float]]) -> tuple[int, float] | None:
    """The step and value of the best evaluation; the first of equals."""
    return max(evaluations, key=lambda pair: pair[1], default=None)


def out_of_patience(evaluations: list[tuple[int, float]], patience: int) -> bool:
    """Were the last `patience` evaluations all no better than one before them? Never, if patience is 0."""
    if not patience or not evaluations:
        return False
    values = [value for _, value in evaluations]
    return len(values) - 1 - values.index(max(values)) >= patience
