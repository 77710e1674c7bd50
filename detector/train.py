"""The training loop. What a step does is a function of (config, step, rank), so a run can be cut at any step."""

import copy
import enum
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Iterator

import torch

from detector import checkpoint, distributed
from detector.checkpoint import TrainState
from detector.config.load import folder_of, to_yaml
from detector.config.schema import Config
from detector.data.batches import epoch_sizes
from detector.data.loader import Batch
from detector.data.read import describe, for_training, read_datasets
from detector.errors import BadInput
from detector.evaluate import evaluate, peak_memory_gib, write_results
from detector.finite import FiniteCheck
from detector.journal import Journal, best_of, out_of_patience, write_whole
from detector.model.build import LOSSES, build_model, use_channels_last
from detector.model.weights import load_weights
from detector.optim import Plan, build_optimizer, learning_rate, plan_run
from detector.pictures import draw_validation
from detector.randomness import seed_for, seed_torch
from detector.records import Dataset
from detector.step import Run, Step, due, open_steps, refuse_not_finite, train_step
from detector.stopping import StopRequest
from detector.surroundings import surroundings


class Outcome(enum.Enum):
    FINISHED = "finished"
    STOPPED = "stopped"


def train(config: Config, device: torch.device) -> Outcome:
    """Trains, from the newest checkpoint of the run folder if there is one. Collective.

    A signal that comes before the first step is noted, too, and leaves after it.
    """
    with StopRequest() as stop:
        folder, plan, state, data, val, said = prepare(config, device)
        with closing(distributed.together(lambda: open_journal(folder, config, state, plan))) as journal:
            for line in said:
                journal.say(line)
            run = Run(config, data, val, plan, device, journal, stop, FiniteCheck(device))
            outcome = run_steps(state, run)
            if outcome is Outcome.FINISHED:
                journal.say(f"finished: {state.step} of {plan.total_steps} steps are done; results are in {folder}")
            return outcome


def prepare(config: Config, device: torch.device
            ) -> tuple[Path, Plan, TrainState, Dataset, Dataset | None, list[str]]:
    """Everything that can be wrong before the first step; nothing is written. The last is what to tell the user."""
    folder = folder_of(config)
    whole, val = read_datasets(config.data)
    data = for_training(whole, config.data)
    sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
    plan = plan_run(config.batch, config.optim, config.schedule, sizes, distributed.rank(), distributed.world())
    state, origin = build_state(config, data.classes, plan, folder, device)
    counts = [describe(data), *data.faults, *([describe(val), *val.faults] if val else [])]
    return folder, plan, state, data, val, [*origin, *counts, plan.sentence, f"{device}, {config.run.precision}"]


def run_steps(state: TrainState, run: Run) -> Outcome:
    """What an earlier start left to be done, then the loop."""
    if state.step and run.evaluation_due(state.step) and not evaluated(state, run):
        run.journal.say(f"the evaluation at step {state.step} was cut off; it comes first")
        if evaluate_and_note(state, run):
            return Outcome.STOPPED
    if state.step >= run.plan.total_steps or finished_early(run):
        return Outcome.FINISHED
    with open_steps(run.data, run.plan, run.config, state.step, run.device) as steps:
        return run_loop(state, run, steps)


def run_loop(state: TrainState, run: Run, steps: Iterator[Batch]) -> Outcome:
    """Step by step from state.step to the end, with what is due between them."""
    module, total = distributed.wrap(state.model, run.device), run.plan.total_steps
    run.journal.start_bar()
    pace = Pace(state.step)
    while state.step < total:
        done = train_step(state, module, steps, run)
        state.step += 1
        pace.add(done)
        run.journal.advance(state.step)
        if due(state.step, run.config.run.log_every_steps, total):
            log(state, run, done, pace)
            pace = Pace(state.step)
        if done.stopping or run.evaluation_due(state.step) or due(state.step, run.config.run.save_every_steps, total):
            save(state, run)
        if done.stopping:
            run.journal.say(f"asked to stop ({run.stop.by or 'on another rank'}): step {state.step} is saved, start "
                            "again to go on")
            return Outcome.STOPPED
        if run.evaluation_due(state.step):
            if evaluate_and_note(state, run):
                return Outcome.STOPPED
            if finished_early(run):
                break
            pace = Pace(state.step)
    return Outcome.FINISHED


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
    means = distributed.mean(done.losses).tolist()  # waits for the device, and so comes before the clock is read
    elapsed_s = time.monotonic() - pace.started_at
    values = {
        "epoch": state.step / run.plan.steps_per_epoch, "loss": sum(means), **dict(zip(LOSSES, means)),
        "rate": learning_rate(state.step - 1, run.plan, run.config.schedule),
        "gradient_norm": float(done.gradient_norm),
        "images_per_s": (state.step - pace.first_step) * run.plan.global_batch / elapsed_s,
        "data_wait": pace.waited_s / elapsed_s, "memory_gib": peak_memory_gib(run.device)}
    distributed.only_on_main(lambda: run.journal.training(state.step, values))
    for message in distributed.gather_texts(pace.unreadable):
        run.journal.say(f"could not be read, a grey picture stands in: {message}")


def build_state(config: Config, classes: tuple[str, ...], plan: Plan, folder: Path,
                device: torch.device) -> tuple[TrainState, list[str]]:
    """The state a run starts with, and what to tell of it: from the newest checkpoint, else from `model.weights`.

    Rank 0 finds the checkpoint, so that all ranks take the same.
    """
    found, notes = checkpoint.newest(folder) if distributed.is_main() else (None, [])
    said = json.loads(distributed.from_main(json.dumps([str(found) if found else "", notes])))
    path, notes = said
    if notes and not path:
        raise BadInput("; ".join(notes) + f". No checkpoint of {folder} is left; move it away, or set run.name=...")
    content = distributed.together(lambda: checkpoint.read(Path(path)) if path else None)
    if content:
        forbidden, other = checkpoint.changes(content, config, classes, plan.global_batch)
        if forbidden:
            raise BadInput(f"{folder} was trained with another config: " + "; ".join(forbidden)
                           + ". Undo the change, or start a new run with run.name=...")
        notes += [f"changed since the last start: {line}" for line in other]
    seed_torch(seed_for(config.seed, "weights"))
    model = build_model(config.model, config.evaluate, len(classes))
    if content:
        notes.append(f"resuming from {path}, after step {content['step']}")
    elif config.model.weights:
        report = distributed.first_on_main(lambda: load_weights(model, config.model, classes))
        notes.append(f"weights {config.model.weights}: {report}")
    else:
        notes.append("starting from random weights")
    model = (use_channels_last(model) if config.run.channels_last else model).to(device)
    average = copy.deepcopy(model).requires_grad_(False) if config.optim.ema else None
    scaler = torch.amp.GradScaler(device.type, enabled=config.run.precision == "fp16")
    state = TrainState(model, build_optimizer(model, config.optim), scaler, average)
    if content:
        checkpoint.restore(state, content)
    return state, notes


def open_journal(folder: Path, config: Config, state: TrainState, plan: Plan) -> Journal:
    """The run folder comes into being here, when all that could be wrong before the first step has been checked."""
    if distributed.is_main():
        try:
            write_whole(folder / "config.yaml", to_yaml(config))
            write_whole(folder / "environment.json", json.dumps(surroundings(), indent=1) + "\n")
        except OSError as error:
            raise BadInput(f"cannot write run folder {folder}: {error.strerror}; set run.folder") from error
    return Journal(folder, state.step, plan.total_steps, distributed.is_main())


def save(state: TrainState, run: Run) -> None:
    """Rank 0 writes; if it cannot, or the last loss was not finite, all ranks stop."""
    evidence = run.check.failed(wait=True)
    refuse_not_finite(*distributed.any_rank(evidence is not None), evidence, state, run)

    def write() -> None:
        checkpoint.save(run.journal.folder, state, run.config, run.data.classes, run.plan.global_batch)
        checkpoint.keep_newest(run.journal.folder, run.config.run.keep)
    distributed.only_on_main(write)


def evaluate_and_note(state: TrainState, run: Run) -> bool:
    """Evaluates the average where there is one, records, draws, marks the best. True: asked to stop in between."""
    model = state.average or state.model
    evaluation, detections, stopped = evaluate(model, run.val, run.config, run.device, state.step,
                                               lambda: run.stop.asked)
    if stopped:
        run.journal.say(f"asked to stop in the evaluation at step {state.step}; it comes first when started again")
        return True

    def note() -> None:
        # The record comes last: what is on record needs not be done again.
        folder, record = run.journal.folder, run.journal.evaluations(run.config.evaluate.best)
        write_results(folder, evaluation, detections, run.val)
        draw_validation(run.journal, state.step, run.val, detections, run.config.run.pictures)
        value = evaluation.metrics[run.config.evaluate.best]
        if best_of([*record, (state.step, value)]) == (state.step, value):
            checkpoint.mark_best(folder, folder / "checkpoints" / f"step-{state.step:08d}.pt")
        run.journal.evaluation(state.step, evaluation.metrics, evaluation.per_class)
        for message in evaluation.unreadable:
            run.journal.say(f"could not be read, a grey picture stands in: {message}")
    distributed.only_on_main(note)
    return False


def evaluated(state: TrainState, run: Run) -> bool:
    """Is the evaluation of this step on record? Rank 0's record counts."""
    on_record = run.journal.evaluations(run.config.evaluate.best)
    return distributed.from_main(str(any(step == state.step for step, _ in on_record))) == "True"


def finished_early(run: Run) -> bool:
    """Has the metric stopped getting better for too long? Rank 0's record counts."""
    on_record = run.journal.evaluations(run.config.evaluate.best)
    return distributed.from_main(str(out_of_patience(on_record, run.config.schedule.patience))) == "True"
