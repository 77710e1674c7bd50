"""How a run starts: what it goes on from, and what it will do, said before it does it.

All that can be wrong is found here, on all ranks together, before anything is written.
"""

import copy
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from detector.config.load import run_folder, to_yaml
from detector.config.schema import Batch, Config
from detector.data.padding_buckets import PaddingBuckets, plan_padding_buckets
from detector.data.read import describe, read_datasets, select_for_training
from detector.data.samplers import epoch_sizes, micro_batches
from detector.distributed import collectives, rank_info
from detector.distributed.stop_signal import StopRequest
from detector.errors import BadInput, Stopped
from detector.loggers.run_log import RunLog
from detector.metrics import coco_kernel
from detector.model.compile import ensure_compiler
from detector.model.faster_rcnn import build_model, placed
from detector.model.weights.load import load_weights
from detector.run import checkpoint_files
from detector.run.environment import (
    RankInfo,
    collect_environment,
    describe_rank,
    few_cores,
    slow_precision,
    versions,
    world_table,
)
from detector.run.evaluation_history import evaluations_of, out_of_patience
from detector.run.files import write_whole
from detector.run.heartbeat import Heartbeat
from detector.run.lock import RunLock
from detector.seeding import derive_seed, seed_torch
from detector.structures import Dataset
from detector.training import checkpoint
from detector.training.checkpoint import TrainState
from detector.training.optimizer import build_optimizer
from detector.training.schedule import Plan, describe_schedule, plan_run


@dataclass(frozen=True)
class Prepared:
    """What a run starts with."""

    plan: Plan
    canvases: PaddingBuckets
    data: Dataset
    val: Dataset | None
    said: list[str]  # what it will do


def prepare(config: Config, device: torch.device, stop: StopRequest, heart: Heartbeat) -> tuple[TrainState, Prepared]:
    """Everything that can be wrong before the first step; nothing is written. Collective; raises Stopped in between."""
    leave_if_asked(stop)
    collectives.run_on_all_ranks(lambda: ensure_compiler(config.run.compile, device))
    seats = [RankInfo(**json.loads(text)) for text in collectives.all_gather_texts([json.dumps(asdict(describe_rank(device)))])]
    heart.beat("reading annotations")
    whole, val = read_datasets(config.data)
    data = select_for_training(whole, config.data)
    leave_if_asked(stop)
    heart.beat("building the model")
    content, notes = find_state(run_folder(config))
    batch = kept_batch(config.batch, content)
    sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
    plan = plan_run(batch, config.optim, config.schedule, sizes, rank_info.rank(), rank_info.world_size())
    state, origin = build_state(config, data.classes, plan, content, device)
    leave_if_asked(stop)
    said = [*world_table(seats), f"{versions()}; {config.run.precision}", *notes, *origin,
            *elastic_notes(config, batch, content), plan.sentence, describe_schedule(plan, config.schedule),
            *(line for split in (data, val) if split for line in (describe(split), *split.warnings)),
            few_cores(seats, config.run.num_workers), slow_precision(config.run.precision, device),
            coco_kernel.note() if val else ""]
    canvases = plan_padding_buckets(config, sizes, plan.global_batch)
    return state, Prepared(plan, canvases, data, val, [line for line in said if line])


def leave_if_asked(stop: StopRequest) -> None:
    """Raises Stopped on all ranks if any was asked to stop. Collective."""
    if collectives.any_rank(stop.requested)[0]:
        raise Stopped


def find_state(folder: Path) -> tuple[dict | None, list[str]]:
    """The newest good checkpoint of a run, read; and what to tell of it. Rank 0 finds it, so that all take the same."""
    found, notes = checkpoint_files.newest_readable(folder) if rank_info.is_main() else (None, [])
    path, notes = json.loads(collectives.broadcast_text(json.dumps([str(found) if found else "", notes])))
    if notes and not path:
        raise BadInput("; ".join(notes) + f". No checkpoint of {folder} is left; move it away, or set run.name=...")
    content = collectives.run_on_all_ranks(lambda: checkpoint_files.read_checkpoint(Path(path)) if path else None)
    if content:
        notes.append(f"resuming from {path}, after step {content['step']}")
    return content, notes


def kept_batch(batch: Batch, content: dict | None) -> Batch:
    """A run whose batch followed from its number of processes keeps the batch that it was started with."""
    started_free = content is not None and content["config"]["batch"]["size"] == 0
    return replace(batch, size=content["global_batch"]) if started_free and batch.size == 0 else batch


def elastic_notes(config: Config, batch: Batch, content: dict | None) -> list[str]:
    """On another number of processes than before: what stays the same, what does not, and why."""
    world = rank_info.world_size()
    before = content.get("processes", world) if content else world
    if before == world:
        return []
    kept = (f"batch.size=0: the {batch.size} images a step of the start on {before} are kept"
            if config.batch.size == 0 else "the same images and the same rate at every step")
    notes = [f"on {count(world)} now, {before} before: {kept}"]
    old = content["config"]["batch"]["per_process"]
    if cuts(content["global_batch"], old, before) == cuts(batch.size, batch.micro_batch_size, world):
        notes.append("not bit for bit: the gradients of a step are summed in another order, and rounded differently")
    else:
        notes.append("not the same weights: a process holds other images at once, so padding differs, and anchors and "
                     "proposals are sampled anew")
    if config.model.norm == "trained":
        notes.append("model.norm=trained: running statistics of batch norms are averaged over other shares")
    return notes


def count(world: int) -> str:
    return f"{world} process{'es' * (world > 1)}"


def cuts(size: int, per_process: int, world: int) -> set[range]:
    """The columns of a step that are in one forward pass, on any rank."""
    return {columns for rank in range(world) for columns in micro_batches(size, per_process, rank, world)}


def build_state(config: Config, classes: tuple[str, ...], plan: Plan, content: dict | None,
                device: torch.device) -> tuple[TrainState, list[str]]:
    """The state a run starts with, and what to tell of it: from a checkpoint, else from `model.weights`. Collective."""
    notes = []
    if content:
        forbidden, other = checkpoint.changes(content, config, classes, plan.global_batch)
        if forbidden:
            raise BadInput(f"{run_folder(config)} was trained with another config: " + "; ".join(forbidden)
                           + ". Undo the change, or start a new run with run.name=...")
        notes += [f"changed since the last start: {line}" for line in other]
    seed_torch(derive_seed(config.seed, "weights"))
    model = build_model(config.model, config.evaluate, len(classes))
    if not content and config.model.weights:
        report = collectives.run_on_local_main_first(lambda: load_weights(model, config.model, classes))
        notes.append(f"weights {config.model.weights}: {report}")
    elif not content:
        notes.append("starting from random weights")
    model = placed(model, config.run.channels_last, device)
    average = copy.deepcopy(model).requires_grad_(False) if config.optim.ema_decay else None
    scaler = torch.amp.GradScaler(device.type, enabled=config.run.precision == "fp16")
    state = TrainState(model, build_optimizer(model, config.optim), scaler, average)
    if content:
        checkpoint.restore(state, content)
    return state, notes


def open_journal(config: Config, step: int, plan: Plan, heart: Heartbeat, owner: RunLock) -> RunLog:
    """The run folder comes into being here, when all that could be wrong before the first step has been checked."""
    folder = run_folder(config)
    try:
        heart.open(rank_info.world_size())
        if rank_info.is_main():
            owner.take()
        record = evaluations_of(folder, config.evaluate.best_metric) if rank_info.is_main() else []
        over = step >= plan.total_steps or out_of_patience([pair for pair in record if pair[0] <= step],
                                                           config.schedule.early_stopping_patience)
        if rank_info.is_main() and (not over or not (folder / "environment.json").exists()):
            # A finished run keeps what its figures were measured on, whoever looks at it later and with what commit.
            write_whole(folder / "config.yaml", to_yaml(config))
            write_whole(folder / "environment.json", json.dumps(collect_environment(), indent=1) + "\n")
        if rank_info.is_main():
            checkpoint_files.remove_partial_files(folder)
            checkpoint_files.restore_best(folder, step, record)
    except OSError as error:
        raise BadInput(f"cannot write run folder {folder}: {error.strerror}; set run.folder") from error
    journal = RunLog(folder, step, plan.total_steps, rank_info.is_main())
    heart.say = journal.say
    return journal
