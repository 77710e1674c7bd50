"""The training loop. All ranks run it together: they vote on every stop and error; all else is due by the step alone.

Writing a checkpoint and scoring an evaluation run in the background. An evaluation has these stages: `save` starts to
write the checkpoint; `evaluate` predicts on all ranks and starts scoring on rank 0; some steps later
`finish_pending_evaluation` updates best.pt and metrics.jsonl; a later call of it logs the drawings.
"""

import enum
import time
from contextlib import closing
from dataclasses import dataclass

import torch

from detector.config.load import run_folder
from detector.config.schema import Config
from detector.data.loader import BatchIterator
from detector.data.synced_batches import Fetched, FetchPolicy, fetch_batches
from detector.distributed import collectives
from detector.distributed.data_parallel import wrap_ddp
from detector.distributed.rank_info import is_main
from detector.distributed.stop_signal import StopRequest
from detector.errors import Stopped
from detector.evaluation.evaluate import predict_all
from detector.loggers.run_log import RunLog
from detector.model.compile import compile_model
from detector.run.evaluation_history import out_of_patience
from detector.run.heartbeat import Heartbeat
from detector.run.lock import RunLock
from detector.run.status import StatusFile
from detector.run.usage import UsageRecord
from detector.training.async_checkpoint import AsyncCheckpoint, describe_save, save_if_possible
from detector.training.async_evaluation import BackgroundScorer, collect_evaluation, wait_until_drawn
from detector.training.checkpoint import TrainState, checkpoint_content
from detector.training.nan_guard import NanGuard, raise_not_finite, step_details
from detector.training.schedule import evaluation_interval, is_due, learning_rate
from detector.training.setup import Setup, open_run_folder, prepare
from detector.training.step import StepResult, train_step
from detector.training.throughput import RunMeter, report_cost
from detector.training.train_loader import open_train_loader


class Outcome(enum.Enum):
    FINISHED = "finished"
    STOPPED = "stopped"


def train(config: Config, device: torch.device, stop: StopRequest) -> Outcome:
    """Trains a run to its end, or until a stop is requested; resumes from its newest checkpoint. Collective.

    Wherever a stop signal arrives, and on whichever rank, all ranks leave at the same step, which is saved.

    Raises:
        BadInput: the run cannot start, or another process trains it.
        NotFinite: a loss became infinite or NaN.
    """
    folder = run_folder(config)
    with closing(RunLock(folder)) as lock:
        collectives.run_on_main(lock.take)
        usage = UsageRecord(folder, is_main(), stop.created_at)
        with StatusFile(folder, is_main()) as status, \
                Heartbeat(folder, 60 * config.run.hang_timeout_minutes) as heartbeat:
            status.update("starting")
            try:
                state, setup = prepare(config, device, stop, heartbeat)
            except Stopped:
                status.update("stopped", by=stop.signal_name)
                if is_main():
                    print(f"stop requested ({stop.reason}) during start-up: there is nothing new to save", flush=True)
                return Outcome.STOPPED
            config = setup.config
            with closing(collectives.run_on_all_ranks(
                    lambda: open_run_folder(setup, state.step, heartbeat, lock))) as run_log, \
                    closing(AsyncCheckpoint(folder, config.run.keep_checkpoints, run_log.flush, state.step)) as saver, \
                    closing(BackgroundScorer(setup.val_data, config, folder)) as scorer:
                meter = RunMeter(usage, setup.ranks, device, state.step, setup.plan.global_batch)
                loop = TrainingLoop(config, setup, state, device, stop, run_log, status, heartbeat, saver, scorer,
                                    NanGuard(device, state.scaler.is_enabled()), meter)
                return loop.run()


@dataclass(frozen=True)
class TrainingLoop:
    """The loop of one run on one rank. Methods are collective, but for `is_evaluation_due` and `evaluations`."""

    config: Config
    setup: Setup
    state: TrainState
    device: torch.device
    stop: StopRequest
    run_log: RunLog
    status: StatusFile
    heartbeat: Heartbeat
    saver: AsyncCheckpoint
    scorer: BackgroundScorer
    nan_guard: NanGuard
    meter: RunMeter

    def run(self) -> Outcome:
        self.run_log.begin(self.setup.header, self.setup.messages)
        try:
            self.redo_interrupted_evaluation()
            if self.state.step < self.setup.plan.total_steps and not self.should_stop_early():
                self.run_steps()
        except Stopped:
            self.leave()
            return Outcome.STOPPED
        self.finish()
        return Outcome.FINISHED

    def redo_interrupted_evaluation(self) -> None:
        """Evaluates first if the run was stopped in an evaluation. Raises Stopped if a stop is requested meanwhile."""
        step = self.state.step
        self.heartbeat.mark("start-up", step)
        self.status.update("starting", step=step, total_steps=self.setup.plan.total_steps)
        if step and self.is_evaluation_due() and not self.is_evaluated():
            self.run_log.message(f"the evaluation at step {step} was interrupted; it is repeated first")
            with self.meter.during("evaluation"):
                self.evaluate()

    def run_steps(self) -> None:
        """Runs the steps until the end of the schedule or early stopping. Raises Stopped if a stop is requested."""
        config, plan, state = self.config, self.setup.plan, self.state
        with open_train_loader(self.setup.train_data, plan, config, state.step, self.device) as loader:
            compile_model(state.model, config.run.compile, dynamic=config.batch.pad_to == "batch")
            model = wrap_ddp(state.model, self.device, plan.forward_passes, config.optim.bf16_allreduce)
            self.run_log.start_progress(plan.steps_per_epoch)
            self.status.update("training")
            self.meter.write(state.step)
            while state.step < plan.total_steps:
                fetched = self.fetch(loader)
                self.meter.add(fetched)
                self.heartbeat.mark("step", state.step + 1)
                result = train_step(state, model, fetched.batches, plan=plan, config=config,
                                    buckets=self.setup.buckets, device=self.device, forward_timer=self.meter.forward)
                lr = learning_rate(state.step, plan, config.schedule)
                self.nan_guard.watch(result, step_details(state.step, lr, fetched))
                state.step += 1
                self.run_log.advance(state.step, self.nan_guard.latest)
                if state.step == 1 or is_due(state.step, config.run.log_every_steps, plan.total_steps):
                    self.log(result)
                evaluation_due = self.is_evaluation_due()
                if evaluation_due or is_due(state.step, config.run.save_every_steps, plan.total_steps):
                    self.save(wait=evaluation_due or state.step == plan.total_steps)
                if evaluation_due:
                    with self.meter.during("evaluation"):
                        self.evaluate()
                    if self.should_stop_early():
                        break

    def fetch(self, loader: BatchIterator) -> Fetched:
        """Waits for the next batch of every rank. Raises Stopped, NotFinite, or the error of a background task."""
        details = self.nan_guard.poll()
        policy = FetchPolicy(
            stop_requested=lambda: self.stop.requested,
            refuse_unreadable=self.config.data.unreadable_images == "refuse",
            timeout_s=60 * self.config.run.timeout_minutes,
            mark=lambda phase: self.heartbeat.mark(phase, self.state.step + 1),
            background_error=lambda: self.saver.error or self.scorer.error,
            before_error=lambda: save_if_possible(self.save_now, self.saver, self.scorer.error, self.run_log))
        fetched = fetch_batches(loader, len(self.setup.plan.micro_batches), policy, details is not None)
        if fetched.nan_found:
            self.stop_on_nan(details)
        if fetched.stop_requested:
            raise Stopped
        return fetched

    def stop_on_nan(self, details: dict | None) -> None:
        """Raises NotFinite after writing what is known about the step."""
        raise_not_finite(details, self.state.step, self.setup.train_data, self.state.scaler, self.run_log.folder)

    def ensure_finite(self) -> None:
        """Raises NotFinite on all ranks if the last loss of any rank was not finite. Call before saving or logging."""
        details = self.nan_guard.poll(wait=True)
        if collectives.any_rank(details is not None)[0]:
            self.stop_on_nan(details)

    def log(self, result: StepResult) -> None:
        """Logs the losses of this step, and the speed since the last logged step."""
        self.ensure_finite()
        step, plan = self.state.step, self.setup.plan
        means = collectives.all_reduce_mean(result.losses).tolist()  # waits for the device: measure afterwards
        measured, messages = self.meter.measure(step)
        self.finish_pending_evaluation()
        values = {
            "epoch": step / plan.steps_per_epoch, "loss": sum(means), **dict(zip(result.loss_names, means)),
            "lr": learning_rate(step - 1, plan, self.config.schedule), "gradient_norm": float(result.gradient_norm),
            **measured}
        collectives.run_on_main(lambda: self.run_log.train_step(step, values, self.meter.write(step)))
        self.status.update("training", step=step, images_per_s=round(measured["images_per_s"], 2),
                           seconds_left=round(self.run_log.seconds_left(step), 1), saved_in_s=self.saver.saved_in_s)
        for message in messages:
            self.run_log.message(message)

    def save(self, wait: bool) -> None:
        """Starts to write a checkpoint of the current step in the background.

        Args:
            wait: wait for an earlier write first; otherwise the checkpoint is skipped while one is running.
        """
        self.ensure_finite()
        self.finish_pending_evaluation()
        self.heartbeat.mark("saving", self.state.step)

        def start() -> None:
            if wait:
                self.saver.wait()
            if self.state.step == self.saver.step:
                return
            content = checkpoint_content(self.state, self.config, self.setup.train_data.classes,
                                         self.setup.plan.global_batch, self.setup.fingerprints)
            if not self.saver.start(content):
                self.run_log.message(f"step {self.state.step} is not saved: step {self.saver.step} is being written")
        with self.meter.during("saving"):
            collectives.run_on_main(start)
        self.meter.write(self.state.step)

    def evaluate(self) -> None:
        """Predicts on all ranks, with the moving average if there is one; rank 0 scores in the background.

        If a stop is requested meanwhile, the evaluation is dropped and repeated when the run is started again.
        """
        step = self.state.step
        self.status.update("evaluating", step=step)
        if not self.wait_for_drawings():
            raise Stopped
        model = self.state.ema_model or self.state.model
        predictions = predict_all(model, self.setup.val_data, self.config, self.device, step,
                                  lambda: self.stop.requested, self.heartbeat.mark, self.run_log.evaluating)
        if predictions is None:
            self.run_log.message(f"stop requested in the evaluation at step {step}; it is repeated at the next start")
            raise Stopped
        self.meter.write(step)  # results.json will hold the cost up to here
        collectives.run_on_main(lambda: self.scorer.start(predictions))
        self.status.update("training")

    def finish_pending_evaluation(self) -> None:
        """Waits until the last evaluation is scored and logs it, and its drawings if they are made by then."""
        if self.setup.val_data is not None:
            with self.meter.during("evaluation"):
                collect_evaluation(self.scorer, self.saver, self.run_log, self.config.evaluate.best_metric,
                                   self.heartbeat)

    def wait_for_drawings(self) -> bool:
        """Logs the last evaluation and its drawings; returns False if a stop is requested before they are made."""
        self.finish_pending_evaluation()
        self.heartbeat.mark("drawing")
        is_complete = wait_until_drawn(self.scorer, self.stop)
        if is_complete:
            self.finish_pending_evaluation()
        return is_complete

    def is_evaluation_due(self) -> bool:
        plan = self.setup.plan
        every = evaluation_interval(self.config.evaluate.every_epochs, plan)
        return self.setup.val_data is not None and is_due(self.state.step, every, plan.total_steps)

    def is_evaluated(self) -> bool:
        """Returns whether metrics.jsonl of rank 0 holds the evaluation of this step."""
        return collectives.answer_of_main(lambda: any(step == self.state.step for step, _ in self.evaluations()))

    def should_stop_early(self) -> bool:
        """Returns whether the best metric has not improved for schedule.early_stopping_patience evaluations."""
        patience = self.config.schedule.early_stopping_patience
        if not patience:
            return False
        self.finish_pending_evaluation()
        return collectives.answer_of_main(lambda: out_of_patience(self.evaluations(), patience))

    def evaluations(self) -> list[tuple[int, float]]:
        return self.run_log.evaluations(self.config.evaluate.best_metric)

    def leave(self) -> None:
        """Saves the current step and waits until it is on disk. Called on all ranks after a stop request."""
        self.scorer.drop_drawings()
        saved = self.save_now()
        report_cost(self.meter, self.state.step, self.run_log)
        self.status.update("stopped", step=self.state.step, saved_in_s=self.saver.saved_in_s, by=self.stop.signal_name)
        self.run_log.message(f"{saved}; stop requested ({self.stop.reason}), start again to continue")

    def save_now(self) -> str:
        """Saves the current step and waits until it is on disk; returns a sentence about that."""
        started_at, is_new = time.monotonic(), self.state.step != self.saver.step  # right on rank 0 only, which saves
        self.save(wait=True)
        with self.meter.during("saving"):
            collectives.run_on_main(self.saver.wait)
        return describe_save(self.state.step, time.monotonic() - started_at if is_new else None)

    def finish(self) -> None:
        """Waits for the last evaluation, drawings, plots and checkpoint."""
        with self.meter.during("evaluation"):
            self.wait_for_drawings()
            collectives.run_on_main(lambda: self.scorer.plots.finish(lambda: self.stop.requested))
        with self.meter.during("saving"):
            collectives.run_on_main(self.saver.wait)
        self.heartbeat.mark("finished")
        report_cost(self.meter, self.state.step, self.run_log)
        self.status.update("finished", step=self.state.step, saved_in_s=self.saver.saved_in_s, seconds_left=0.0)
        example = self.setup.val_data or self.setup.train_data
        self.run_log.finish(self.state.step, self.config.evaluate.best_metric, example.path(0))
