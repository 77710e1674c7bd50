"""Scoring beside the training steps: in a process of its own at low priority, so that the steps keep their pace.

A thread would not do: it takes turns with the steps at the interpreter. Only rank 0 has a scorer.
"""

import contextlib
import os
import signal
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from detector.config.schema import Config
from detector.data.workers import start_worker, worker_context
from detector.distributed import collectives
from detector.evaluation.scoring import Evaluation, Predictions, index_ground_truth, score, write_results
from detector.metrics import coco_kernel
from detector.metrics.analysis import analyse
from detector.run import checkpoint_files
from detector.run.evaluation_history import best_of, out_of_patience
from detector.structures import Dataset
from detector.training.checkpoint import TrainState
from detector.visualization.tensorboard_curves import PrCurve, confusion, precision_recall
from detector.visualization.validation_images import Picture, draw_validation

pass
from detector.training.step import Run

NICE = 10  # so much more willing to wait for a core than the steps


@dataclass(frozen=True)
class Drawn:
    """What TensorBoard shows of an evaluation."""

    step: int
    pictures: list[Picture]
    curves: list[PrCurve]


@dataclass(frozen=True)
class Job:
    """What scoring the same data set again and again needs."""

    dataset: Dataset
    config: Config
    folder: Path
    truth: coco_kernel.IndexedGroundTruth | None


class Scorer:
    """One evaluation at a time, scored and then drawn. What scoring gives or raises waits here for whoever asks, and is
    never lost; drawings are, where a run is told to stop."""

    def __init__(self, dataset: Dataset | None, config: Config, folder: Path):
        self.given = dataset, config, folder
        self.pool: ProcessPoolExecutor | None = None
        self.job: Job | None = None
        self.future: Future | None = None
        self.drawing: Future | Predictions | None = None  # Predicted: to be drawn here, when somebody asks
        self.process: Future | None = None              # the id of the pool's only one

    @property
    def error(self) -> BaseException | None:
        """What went wrong, until somebody waits."""
        for future in (self.future, self.drawing):
            if isinstance(future, Future) and future.done() and future.exception():
                return future.exception()
        return None

    def start(self, predicted: Predictions) -> None:
        """Scores, writes results and pictures; the steps go on meanwhile. With run.num_workers=0 it happens here, like the
        loading: scoring now, drawing when somebody asks. What the evaluation before gave must have been fetched."""
        assert self.future is None, "an evaluation is still being scored"
        if self.given[1].run.num_workers == 0:
            self.future = Future()
            try:
                self.job = self.job or job_of(*self.given)
                self.future.set_result(score_and_write(self.job, predicted))
                self.drawing = predicted
            except Exception as error:  # whatever it is, all ranks must hear of it
                self.future.set_exception(error)
            return
        if self.pool is None:
            self.pool = ProcessPoolExecutor(1, worker_context(), begin, self.given)
            self.process = self.pool.submit(os.getpid)
        self.future, self.drawing = self.pool.submit(score_here, predicted), self.pool.submit(draw_here)

    def busy(self) -> bool:
        return self.future is not None and not self.future.done()

    def wait(self) -> Evaluation | None:
        """What the last evaluation gave, once; None where nothing was started. Raises what went wrong, once."""
        future, self.future = self.future, None
        return future.result() if future is not None else None

    def is_drawing(self) -> bool:
        return isinstance(self.drawing, Future) and not self.drawing.done()

    def drawn(self) -> Drawn | None:
        """What was drawn of it, once; None where there is nothing (yet)."""
        if self.is_drawing():
            return None
        drawing, self.drawing = self.drawing, None
        if isinstance(drawing, Predictions):
            return draw(self.job, drawing)
        return drawing.result() if drawing is not None else None

    def forget_drawing(self) -> None:
        self.drawing = None

    def close(self) -> None:
        """Ends what is under way: it has been fetched, or nobody waits for it."""
        if self.pool is None:
            return
        if self.process.done() and not self.process.exception():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.result(), signal.SIGKILL)  # it takes no other notice of signals
        self.pool.shutdown(cancel_futures=True)


_job: Job | None = None  # of this process, where it is a scorer's
_scored: Predictions | None = None  # what is to be drawn


def begin(dataset: Dataset, config: Config, folder: Path) -> None:
    """First thing in the process: it leaves signals to the training process, ends with it, and lets it go first."""
    global _job
    start_worker(0)
    os.nice(NICE)
    _job = job_of(dataset, config, folder)


def score_here(predicted: Predictions) -> Evaluation:
    global _scored
    _scored = None
    evaluation = score_and_write(_job, predicted)
    _scored = predicted
    return evaluation


def draw_here() -> Drawn | None:
    """Nothing where scoring failed, which is told of by itself."""
    return draw(_job, _scored) if _scored is not None else None


def job_of(dataset: Dataset, config: Config, folder: Path) -> Job:
    return Job(dataset, config, folder, index_ground_truth(dataset, config.evaluate.metric))


def score_and_write(job: Job, predicted: Predictions) -> Evaluation:
    """All of an evaluation but its place on record, and what is drawn."""
    evaluation = score(predicted, job.dataset, job.config.evaluate, job.truth)
    write_results(job.folder, evaluation, predicted.detections, job.dataset)
    return evaluation


def draw(job: Job, predicted: Predictions) -> Drawn:
    found = predicted.detections
    pictures = draw_validation(job.folder, predicted.step, job.dataset, found, job.config.run.num_val_images)
    why = analyse(found, job.dataset, job.config.evaluate.metric, job.truth)
    return Drawn(predicted.step, pictures + confusion(why), precision_recall(why, found))


def settle(run: Run) -> None:
    """The evaluation that is being scored goes on record, and marks the best. Collective; what went wrong in it raises
    on all ranks.

    It comes before all that is later than the evaluation and stays: a line of the record, a checkpoint, the end. Its
    drawings come when they are there.
    """
    def note() -> None:
        evaluation = run.scorer.wait()
        if evaluation is not None:
            put_on_record(run, evaluation)
        pictures = run.scorer.drawn()
        if pictures is not None:
            put_on_board(run, pictures)
    if run.scorer.busy():
        run.heart.beat("scoring")  # else a long one is told of as a step that stands still
    collectives.run_on_main(note)


def settle_drawings(run: Run) -> bool:
    """Waits for the drawings of the last evaluation as well; False if any rank was asked to stop. Collective."""
    settle(run)
    run.heart.beat("drawing")
    while True:
        drawing, asked = collectives.any_rank(run.scorer.is_drawing(), run.stop.requested)
        if asked:
            return False
        if not drawing:
            settle(run)
            return True
        time.sleep(0.05)


def put_on_record(run: Run, evaluation: Evaluation) -> None:
    """The best comes first and the record last: what is on record needs not be done again."""
    run.saver.wait()
    folder, record = run.journal.folder, run.journal.evaluations(run.config.evaluate.best_metric)
    reached = evaluation.step, evaluation.metrics[run.config.evaluate.best_metric]
    if best_of([*record, reached]) == reached or not (folder / "checkpoints" / "best.pt").exists():
        checkpoint_files.mark_best(folder, checkpoint_files.checkpoint_path(folder, evaluation.step))
    run.journal.evaluation(evaluation.step, evaluation.metrics, evaluation.per_class)
    for message in evaluation.unreadable:
        run.journal.say(f"could not be read, a grey picture stands in: {message}")


def put_on_board(run: Run, drawn: Drawn) -> None:
    """After the record: an evaluation that is done again would be on the board twice."""
    for picture in drawn.pictures:
        run.journal.picture(drawn.step, picture)
    for name, counts in drawn.curves:
        run.journal.precision_recall(drawn.step, name, counts)
    run.journal.board.flush()


def evaluated(state: TrainState, run: Run) -> bool:
    """Is the evaluation of this step on record? Rank 0's record counts."""
    on_record = run.journal.evaluations(run.config.evaluate.best_metric)
    return collectives.broadcast_text(str(any(step == state.step for step, _ in on_record))) == "True"


def finished_early(run: Run) -> bool:
    """Has the metric stopped getting better for too long? Rank 0's record counts."""
    if not run.config.schedule.early_stopping_patience:
        return False
    settle(run)
    on_record = run.journal.evaluations(run.config.evaluate.best_metric)
    return collectives.broadcast_text(str(out_of_patience(on_record, run.config.schedule.early_stopping_patience))) == "True"
