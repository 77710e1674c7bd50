"""How a run starts: mistakes in config, data, weights and checkpoint are found before the run folder is changed."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from detector.config.load import from_dict, run_folder, to_yaml
from detector.config.schema import Batch, Config, Data
from detector.data.fingerprint import fingerprint
from detector.data.image_io import decoder_note
from detector.data.padding_buckets import PaddingBuckets, plan_padding_buckets
from detector.data.read import describe, read_datasets, relative_paths, resolve_format, select_for_training
from detector.data.repeat_factors import describe_repeats
from detector.data.review import MAX_NAMES, missing_images, nothing_readable, nothing_to_learn
from detector.data.samplers import epoch_sizes
from detector.data.split import val_share
from detector.distributed import collectives
from detector.distributed.rank_info import is_main, rank, world_size
from detector.distributed.stop_signal import StopRequest
from detector.errors import BadInput, Stopped, count_of, shorten
from detector.loggers.run_log import RunLog
from detector.metrics import coco_kernel
from detector.model.compile import ensure_compiler
from detector.model.faster_rcnn import build_model, is_channels_last_fast
from detector.model.weights.load import load_weights
from detector.run import file_digest
from detector.run.checkpoint_files import (
    newest_readable,
    read_checkpoint,
    remove_partial_files,
    restore_best,
    step_files,
)
from detector.run.environment import (
    RankInfo,
    collect_environment,
    describe_rank,
    versions,
    warn_few_cores,
    warn_slow_precision,
    world_table,
)
from detector.run.evaluation_history import evaluations_of, out_of_patience
from detector.run.files import CONFIG_FILE, ENVIRONMENT_FILE, HELD_OUT_FILE, cannot_write, write_whole
from detector.run.heartbeat import Heartbeat
from detector.run.lock import RunLock
from detector.seeding import derive_seed, seed_torch
from detector.structures import Dataset
from detector.training.auto_options import resolve_auto, resolve_precision
from detector.training.checkpoint import TrainState, compare_configs, initial_state, restore_state
from detector.training.micro_batch import measure_micro_batch, pass_counts
from detector.training.schedule import RunPlan, describe_schedule, plan_run_on
from detector.training.start_messages import (
    describe_data_changes,
    describe_model,
    describe_review,
    describe_thread_change,
    describe_world_change,
)


@dataclass(frozen=True)
class Setup:
    """The config, plan and data of a run, which stay the same while its state changes."""

    config: Config       # without `auto`
    plan: RunPlan
    buckets: PaddingBuckets
    train_data: Dataset
    val_data: Dataset | None
    header: dict[str, list[str]]  # what the run will do, for the log: sentences of each section
    messages: list[str]  # warnings and notes below it
    ranks: list[RankInfo]  # where each rank runs
    fingerprints: dict[str, dict[str, int]]  # of training and validation data; on rank 0 only


def prepare(config: Config, device: torch.device, stop: StopRequest, heartbeat: Heartbeat) -> tuple[TrainState, Setup]:
    """Reads data, builds the model and restores the newest checkpoint. Collective.

    Nothing in the run folder is changed.

    Raises:
        BadInput: on all ranks, for anything wrong with config, data, weights, checkpoint or machine.
        Stopped: on all ranks, where a stop was requested meanwhile.
    """
    raise_if_stop_requested(stop)
    collectives.run_on_all_ranks(lambda: ensure_compiler(config.run.compile, device))
    ranks = [RankInfo(**json.loads(text))
             for text in collectives.all_gather_texts([json.dumps(asdict(describe_rank(device)))])]
    heartbeat.mark("reading annotations")
    data, layout = resolve_format(config.data)
    config = replace(config, data=data)
    folder = run_folder(config)
    all_data, val_data = read_datasets(config.data, config.seed, folder if step_files(folder) else None)
    collectives.run_on_main(lambda: refuse_nothing_to_learn(all_data, config.data))
    collectives.run_on_main(lambda: refuse_missing_images(all_data, val_data, config.data))
    train_data = select_for_training(all_data, config.data)
    raise_if_stop_requested(stop)
    heartbeat.mark("building the model")
    content, notes = find_checkpoint(folder)
    stored = from_dict(content["config"], "config of the checkpoint") if content else None
    config = resolve_precision(config, device, stored)
    config, auto_values = resolve_auto(config, train_data, world_size(), stored, lambda resolved: measure_micro_batch(
        resolved, train_data, device, world_size(), local_processes(ranks)))
    batch = resumed_batch(config.batch, content)
    plan = plan_run_on(train_data, replace(config, batch=batch), rank(), world_size())
    refuse_uneven_statistics(config.model.norm, plan.global_batch, batch.micro_batch_size)
    state, origin = build_state(config, train_data.classes, plan, content, device)
    raise_if_stop_requested(stop)
    fingerprints = take_fingerprints(train_data, val_data) if is_main() else {}
    datasets = [dataset for dataset in (train_data, val_data) if dataset]
    header = {"run": [str(folder), *notes], "data": [layout, *map(describe, datasets)],
              "model": [describe_model(config.model.backbone, state.model), *origin],
              "plan": [auto_values, *describe_world_change(config, batch, content),
                       describe_thread_change(content, device), plan.summary,
                       describe_repeats(train_data, config.batch.repeat_threshold),
                       describe_schedule(plan, config.schedule)],
              "device": [*world_table(ranks), f"{versions()}; {config.run.precision}"]}
    messages = [*describe_data_changes(content, fingerprints), *(w for dataset in datasets for w in dataset.warnings),
                *(describe_review(config, all_data, val_data, plan) if is_main() else []),
                decoder_note(), warn_few_cores(ranks, config.run.num_workers),
                warn_slow_precision(config.run.precision, device), coco_kernel.fallback_message() if val_data else "",
                file_digest.fallback_message()]
    sizes = epoch_sizes(train_data.sizes, config.augment.mirrored_copies)
    buckets = plan_padding_buckets(config, sizes, plan.global_batch)
    messages = [message for message in messages if message]
    return state, Setup(config, plan, buckets, train_data, val_data, header, messages, ranks, fingerprints)


def local_processes(ranks: list[RankInfo]) -> int:
    """Returns the number of ranks on the host of this one."""
    return sum(info.host == ranks[rank()].host for info in ranks)


def refuse_nothing_to_learn(dataset: Dataset, config: Data) -> None:
    """Raises BadInput where no object is left to train on, or no image can be read."""
    grey = config.unreadable_images == "grey"
    for problem in nothing_to_learn(dataset, config) or (nothing_readable(dataset) if grey else []):
        raise BadInput(problem)


def refuse_missing_images(train: Dataset, val: Dataset | None, config: Data) -> None:
    """Raises BadInput where an image does not exist that the run would fail at when it comes to it."""
    for dataset in filter(None, (train, val)) if config.unreadable_images == "refuse" else ():
        if missing := missing_images(dataset):
            images = count_of(len(missing), f"image of {dataset.name} is", f"images of {dataset.name} are")
            raise BadInput(f"{images} missing: {shorten(missing, MAX_NAMES)}. Add them, name their folder in "
                           "data.images, remove their annotations, or set data.unreadable_images=grey")


def raise_if_stop_requested(stop: StopRequest) -> None:
    """Raises Stopped on all ranks if any rank got a stop signal. Collective."""
    if collectives.any_rank(stop.requested)[0]:
        raise Stopped


def find_checkpoint(folder: Path) -> tuple[dict | None, list[str]]:
    """Returns the content of the run's newest whole checkpoint, and messages about it. Collective.

    Rank 0 decides which one, so that all ranks read the same file; each verifies what it reads.

    Raises:
        BadInput: there are checkpoints, but none can be read.
    """
    path, content, notes = collectives.run_on_all_ranks(
        lambda: newest_readable(folder) if is_main() else (None, None, []))
    path, notes = json.loads(collectives.broadcast_text(json.dumps([str(path) if path else "", notes])))
    if notes and not path:
        raise BadInput("; ".join(notes) + f". No whole checkpoint of {folder} is left: copy one back from elsewhere, "
                       "move the folder away, or set run.name=... to start anew")
    content = collectives.run_on_all_ranks(
        lambda: content if is_main() or not path else read_checkpoint(Path(path)))
    if content:
        notes.append(f"resuming from {path}, after step {content['step']}")
    return content, notes


def take_fingerprints(train_data: Dataset, val_data: Dataset | None) -> dict[str, dict[str, int]]:
    """Returns the fingerprint of each part of the data."""
    return {part: fingerprint(data) for part, data in (("training", train_data), ("validation", val_data)) if data}


def resumed_batch(batch: Batch, content: dict | None) -> Batch:
    """Returns the batch options of the run; with batch.size=0 a resumed run keeps the global batch it started with."""
    if content is None or content["config"]["batch"]["size"] != 0 or batch.size != 0:
        return batch
    return replace(batch, size=content["global_batch"])


def refuse_uneven_statistics(norm: str, size: int, micro_batch_size: int) -> None:
    """Raises BadInput where model.norm=synchronized, and ranks have different numbers of forward passes in a step."""
    processes = world_size()
    if norm == "synchronized" and len(pass_counts(size, micro_batch_size, processes)) > 1:
        raise BadInput(f"model.norm=synchronized: the processes wait for each other in every forward pass, and the "
                       f"{size} images of a step cannot be split into equally many passes of {micro_batch_size} on "
                       f"each of the {processes}. Set batch.size to a multiple of {micro_batch_size * processes}, or "
                       "model.norm=trained")


def build_state(config: Config, classes: tuple[str, ...], plan: RunPlan, content: dict | None,
                device: torch.device) -> tuple[TrainState, list[str]]:
    """Returns the initial state and messages about it: from a checkpoint, else from `model.weights`. Collective.

    Raises:
        BadInput: the config does not fit the checkpoint, or the weights do not fit the model.
    """
    messages = []
    if content:
        forbidden, allowed = compare_configs(content, config, classes, plan.global_batch)
        if forbidden:
            raise BadInput(f"{run_folder(config)} was trained with another config: " + "; ".join(forbidden)
                           + ". Undo the change, or start a new run with run.name=...")
        messages += [f"changed since the last start: {line}" for line in allowed]
        messages += without_effect(allowed, content["step"], plan.total_steps)
    seed_torch(derive_seed(config.seed, "weights"))
    model = build_model(config.model, config.evaluate, len(classes))
    if not content and config.model.weights:
        report = collectives.run_on_local_main_first(lambda: load_weights(model, config.model, classes))
        messages.append(f"weights {config.model.weights}: {report}")
    elif not content:
        messages.append("starting from random weights")
    # All ranks have the same layout, also on nodes with different CPUs: DDP refuses weights whose strides differ.
    all_fast = not collectives.any_rank(not is_channels_last_fast(device))[0]
    state = initial_state(model, config, config.run.channels_last and all_fast, device)
    if content:
        restore_state(state, content)
    return state, messages


def without_effect(changes: list[str], step: int, total_steps: int) -> list[str]:
    """Returns the note that changed options of a finished run change nothing; [] for other runs."""
    if not changes or step < total_steps:
        return []
    return [f"note: all {total_steps} steps are done, so that no change has an effect on the weights. Train longer "
            "with schedule.steps=..., or start a new run with run.name=..."]


def open_run_folder(setup: Setup, step: int, heartbeat: Heartbeat, lock: RunLock) -> RunLog:
    """Creates or reopens the run folder and returns its log; every check before the first step has passed by now.

    Args:
        step: completed steps of the run. Later lines of metrics.jsonl and a later best.pt are undone: those steps are
            trained again. log.txt stays.

    Raises:
        BadInput: the folder cannot be written.
    """
    config, plan = setup.config, setup.plan
    folder, notes = run_folder(config), []
    try:
        if is_main():
            folder.mkdir(parents=True, exist_ok=True)
            lock.take()  # before anything of another start that has just taken the run can be removed
        heartbeat.open(world_size())
        if is_main():
            evaluations = evaluations_of(folder, config.evaluate.best_metric)
            is_over = step >= plan.total_steps or out_of_patience(
                [(at, value) for at, value in evaluations if at <= step], config.schedule.early_stopping_patience)
            if not is_over or not (folder / ENVIRONMENT_FILE).exists():  # a finished run keeps what it was measured on
                write_whole(folder / CONFIG_FILE, to_yaml(config))
                write_whole(folder / ENVIRONMENT_FILE, json.dumps(collect_environment(), indent=1) + "\n")
            if setup.val_data and val_share(config.data.val):
                write_whole(folder / HELD_OUT_FILE, json.dumps(relative_paths(setup.val_data)))
            remove_partial_files(folder)
            notes += restore_best(folder, step, evaluations)
    except OSError as error:
        raise cannot_write(folder, error) from error
    run_log = RunLog(folder, step, plan.total_steps, is_main())
    heartbeat.message = run_log.message
    for note in notes:
        run_log.message(note)
    return run_log
