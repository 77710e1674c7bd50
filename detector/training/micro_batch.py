"""The largest micro-batch that fits into memory (batch.micro_batch_size=auto), found by trial steps on all ranks."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from detector.config.options import replace_options
from detector.config.schema import Config
from detector.distributed import collectives
from detector.errors import BadInput
from detector.model.faster_rcnn import build_model
from detector.run.environment import memory_limit_gib, peak_memory_gib, reset_peak_memory
from detector.seeding import derive_seed, seed_torch
from detector.structures import Dataset, ceil_div
from detector.training.checkpoint import TrainState
from detector.training.schedule import plan_run_on
from detector.training.trial_batches import plan_trial
from detector.training.trial_step import build_trial_state, is_out_of_memory, run_micro_batch

# The part of a rank's memory that a trial step may take. The rest is for gradients on their way to other ranks and for
# fragments on a GPU, for loader workers and the files of the data set on a host.
MEMORY_SHARE = {"cuda": 0.85, "cpu": 0.5}


@dataclass(frozen=True)
class Memory:
    """The memory of one rank, GiB."""

    limit: float       # that a trial step may take
    can_overrun: bool  # a trial beyond the limit fails by itself and harms nothing: on a GPU


def sizes_to_try(global_batch: int, processes: int) -> list[int]:
    """Returns the divisors of the global batch, ascending, up to the images of one process."""
    largest = ceil_div(global_batch, processes)
    return [size for size in range(1, largest + 1) if global_batch % size == 0]


def choose_micro_batch(sizes: Sequence[int], memory: Memory, peak_of: Callable[[int], float]) -> tuple[int, str]:
    """Returns the largest size whose trial fits on every rank, and a sentence about its memory. Collective.

    The smallest size is tried first. Where a trial beyond the limit would harm (a host without memory ends processes),
    only sizes follow that should fit if memory grew in proportion to the images, which is more than it does.

    Args:
        sizes: micro-batch sizes, ascending; the same on all ranks.
        peak_of: runs the trial of a size and returns its peak of memory, GiB; raises where memory is exhausted.

    Raises:
        BadInput: on all ranks, where the smallest does not fit on some rank.
    """
    limit = float(collectives.all_gather_row([memory.limit]).min())  # also: all ranks have read it before any trial
    peak, fits = try_on_all_ranks(sizes[0], limit, peak_of)
    if not fits:
        raise BadInput(f"batch.micro_batch_size=auto: a step of {sizes[0]} image{'s' if sizes[0] > 1 else ''} does not "
                       f"fit into {limit:.2f} GiB. Set run.precision=bf16 or a smaller augment.max_size, or state "
                       "batch.micro_batch_size to try in spite of that")
    expected = [size for size in sizes if memory.can_overrun or peak * size / sizes[0] <= limit]
    largest = int(collectives.all_gather_row([max(expected, default=sizes[0])]).min())
    for size in reversed([size for size in sizes[1:] if size <= largest]):
        size_peak, fits = try_on_all_ranks(size, limit, peak_of)
        if fits:
            return size, describe(size, size_peak, limit)
    return sizes[0], describe(sizes[0], peak, limit)


def try_on_all_ranks(size: int, limit: float, peak_of: Callable[[int], float]) -> tuple[float, bool]:
    """Returns the highest peak of all ranks, GiB, and whether the trial fits on all of them. Collective."""
    peak, error = float("inf"), None
    try:
        peak = peak_of(size)
    except Exception as caught:  # of any kind: the other ranks must not wait for this one
        error = None if is_out_of_memory(caught) else caught
    collectives.raise_on_all_ranks(error)
    highest = float(collectives.all_gather_row([peak]).max())
    return highest, highest <= limit


def describe(size: int, peak: float, limit: float) -> str:
    return (f"a forward pass of {size} image{'s' if size > 1 else ''} and its step take {peak:.2f} of the {limit:.2f} "
            "GiB that they may")


def measure_micro_batch(config: Config, train: Dataset, device: torch.device, processes: int,
                        local_processes: int) -> tuple[int, str]:
    """Returns the value of batch.micro_batch_size=auto, and a sentence about it. Collective.

    The trial has a model of its own, with random weights: of the run nothing changes but the value.

    Args:
        config: without other options that are `auto`.
        train: the images and objects to train on.
        processes: of the run.
        local_processes: those of them that share the memory of this host.
    """
    norm = "trained" if config.model.norm == "synchronized" else config.model.norm  # else ranks would wait for others
    config = replace(config, model=replace(config.model, norm=norm))
    seed_torch(derive_seed(config.seed, "weights"))
    state = build_trial_state(build_model(config.model, config.evaluate, len(train.classes)), config, device)
    limit = memory_limit_gib(device, local_processes, MEMORY_SHARE[device.type])
    try:
        return choose_micro_batch(
            sizes_to_try(config.batch.size, processes), Memory(limit, can_overrun=device.type == "cuda"),
            lambda size: peak_of_trial(config, train, state, device, processes, size))
    finally:
        free_memory(state, device)


def peak_of_trial(config: Config, train: Dataset, state: TrainState, device: torch.device, processes: int,
                  size: int) -> float:
    """Returns the peak of memory, GiB, of steps on those micro-batches of the run that need most memory."""
    config = replace_options(config, {"batch.micro_batch_size": size})
    plan = plan_run_on(train, config, 0, processes)
    batches = plan_trial(config, train, plan)
    free_memory(state, device)
    reset_peak_memory(device)
    for batch in dict.fromkeys([batches.largest, batches.most_objects, batches.both]):
        run_micro_batch(config, train, plan, state, device, batch)
    return peak_memory_gib(device)


def free_memory(state: TrainState, device: torch.device) -> None:
    """Drops what a trial, above all one that failed, has left."""
    state.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
