"""The log of a run: what the training loop calls to log to all loggers."""

import contextlib
from pathlib import Path
from typing import Callable

import numpy as np

from detector.loggers import LOGGERS
from detector.loggers.progress import Progress
from detector.loggers.protocol import Logger
from detector.run.evaluation_history import evaluations_of
from detector.run.files import METRICS_FILE, cannot_write
from detector.run.usage import Cost
from detector.visualization.validation_images import EncodedImage

NEEDED = "jsonl"  # the logger without which a run cannot be resumed


class RunLog:
    """Passes everything that a run logs to each logger of LOGGERS; on other ranks than 0, nothing is logged.

    metrics.jsonl is needed to resume: if it cannot be written, BadInput is raised. Any other logger that cannot write
    is left out from then on, which is logged once.

    Args:
        folder: the run folder, which exists on rank 0.
        step: the step that the run starts or resumes from. Later lines of metrics.jsonl, and what TensorBoard shows of
            later steps, are removed.
        total_steps: the last step of the run.
    """

    def __init__(self, folder: Path, step: int, total_steps: int, is_main: bool):
        self.folder, self.total_steps = folder, total_steps
        self.progress = Progress(step, total_steps)
        self.loggers = {name: build(folder, step, total_steps) for name, build in LOGGERS.items()} if is_main else {}

    def message(self, text: str, console: bool = True) -> None:
        """Logs a message of one or more lines; `console` False: to log.txt only."""
        self._call(lambda logger: logger.text(text, console))

    def train_step(self, step: int, values: dict[str, float], cost: Cost | None = None) -> None:
        """Logs a training step: epoch, losses by name, lr, gradient norm, speed, use of the machine; and the cost."""
        self._scalars("train", step, values)
        if cost:
            self.cost(step, cost)

    def cost(self, step: int, cost: Cost) -> None:
        """Logs what the run has cost so far, to TensorBoard; results.json and usage.json have it too."""
        self._call(lambda logger: logger.scalars("cost", step, cost.numbers()), "tensorboard")

    def evaluation(self, step: int, metrics: dict[str, float], per_class: dict[str, dict[str, float]]) -> None:
        """Logs a finished evaluation.

        Args:
            per_class: for each class name, metrics of the class by name.
        """
        self._scalars("evaluation", step, metrics)
        for metric in dict.fromkeys(name for values in per_class.values() for name in values):
            self._scalars(f"{metric} by class", step, {class_name: values[metric]
                                                       for class_name, values in per_class.items() if metric in values})

    def image(self, step: int, image: EncodedImage) -> None:
        """Logs a drawing under its name."""
        self._call(lambda logger: logger.image(step, image.name, image))

    def pr_curve(self, step: int, name: str, counts: np.ndarray) -> None:
        """Logs the precision-recall curve of the class `name`; counts: float64 [6, T], see Logger.pr_curve."""
        self._call(lambda logger: logger.pr_curve(step, name, counts))

    def start_progress_bar(self) -> None:
        """Shows a progress bar on a terminal; elsewhere each logged step is printed as a line."""
        if "console" in self.loggers:
            self.loggers["console"].start_progress_bar()

    def advance(self, step: int) -> None:
        """Moves the progress bar to `step` completed steps."""
        if "console" in self.loggers:
            self.loggers["console"].advance(step)

    def seconds_left(self, step: int) -> float:
        """Returns the seconds to the end of the run at the pace since this start, evaluations included."""
        return self.progress.seconds_left(step)

    def evaluations(self, metric: str) -> list[tuple[int, float]]:
        """Returns (step, value) of every evaluation in metrics.jsonl, on every rank."""
        return evaluations_of(self.folder, metric)

    def flush(self) -> None:
        """Waits until metrics.jsonl is on the disk: a checkpoint shall not be of a later step than metrics.jsonl."""
        self._call(lambda logger: logger.flush(), NEEDED)

    def flush_tensorboard(self) -> None:
        """Makes everything logged so far visible to TensorBoard."""
        self._call(lambda logger: logger.flush(), "tensorboard")

    def close(self) -> None:
        """Closes all files. Raises nothing, because another exception may be passing through."""
        for logger in self.loggers.values():
            with contextlib.suppress(OSError):  # what is not written by now is reported already
                logger.close()

    def _scalars(self, kind: str, step: int, values: dict[str, float]) -> None:
        self._call(lambda logger: logger.scalars(kind, step, values))

    def _call(self, function: Callable[[Logger], None], only: str = "") -> None:
        """Calls a function with each logger, or with one of them; see the class for errors."""
        for name in [only] if only else list(self.loggers):
            if name not in self.loggers:
                continue
            try:
                function(self.loggers[name])
            except OSError as error:
                if name == NEEDED:
                    raise cannot_write(self.folder / METRICS_FILE, error) from error
                del self.loggers[name]
                self.message(f"{name} cannot write into {self.folder} ({error.strerror}); the run goes on without it")
