"""The interface of a logger."""

from typing import Protocol

import numpy as np

from detector.loggers.styled_lines import Block
from detector.visualization.validation_images import EncodedImage


class Logger(Protocol):
    """Writes what a run logs to one place. Only rank 0 has loggers.

    A logger is constructed as `Logger(folder, step, total_steps)`: the run folder, the step that the run starts or
    resumes from, and the last step. After a resume, steps that were logged earlier come again: a logger of numbers
    removes those after `step` first.

    A class that derives from this one inherits methods that do nothing.
    """

    def scalars(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Logs numbers by name.

        Args:
            kind: "train": a logged step, with loss, lr, epoch, images_per_s and others; "evaluation": the metrics of an
                evaluation; "METRIC by class": a metric of an evaluation, by class name.
        """

    def evaluation(self, step: int, metrics: dict[str, float], per_class: dict[str, dict[str, float]]) -> None:
        """Logs an evaluation: its metrics, and those of each class by name. Calls `scalars` for each kind."""
        self.scalars("evaluation", step, metrics)
        for metric in dict.fromkeys(name for values in per_class.values() for name in values):
            self.scalars(f"{metric} by class", step, {class_name: values[metric]
                                                      for class_name, values in per_class.items() if metric in values})

    def image(self, step: int, name: str, image: EncodedImage) -> None:
        """Logs a drawing, such as validation/street.jpg."""

    def pr_curve(self, step: int, name: str, counts: np.ndarray) -> None:
        """Logs the precision-recall curve of one class.

        Args:
            counts: float64 [6, T]: true positives, false positives, true negatives, false negatives, precision and
                recall, at T score thresholds.
        """

    def text(self, text: str, console: bool = True) -> None:
        """Logs a message of one or more lines; `console` False: for files only."""

    def block(self, block: Block) -> None:
        """Logs lines with styles, such as a table."""

    def flush(self) -> None:
        """Makes what is logged so far lasting, or visible."""

    def close(self) -> None:
        """Writes out what is left and closes all files."""
