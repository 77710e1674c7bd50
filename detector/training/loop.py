"""The training loop. What a step does is a function of (config, step, rank), so a run can be cut at any step."""

import enum
import time
from contextlib import closing

import torch

from detector.config.load import run_folder
from detector.config.schema import Config
from detector.data.loader import BatchIterator
from detector.distributed import collectives, data_parallel, rank_info
from detector.distributed.stop_signal import StopRequest
from detector.errors import Stopped
from detector.evaluation.evaluate import predict_all
from detector.model.compile import compile_model
from detector.model.faster_rcnn import LOSSES
from detector.run.environment import peak_memory_gib
from detector.run.heartbeat import Heartbeat
from detector.run.lock import RunLock
from detector.run.status import StatusFile
from detector.training import checkpoint
from detector.training.async_checkpoint import Saver, kept
from detector.training.async_evaluation import Scorer, evaluated, finished_early, settle, settle_drawings
from detector.training.checkpoint import TrainState
from detector.training.nan_guard import FiniteCheck, ensure_finite
from detector.training.schedule import learning_rate
from detector.training.setup import open_journal, prepare
from detector.training.step import Run, Step, due, train_step
from detector.training.train_loader import open_steps


class Outcome(enum.Enum):
    FINISHED = "finished"
    STOPPED = "stopped"


def train(config: Config, device: torch.device, stop: StopRequest) -> Outcome:
    """Trains, from the newest checkpoint of the run folder if there is one. Collective.

    Asked to stop, at any moment from here on, all ranks leave at the same step, with everything saved.
    """
    with closing(RunLock(run_folder(config))) as owner:
        collectives.run_on_main(owner.take)
        return train_owned(config, device, stop, owner)


def train_owned(config: Config, device: torch.device, stop: StopRequest, owner: RunLock) -> Outcome:
    folder, main = owner.folder, rank_info.is_main()
    with StatusFile(folder, main) as status, Heartbeat(folder, 60 * config.run.hang_timeout_minutes) as heart:
        status.tell("starting")
        try:
            state, ready = prepare(config, device, stop, heart)
        except Stopped:
            status.tell("stopped", by=stop.by)
            if main:
                print(f"asked to stop ({asked_by(stop)}) before the first step: there was nothing to save", flush=True)
            return Outcome.STOPPED
        with closing(collectives.run_on_all_ranks(
                lambda: open_journal(config, state.step, ready.plan, heart, owner))) as journal, \
                closing(Saver(folder, config.run.keep_checkpoints, journal.flush, state.step)) as saver, \
                closing(Scorer(ready.val, config, folder)) as scorer:
            for line in ready.said:
                journal.say(line)
            run = Run(config, ready.data, ready.val, ready.plan, ready.canvases, device, journal, stop,
                      FiniteCheck(device), saver, status, heart, scorer)
            try:
                run_steps(state, run)
            except Stopped:
                leave(state, run)
                return Outcome.STOPPED
            finish(state, run)
            return Outcome.FINISHED


def run_steps(state: TrainState, run: Run) -> None:
    """What an earlier start left to be done, then the loop. Raises Stopped, on all ranks at the same step."""
    run.heart.beat("start-up", state.step)
    run.status.tell("starting", step=state.step, total_steps=run.plan.total_steps)
    if state.step and run.evaluation_due(state.step) and not evaluated(state, run):
        run.journal.say(f"the evaluation at step {state.step} was cut off; it comes first")
        evaluate_and_note(state, run)
    if state.step >= run.plan.total_steps or finished_early(run):
        return
    with open_steps(run.data, run.plan, run.config, state.step, run.device) as steps:
        run_loop(state, run, steps)


def run_loop(state: TrainState, run: Run, steps: BatchIterator) -> None:
    """Step by step from state.step to the end, with what is due between them."""
    compile_model(state.model, run.config.run.compile, dynamic=run.config.batch.pad_to == "batch")
    module = data_parallel.wrap_ddp(state.model, run.device, len(run.plan.micro), run.config.optim.bf16_allreduce)
    total = run.plan.total_steps
    run.journal.start_bar()
    run.status.tell("training")
    pace = Pace(state.step)
    while state.step < total:
        done = train_step(state, module, steps, run)
        state.step += 1
        pace.add(done)
        run.journal.advance(state.step)
        if due(state.step, run.config.run.log_every_steps, total):
            log(state, run, done, pace)
            pace = Pace(state.step)
        evaluation_due = run.evaluation_due(state.step)
        if evaluation_due or due(state.step, run.config.run.save_every_steps, total):
            save(state, run, must=evaluation_due or state.step == total)
        if evaluation_due:
            evaluate_and_note(state, run)
            if finished_early(run):
                break
            pace = Pace(state.step)


class Pace:
    """What has come together since the last logged step."""

    def __init__(self, step: int):
        self.first_step, self.started_at = step, time.monotonic()
        self.waited_s, self.unreadable = 0.0, []

    def add(self, done: Step) -> None:
        self.waited_s += done.wait_s
        self.unreadable += done.unreadable


def log(state: TrainState, run: Run, done: Step, pace: Pace) -> None:
    """One line of the record: the losses of this step, the pace since the last one. Collective."""
    ensure_finite(state, run)
    means = collectives.all_reduce_mean(done.losses).tolist()  # waits for the device, and so comes before the clock is read
    elapsed_s = time.monotonic() - pace.started_at
    settle(run)
    images_per_s = (state.step - pace.first_step) * run.plan.global_batch / elapsed_s
    values = {
        "epoch": state.step / run.plan.steps_per_epoch, "loss": sum(means), **dict(zip(LOSSES, means)),
        "rate": learning_rate(state.step - 1, run.plan, run.config.schedule),
        "gradient_norm": float(done.gradient_norm), "images_per_s": images_per_s,
        "data_wait": pace.waited_s / elapsed_s, "memory_gib": peak_memory_gib(run.device)}
    collectives.run_on_main(lambda: run.journal.training(state.step, values))
    run.status.tell("training", step=state.step, images_per_s=round(images_per_s, 2),
                    seconds_left=round(run.journal.seconds_left(state.step), 1), saved_in_s=run.saver.saved_in_s)
    for message in collectives.all_gather_texts(pace.unreadable):
        run.journal.say(f"could not be read, a grey picture stands in: {message}")


def save(state: TrainState, run: Run, must: bool) -> None:
    """The state of now will be on disk; training goes on meanwhile. Collective.

    Unless it `must` be, it is left out where the disk has not finished the one before. What went wrong with that one
    raises on all ranks. A step that is on disk already is left alone.
    """
    ensure_finite(state, run)
    settle(run)
    run.heart.beat("saving", state.step)

    def start() -> None:
        if must:
            run.saver.wait()
        if state.step == run.saver.step:
            return
        content = checkpoint.content_of(state, run.config, run.data.classes, run.plan.global_batch)
        if not run.saver.start(content):
            run.journal.say(f"step {state.step} is not saved: step {run.saver.step} is still being written")
    collectives.run_on_main(start)


def leave(state: TrainState, run: Run) -> None:
    """All ranks are here at the same step, as one was asked to stop; when this returns the step is safe on disk. An
    evaluation that is being scored goes on record; nobody waits for its drawings."""
    run.scorer.forget_drawing()
    started_at, new = time.monotonic(), state.step != run.saver.step  # of which only rank 0 knows
    save(state, run, must=True)
    collectives.run_on_main(run.saver.wait)
    elapsed_s = time.monotonic() - started_at
    run.status.tell("stopped", step=state.step, saved_in_s=run.saver.saved_in_s, by=run.stop.by)
    told = kept(state.step, elapsed_s if new else None)
    run.journal.say(f"{told}; asked to stop ({asked_by(run.stop)}), start again to go on")


def finish(state: TrainState, run: Run) -> None:
    """All steps and evaluations are done."""
    settle_drawings(run)
    run.heart.beat("finished")
    collectives.run_on_main(run.saver.wait)
    run.status.tell("finished", step=state.step, saved_in_s=run.saver.saved_in_s, seconds_left=0.0)
    run.journal.say(f"finished: {state.step} of {run.plan.total_steps} steps are done; results are in "
                    f"{run.journal.folder}")


def asked_by(stop: StopRequest) -> str:
    return stop.by or "on another rank"


def evaluate_and_note(state: TrainState, run: Run) -> None:
    """All ranks predict, with the average where there is one; rank 0 scores beside the next steps, see `settle`.

    Stopped in between, it counts for nothing, and comes first when the run is started again.
    """
    run.status.tell("evaluating", step=state.step)
    if not settle_drawings(run):  # of the evaluation before
        raise Stopped
    predicted = predict_all(state.average or state.model, run.val, run.config, run.device, state.step,
                            lambda: run.stop.requested, run.heart.beat)
    if predicted is None:
        run.journal.say(f"asked to stop in the evaluation at step {state.step}; it comes first when started again")
        raise Stopped
    collectives.run_on_main(lambda: run.scorer.start(predicted))
    run.status.tell("training")
