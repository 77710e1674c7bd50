"""The training loop. What a step does is a function of (config, step, rank), so a run can be cut at any step."""

import enum
import json
import time
from pathlib import Path

import torch

from detector import checkpoint, distributed
from detector.checkpoint import TrainState
from detector.config.load import folder_of, to_yaml
from detector.config.schema import Config
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
from detector.step import Steps, train_step
from detector.stopping import StopRequest
from detector.surroundings import surroundings


class Outcome(enum.Enum):
    FINISHED = "finished"
    STOPPED = "stopped"


def due(step: int, every: int, total: int) -> bool:
    """After this many steps, is it time? Every so often, and at the end."""
    return step == total or (every > 0 and step % every == 0)


def train(config: Config, device: torch.device) -> Outcome:
    """Trains, from the newest checkpoint of the run folder if there is one. Collective."""
    folder = folder_of(config)
    whole, val = read_datasets(config.data)
    data = for_training(whole, config.data)
    plan = plan_run(config.batch, config.optim, config.schedule, data.sizes, distributed.rank(), distributed.world())
    state, origin = build_state(config, data.classes, plan, folder, device)
    with StopRequest() as stop:
        journal = distributed.together(lambda: open_journal(folder, config, state, plan))
        try:
            for line in (*origin, describe(data), *data.faults, *([describe(val), *val.faults] if val else []),
                         plan.sentence, f"{device}, {config.run.precision}, {data.sizes.shape[0]} images an epoch"):
                journal.say(line)
            return run_steps(state, data, val, plan, config, device, journal, stop)
        finally:
            journal.close()


def run_steps(state: TrainState, data: Dataset, val: Dataset | None, plan: Plan, config: Config, device: torch.device,
              journal: Journal, stop: StopRequest) -> Outcome:
    """The loop: step by step from state.step to the end, with what is due between them."""
    total, every = plan.total_steps, round(config.evaluate.every_epochs * plan.steps_per_epoch)
    if state.step and val and due(state.step, every, total) and not evaluated(journal, state.step, config):
        journal.say(f"the evaluation at step {state.step} was cut off; it comes first")
        if evaluate_and_note(state, val, config, device, journal, stop):
            return Outcome.STOPPED
    if state.step >= total or finished(journal, config):
        journal.say(f"finished: {state.step} of {total} steps are done; results are in {journal.folder}")
        return Outcome.FINISHED
    module = distributed.wrap(state.model, device)
    steps = iter(Steps(data, plan, config, state.step, device))
    check, since = FiniteCheck(device), time.monotonic()
    journal.start_bar()
    waited_s, logged, unreadable = 0.0, state.step, []
    while state.step < total:
        done = train_step(state, module, steps, plan, config, device, check)
        state.step += 1
        waited_s += done.wait_s
        unreadable += done.unreadable
        journal.advance(state.step)
        if due(state.step, config.run.log_every_steps, total):
            means, elapsed_s = distributed.mean(done.losses), time.monotonic() - since
            journal.training(state.step, {
                "epoch": state.step / plan.steps_per_epoch, "loss": float(means.sum()),
                **dict(zip(LOSSES, means.tolist())), "rate": learning_rate(state.step - 1, plan, config.schedule),
                "gradient_norm": float(done.gradient_norm),
                "images_per_s": (state.step - logged) * plan.global_batch / elapsed_s,
                "data_wait": waited_s / elapsed_s, "memory_gib": peak_memory_gib(device)})
            tell_unreadable(journal, unreadable)
            waited_s, logged, unreadable, since = 0.0, state.step, [], time.monotonic()
        stopping, = distributed.any_rank(stop.asked)
        evaluating = bool(val) and due(state.step, every, total)
        if stopping or evaluating or due(state.step, config.run.save_every_steps, total):
            save(state, config, data.classes, plan, journal)
        if stopping:
            journal.say(f"asked to stop ({stop.by or 'on another rank'}): step {state.step} is saved, start again to "
                        "go on")
            return Outcome.STOPPED
        if evaluating:
            if evaluate_and_note(state, val, config, device, journal, stop):
                return Outcome.STOPPED
            if finished(journal, config):
                break
            waited_s, logged, since = 0.0, state.step, time.monotonic()
    journal.say(f"finished: {state.step} of {total} steps are done; results are in {journal.folder}")
    return Outcome.FINISHED


def build_state(config: Config, classes: tuple[str, ...], plan: Plan, folder: Path,
                device: torch.device) -> tuple[TrainState, list[str]]:
    """The state a run starts with, and what to tell of it: from the newest checkpoint, else from `model.weights`.

    Rank 0 finds the checkpoint, so that all ranks take the same.
    """
    found, notes = checkpoint.newest(folder) if distributed.is_main() else (None, [])
    said = json.loads(distributed.from_main(json.dumps([str(found) if found else "", notes])))
    path, notes = said
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
    average = None
    if config.optim.ema:
        average = build_model(config.model, config.evaluate, len(classes))
        average.load_state_dict(model.state_dict())
        average = (use_channels_last(average) if config.run.channels_last else average).to(device).requires_grad_(False)
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


def save(state: TrainState, config: Config, classes: tuple[str, ...], plan: Plan, journal: Journal) -> None:
    """Rank 0 writes; if it cannot, all ranks stop."""
    def write() -> None:
        checkpoint.save(journal.folder, state, config, classes, plan.global_batch)
        checkpoint.keep_newest(journal.folder, config.run.keep)
    distributed.only_on_main(write)


def evaluate_and_note(state: TrainState, val: Dataset, config: Config, device: torch.device, journal: Journal,
                      stop: StopRequest) -> bool:
    """Evaluates the average where there is one, records, draws, marks the best. True: asked to stop in between."""
    model = state.average or state.model
    evaluation, detections, stopped = evaluate(model, val, config, device, state.step, lambda: stop.asked)
    if stopped:
        journal.say(f"asked to stop in the evaluation at step {state.step}; it will come first when started again")
        return True

    def note() -> None:
        journal.evaluation(state.step, evaluation.metrics, evaluation.per_class)
        step, _ = best_of(journal.evaluations(config.evaluate.best))
        if step == state.step:
            checkpoint.mark_best(journal.folder, checkpoint.step_files(journal.folder)[0])
        write_results(journal.folder, evaluation, detections, val)
        draw_validation(journal, state.step, val, detections, config.run.pictures)
    distributed.only_on_main(note)
    return False


def tell_unreadable(journal: Journal, messages: list[str]) -> None:
    """Every rank's images that could not be read since the last line. Collective."""
    for message in distributed.gather_texts(messages):
        journal.say(f"could not be read, a grey picture stands in: {message}")


def evaluated(journal: Journal, step: int, config: Config) -> bool:
    """Is the evaluation of this step on record? Rank 0's record counts."""
    return distributed.from_main(str(any(s == step for s, _ in journal.evaluations(config.evaluate.best)))) == "True"


def finished(journal: Journal, config: Config) -> bool:
    """Has the metric stopped getting better for too long? Rank 0's record counts."""
    gone = out_of_patience(journal.evaluations(config.evaluate.best), config.schedule.patience)
    return distributed.from_main(str(gone)) == "True"
