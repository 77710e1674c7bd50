"""metrics.jsonl: a line for each logged step and each evaluation; null stands for a number that is not finite.

The line of an evaluation holds the metrics of the classes as "per_class": {class name: {metric: value}}.

The best evaluation and early stopping are computed from this file (run/evaluation_history.py).
"""

import os
from pathlib import Path

from detector.loggers.protocol import Logger
from detector.run.evaluation_history import PER_CLASS, read_metrics
from detector.run.files import METRICS_FILE, to_json, write_whole


class JsonlLogger(Logger):
    """Appends to metrics.jsonl, after it has removed all lines later than `step`: no step occurs twice."""

    def __init__(self, folder: Path, step: int, _total_steps: int):
        lines = [line for line in read_metrics(folder) if line["step"] <= step]
        write_whole(folder / METRICS_FILE, "".join(to_json(line) + "\n" for line in lines))
        self.file = open(folder / METRICS_FILE, "a", encoding="utf-8")

    def scalars(self, kind: str, step: int, values: dict[str, float]) -> None:
        if kind == "train":
            self._write({"kind": kind, "step": step, **values})

    def evaluation(self, step: int, metrics: dict[str, float], per_class: dict[str, dict[str, float]]) -> None:
        self._write({"kind": "evaluation", "step": step, **metrics, **({PER_CLASS: per_class} if per_class else {})})

    def _write(self, line: dict) -> None:
        self.file.write(to_json(line) + "\n")
        self.file.flush()

    def flush(self) -> None:
        """Waits until all lines are on the disk."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()
