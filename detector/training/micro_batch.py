"""The largest micro-batch that fits into memory (batch.micro_batch_size=auto), found by trial steps on all ranks."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from detector.config.options import replace_options
from detector.config.schema import Config
from detector.data.samplers import micro_batches
from detector.distributed import collectives
from detector.errors import BadInput
from detector.model.faster_rcnn import build_model
from detector.run.environment import memory_limit_gib, peak_memory_gib, reset_peak_memory
from detector.seeding import derive_seed, seed_torch
from detector.structures import Dataset, ceil_div
from detector.training.checkpoint import TrainState, initial_state
from detector.training.schedule import plan_run_on
from detector.training.trial_batches import plan_trial
from detector.training.trial_step import is_out_of_memory, run_micro_batch

# The part of a rank's memory that a trial step may take. The rest is for gradients on their way to other ranks and for
# fragments on a GPU, for loader workers and the files of the data set on a host.
MEMORY_SHARE = {"cuda": 0.85, "cpu": 0.5}
MOST = 2  # times the limit: all memory of a host (MEMORY_SHARE), which no trial there may pass


@dataclass(frozen=True)
class Memory:
    """The memory of one rank, GiB."""

    limit: float       # that a trial step may take
    can_overrun: bool  # a trial beyond the limit fails by itself and harms nothing: on a GPU


def sizes_to_try(global_batch: int, processes: int, norm: str) -> list[int]:
    """Returns the smallest size for each number of forward passes of a process, ascending.

    With model.norm=synchronized, sizes that give the processes different numbers of passes are left out; the largest,
    with one pass, never does.
    """
    images = ceil_div(global_batch, processes)
    sizes = sorted({ceil_div(images, passes) for passes in range(1, images + 1)})
    return [size for size in sizes
            if norm != "synchronized" or len(pass_counts(global_batch, size, processes)) == 1]


def pass_counts(global_batch: int, size: int, processes: int) -> set[int]:
    """Returns the numbers of forward passes of a step that the processes have with a micro-batch size."""
    return {len(micro_batches(global_batch, size, rank, processes)) for rank in range(processes)}


def choose_micro_batch(sizes: Sequence[int], memory: Memory, peak_of: Callable[[int], float]) -> tuple[int, str]:
    """Returns the largest size whose trial fits on every rank, and a sentence about its memory. Collective.

    The smallest size is tried first, then what `next_size` expects to fit, until nothing larger does.

    Args:
        sizes: micro-batch sizes, ascending; the same on all ranks.
        peak_of: runs the trial of a size and returns its peak of memory, GiB; raises where memory is exhausted.

    Raises:
        BadInput: on all ranks, where the smallest does not fit on some rank.
    """
    limit = float(collectives.all_gather_row([memory.limit]).min())  # also: all ranks have read it before any trial
    peak, fits = try_on_all_ranks(sizes[0], limit, peak_of)
    fitting, larger = [(sizes[0], peak)], list(sizes[1:])
    if not fits:
        raise BadInput(f"batch.micro_batch_size=auto: a step of {sizes[0]} image{'s' if sizes[0] > 1 else ''} does not "
                       f"fit into {limit:.2f} GiB. Set run.precision=bf16 or a smaller augment.max_size, or state "
                       "batch.micro_batch_size to try in spite of that")
    while size := next_size(fitting, larger, limit, memory.can_overrun):
        peak, fits = try_on_all_ranks(size, limit, peak_of)
        if fits:
            fitting.append((size, peak))
        larger = [other for other in larger if (other > size if fits else other < size)]
    size, peak = fitting[-1]
    return size, f"trial of {size} image{'s' if size > 1 else ''}: peak {peak:.2f} GiB, limit {limit:.2f} GiB"


def next_size(fitting: Sequence[tuple[int, float]], larger: Sequence[int], limit: float, can_overrun: bool) -> int:
    """Returns the largest size that should fit, from the peaks of those that do; 0: no size is worth a trial.

    Memory is expected to grow with each image as between the last two peaks; after the first, as if all of it were
    for images. Where no size should fit, the next one is tried all the same on a GPU, where that harms nothing, and
    after the first peak, which does not tell how much of it is for images. On a host no trial passes MOST times the
    limit, even if all memory is for images.

    Args:
        fitting: (size, peak in GiB) of the trials that fit, ascending.
        larger: sizes that are not known not to fit, ascending.
    """
    size, peak = fitting[-1]
    before, peak_before = fitting[-2] if len(fitting) > 1 else (0, 0.0)
    growth = (peak - peak_before) / (size - before)
    safe = [other for other in larger if can_overrun or peak / size * other <= MOST * limit]
    expected = [other for other in safe if peak + growth * (other - size) <= limit]
    unknown = safe[:1] if can_overrun or len(fitting) == 1 else []
    return max(expected or unknown, default=0)


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
    sizes = sizes_to_try(config.batch.size, processes, config.model.norm)
    if not collectives.all_gather_row([float(reset_peak_memory(device))]).all():
        return sizes[0], ("the smallest, because this system does not let a process measure its peak of memory "
                          "(/proc/self/clear_refs)")
    norm = "trained" if config.model.norm == "synchronized" else config.model.norm  # else ranks would wait for others
    config = replace(config, model=replace(config.model, norm=norm))
    seed_torch(derive_seed(config.seed, "weights"))
    model = build_model(config.model, config.evaluate, len(train.classes))
    state = initial_state(model, config, config.run.channels_last, device)
    limit = memory_limit_gib(device, local_processes, MEMORY_SHARE[device.type])
    try:
        return choose_micro_batch(sizes, Memory(limit, can_overrun=device.type == "cuda"),
                                  lambda size: peak_of_trial(config, train, state, device, processes, size))
    finally:
        free_memory(state, device)


def peak_of_trial(config: Config, train: Dataset, state: TrainState, device: torch.device, processes: int,
                  size: int) -> float:
    """Returns the peak of memory, GiB, of steps on those micro-batches of the run that need most memory."""
    config = replace_options(config, {"batch.micro_batch_size": size})
    plan = plan_run_on(train, config, 0, processes)
    batches = plan_trial(config, train, plan).heaviest
    free_memory(state, device)
    reset_peak_memory(device)
    for batch in batches:
        run_micro_batch(config, train, plan, state, device, batch)
    return peak_memory_gib(device)


def free_memory(state: TrainState, device: torch.device) -> None:
    """Drops what a trial, above all one that failed, has left."""
    state.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
