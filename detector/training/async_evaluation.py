"""Background evaluation: rank 0 scores and draws in a process of low priority, beside the next training steps.

`BackgroundScorer` runs that process. `collect_evaluation` is called on all ranks; rank 0 takes the result, appends
it to metrics.jsonl, updates best.pt, hands the drawings to the loggers and starts to plot. A thread instead of a
process would compete with the training steps for the interpreter lock.
"""

import contextlib
import os
import signal
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from detector.config.schema import Config
from detector.data.workers import worker_context
from detector.distributed import collectives
from detector.distributed.stop_signal import StopRequest
from detector.evaluation.notes import not_finite_note
from detector.evaluation.scoring import Evaluation, Predictions
from detector.loggers.run_log import RunLog
from detector.run.checkpoint_files import best_path, checkpoint_path, mark_best
from detector.run.evaluation_history import best_of, not_finite, value_of
from detector.run.heartbeat import Heartbeat
from detector.structures import Dataset
from detector.training.async_checkpoint import AsyncCheckpoint
from detector.training.async_plots import BackgroundPlots
from detector.training.scoring_process import (
    Drawings,
    ScoringJob,
    draw,
    draw_in_process,
    init_process,
    make_job,
    score_and_write,
    score_in_process,
)


class BackgroundScorer:
    """Scores and draws one evaluation at a time. Only rank 0 starts one.

    Results and errors of scoring are kept until they are taken; drawings are dropped when the run is stopped. With
    run.num_workers=0 there is no second process: start() scores, take_drawings() draws.
    """

    def __init__(self, dataset: Dataset | None, config: Config, folder: Path):
        self.config, self.arguments = config, (dataset, config, folder)
        self.pool: ProcessPoolExecutor | None = None
        self.job: ScoringJob | None = None
        self.scoring: Future | None = None
        self.drawing: Future | Predictions | None = None  # Predictions: still to be drawn by this process
        self.process_id: Future | None = None
        self.predictions: Predictions | None = None  # of the evaluation that is being scored
        self.notes: list[str] = []  # for the log
        self.plots = BackgroundPlots(folder, config.evaluate.best_metric, config.run.plots)

    @property
    def error(self) -> BaseException | None:
        """The error of scoring or drawing, until the result is taken."""
        for future in (self.scoring, self.drawing):
            if isinstance(future, Future) and future.done() and future.exception() and not was_killed(future):
                return future.exception()
        return None

    def start(self, predictions: Predictions) -> None:
        """Starts to score, write results.json and draw. The evaluation before must have been taken."""
        assert self.scoring is None, "an evaluation is still being scored"
        if self.config.run.num_workers == 0:
            self.scoring = Future()
            try:
                self.job = self.job or make_job(*self.arguments)
                self.scoring.set_result(score_and_write(self.job, predictions))
                self.drawing = predictions
            except Exception as error:  # any error must reach all ranks
                self.scoring.set_exception(error)
            return
        if self.pool is None:
            self.pool = ProcessPoolExecutor(1, worker_context(), init_process, self.arguments)
            self.process_id = self.pool.submit(os.getpid)
        self.predictions = predictions
        try:
            self.scoring = self.pool.submit(score_in_process, predictions)
            self.drawing = self.pool.submit(draw_in_process)
        except BrokenProcessPool as error:  # killed since the last evaluation
            self.scoring = Future()
            self.scoring.set_exception(error)

    def is_scoring(self) -> bool:
        return self.scoring is not None and not self.scoring.done()

    def take_evaluation(self) -> Evaluation | None:
        """Waits for the evaluation and returns it, once; None if none was started. Raises scoring's error, once."""
        scoring, self.scoring = self.scoring, None
        if scoring is None:
            return None
        if not was_killed(scoring):
            return scoring.result()
        self.notes.append("the process that scores evaluations was killed (the usual cause is a lack of memory: lower "
                          "run.num_workers, or request more). This evaluation is scored by the training process, "
                          "without drawings")
        self.end_process()
        self.drawing = None
        self.job = self.job or make_job(*self.arguments)
        return score_and_write(self.job, self.predictions)

    def is_drawing(self) -> bool:
        return isinstance(self.drawing, Future) and not self.drawing.done()

    def take_drawings(self) -> Drawings | None:
        """Returns the drawings of the evaluation, once; None while they are being made, or if there are none."""
        if self.is_drawing():
            return None
        drawing, self.drawing = self.drawing, None
        if isinstance(drawing, Predictions):
            return draw(self.job, drawing)
        if drawing is not None and was_killed(drawing):
            self.end_process()
            return None
        return drawing.result() if drawing is not None else None

    def drop_drawings(self) -> None:
        self.drawing = None

    def close(self) -> None:
        """Ends all processes at once: their results have been taken, or nobody needs them."""
        self.plots.close()
        self.end_process()

    def end_process(self) -> None:
        """Ends the process that scores and draws; the next evaluation starts another one."""
        pool, self.pool = self.pool, None
        if pool is None:
            return
        if self.process_id.done() and not self.process_id.exception():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process_id.result(), signal.SIGKILL)  # the process ignores all other stop signals
        pool.shutdown(cancel_futures=True)


def was_killed(future: Future) -> bool:
    """Returns whether the process of a future was killed before it had the result. Waits for the future."""
    return isinstance(future.exception(), BrokenProcessPool)


def collect_evaluation(scorer: BackgroundScorer, saver: AsyncCheckpoint, run_log: RunLog, best_metric: str,
                       heartbeat: Heartbeat) -> None:
    """Waits for the background evaluation, appends it to metrics.jsonl and updates best.pt. Collective.

    Call before logging, saving or stopping. Drawings are logged if they are ready. An error of the background process
    is raised on all ranks.
    """
    def collect() -> None:
        evaluation = scorer.take_evaluation()
        for note in scorer.notes:
            run_log.message(note)
        scorer.notes.clear()
        if evaluation is not None:
            record_evaluation(evaluation, saver, run_log, best_metric)
        drawings = scorer.take_drawings()
        if drawings is not None:
            log_drawings(drawings, run_log)
            scorer.plots.request()
        scorer.plots.poll()
        if note := scorer.plots.take_note():
            run_log.message(note)
    if scorer.is_scoring():
        heartbeat.mark("scoring")  # otherwise a long evaluation would be reported as a hanging step
    collectives.run_on_main(collect)


def wait_until_drawn(scorer: BackgroundScorer, stop: StopRequest) -> bool:
    """Waits until rank 0 has made its drawings; returns False if a stop is requested meanwhile. Collective."""
    while True:
        is_drawing, stop_requested = collectives.any_rank(scorer.is_drawing(), stop.requested)
        if stop_requested or not is_drawing:
            return not stop_requested
        time.sleep(0.05)


def record_evaluation(evaluation: Evaluation, saver: AsyncCheckpoint, run_log: RunLog, best_metric: str) -> None:
    """Updates best.pt if the evaluation is the best or best.pt is missing, then appends it to metrics.jsonl.

    An evaluation in metrics.jsonl is complete: it is not repeated when the run resumes. One with a metric that is not
    finite never becomes best.pt.
    """
    saver.wait()
    folder, earlier = run_log.folder, run_log.evaluations(best_metric)
    latest = evaluation.step, value_of(evaluation.metrics, best_metric)
    if best_of([*earlier, latest]) == latest or not best_path(folder).exists() and best_of([latest]):
        mark_best(folder, checkpoint_path(folder, evaluation.step))
    run_log.evaluation(evaluation.step, evaluation.metrics, evaluation.per_class, best_metric)
    names = not_finite(evaluation.metrics)
    if names:
        run_log.message(f"evaluation at step {evaluation.step}: {', '.join(names)} {'are' if names[1:] else 'is'} not "
                        "finite, so that it is not the best and no improvement. The training diverges, if the losses "
                        "of its steps grow as well: set optim.grad_clip_norm=10, or a lower optim.lr")
    note = not_finite_note(evaluation.not_finite, evaluation.images)
    if note:
        run_log.message(f"evaluation at step {evaluation.step}: {note}")
    for message in evaluation.unreadable:
        run_log.message(f"unreadable image, replaced by a grey one: {message}")


def log_drawings(drawings: Drawings, run_log: RunLog) -> None:
    """Logs images and curves. Call after record_evaluation: an evaluation that is repeated would log them again."""
    for image in drawings.images:
        run_log.image(drawings.step, image)
    for name, counts in drawings.pr_curves:
        run_log.pr_curve(drawings.step, name, counts)
    run_log.flush_tensorboard()
