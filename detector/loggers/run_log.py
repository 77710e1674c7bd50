"""The log of a run: what the training loop calls to log to all loggers."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from detector.loggers import LOGGERS
from detector.loggers.console import ConsoleLogger
from detector.loggers.metric_tables import EvaluationRecord, evaluation_table
from detector.loggers.progress import Progress
from detector.loggers.protocol import Logger
from detector.loggers.run_header import run_header
from detector.loggers.run_summary import run_summary
from detector.loggers.styled_lines import Block
from detector.run.evaluation_history import best_evaluation, evaluations_of, read_evaluations
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
        self.folder, self.total_steps, self.steps_per_epoch = folder, total_steps, 0
        self.progress = Progress(step, total_steps)
        self.loggers = {name: build(folder, step, total_steps) for name, build in LOGGERS.items()} if is_main else {}

    @property
    def console(self) -> ConsoleLogger | None:
        """The logger of the console, which also shows progress; None on other ranks than 0."""
        return self.loggers.get("console")

    def message(self, text: str, console: bool = True) -> None:
        """Logs a message of one or more lines; `console` False: to log.txt only."""
        self._call(lambda logger: logger.text(text, console))

    def block(self, block: Block) -> None:
        """Logs lines with styles, such as a table."""
        self._call(lambda logger: logger.block(block))

    def begin(self, header: dict[str, list[str]], messages: list[str]) -> None:
        """Logs what the run will do: sentences of each section, then notes and warnings."""
        self.block(run_header(header))
        for text in messages:
            self.message(text)

    def finish(self, step: int, best_metric: str, image: str) -> None:
        """Logs what the run has done; for the arguments see `run_summary`."""
        if self.console:
            self.console.stop_progress()
        self.block(run_summary(self.folder, step, self.total_steps, best_metric, image))

    def train_step(self, step: int, values: dict[str, float], cost: Cost | None = None) -> None:
        """Logs a training step: epoch, losses by name, lr, gradient norm, speed, use of the machine; and the cost."""
        self._call(lambda logger: logger.scalars("train", step, values))
        if self.console:
            self.console.logged_step(step, values, self.seconds_left(step))
        if cost:
            self.cost(step, cost)

    def cost(self, step: int, cost: Cost) -> None:
        """Logs what the run has cost so far, to TensorBoard; results.json and usage.json have it too."""
        self._call(lambda logger: logger.scalars("cost", step, cost.numbers()), "tensorboard")

    def evaluation(self, step: int, metrics: dict[str, float], per_class: dict[str, dict[str, float]],
                   best_metric: str = "AP") -> None:
        """Logs a finished evaluation, and shows it beside the one before and the best one.

        Args:
            per_class: for each class name, metrics of the class by name.
            best_metric: the metric that decides which evaluation is the best.
        """
        earlier = read_evaluations(self.folder) if self.loggers else []
        self._call(lambda logger: logger.evaluation(step, metrics, per_class))
        best = best_evaluation(earlier, best_metric)
        self.block(evaluation_table(EvaluationRecord(
            step, step / self.steps_per_epoch if self.steps_per_epoch else None, metrics, per_class, best_metric,
            (earlier[-1].step, earlier[-1].metrics) if earlier else None, (best.step, best.metrics) if best else None)))

    def image(self, step: int, image: EncodedImage) -> None:
        """Logs a drawing under its name."""
        self._call(lambda logger: logger.image(step, image.name, image))

    def pr_curve(self, step: int, name: str, counts: np.ndarray) -> None:
        """Logs the precision-recall curve of the class `name`; counts: float64 [6, T], see Logger.pr_curve."""
        self._call(lambda logger: logger.pr_curve(step, name, counts))

    def start_progress(self, steps_per_epoch: int) -> None:
        """Shows live lines on a terminal; elsewhere each logged step is printed as a line."""
        self.steps_per_epoch = steps_per_epoch
        if self.console:
            self.console.start_progress(steps_per_epoch)

    def advance(self, step: int, losses: dict[str, float] | None = None) -> None:
        """Shows `step` completed steps, and the newest losses of this rank that are known."""
        if self.console:
            changes = {"losses": {"loss": sum(losses.values()), **losses}} if losses else {}
            self.console.advance(step=step, seconds_left=self.seconds_left(step), **changes)

    def evaluating(self, batches: Sequence[int]) -> Iterator[int]:
        """Yields the batches of an evaluation, and shows how many are done."""
        for done, batch in enumerate(batches):
            if self.console:
                self.console.advance(evaluated=(done, len(batches)))
            yield batch
        if self.console:
            self.console.advance(evaluated=None)

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
