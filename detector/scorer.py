"""Scoring beside the training steps: in a process of its own at low priority, so that the steps keep their pace.

A thread would not do: it takes turns with the steps at the interpreter. Only rank 0 has a scorer.
"""

import os
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from detector.charts import Curve, confusion, precision_recall
from detector.config.schema import Config
from detector.data.loader import start_worker, worker_context
from detector.metrics import kernel
from detector.metrics.analysis import analyse
from detector.pictures import Picture, draw_validation
from detector.records import Dataset
from detector.scoring import Evaluation, Predicted, index_of, score, write_results

NICE = 10  # so much more willing to wait for a core than the steps


@dataclass(frozen=True)
class Scored:
    """An evaluation, and what of it TensorBoard shows."""

    evaluation: Evaluation
    pictures: list[Picture]
    curves: list[Curve]


@dataclass(frozen=True)
class Job:
    """What scoring the same data set again and again needs."""

    dataset: Dataset
    config: Config
    folder: Path
    truth: kernel.Truth | None


class Scorer:
    """One evaluation at a time; what scoring it gives or raises waits here for whoever asks, and is never lost."""

    def __init__(self, dataset: Dataset | None, config: Config, folder: Path):
        self.given = dataset, config, folder
        self.pool: ProcessPoolExecutor | None = None
        self.job: Job | None = None
        self.future: Future | None = None

    @property
    def error(self) -> BaseException | None:
        """What went wrong, until somebody waits."""
        return self.future.exception() if self.future is not None and self.future.done() else None

    def start(self, predicted: Predicted) -> None:
        """Scores, writes results and pictures; the steps go on meanwhile. With run.workers=0 it happens here and now,
        like the loading. What the evaluation before gave must have been fetched."""
        assert self.future is None, "an evaluation is still being scored"
        if self.given[1].run.workers == 0:
            self.future = Future()
            try:
                self.job = self.job or job_of(*self.given)
                self.future.set_result(score_and_draw(self.job, predicted))
            except Exception as error:  # whatever it is, all ranks must hear of it
                self.future.set_exception(error)
            return
        if self.pool is None:
            self.pool = ProcessPoolExecutor(1, worker_context(), begin, self.given)
        self.future = self.pool.submit(score_here, predicted)

    def busy(self) -> bool:
        return self.future is not None and not self.future.done()

    def wait(self) -> Scored | None:
        """What the last evaluation gave, once; None where nothing was started. Raises what went wrong, once."""
        future, self.future = self.future, None
        return future.result() if future is not None else None

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()


_job: Job | None = None  # of this process, where it is a scorer's


def begin(dataset: Dataset, config: Config, folder: Path) -> None:
    """First thing in the process: it leaves signals to the training process, ends with it, and lets it go first."""
    global _job
    start_worker(0)
    os.nice(NICE)
    _job = job_of(dataset, config, folder)


def score_here(predicted: Predicted) -> Scored:
    return score_and_draw(_job, predicted)


def job_of(dataset: Dataset, config: Config, folder: Path) -> Job:
    return Job(dataset, config, folder, index_of(dataset, config.evaluate.metric))


def score_and_draw(job: Job, predicted: Predicted) -> Scored:
    """All of an evaluation but its place on record."""
    metric, found = job.config.evaluate.metric, predicted.detections
    evaluation = score(predicted, job.dataset, job.config.evaluate, job.truth)
    write_results(job.folder, evaluation, found, job.dataset)
    pictures = draw_validation(job.folder, predicted.step, job.dataset, found, job.config.run.pictures)
    why = analyse(found, job.dataset, metric, job.truth)
    return Scored(evaluation, pictures + confusion(why), precision_recall(why, found))
