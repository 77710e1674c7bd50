"""The steps of a run and the learning rate of each, as functions of config, data size and number of processes."""

from dataclasses import dataclass

import numpy as np

from detector.config.schema import Batch, Config, Optim, Schedule
from detector.data.repeat_factors import repeat_factors
from detector.data.samplers import epoch_sizes, micro_batches, steps_per_epoch
from detector.errors import BadInput, count_of
from detector.structures import Dataset


@dataclass(frozen=True)
class RunPlan:
    """The numbers that a run's steps follow from."""

    global_batch: int            # images of one step, over all processes
    micro_batches: list[range]   # positions in the global batch of this process, one range for each forward pass
    forward_passes: int          # of a step, of the process that has the most
    steps_per_epoch: int
    total_steps: int
    lr: float                    # after warm-up
    warmup_steps: int
    milestones: tuple[int, ...]  # steps at which the learning rate is multiplied by schedule.gamma
    summary: str                 # global batch, learning rate and warm-up in one line
    repeat_factors: np.ndarray | None = None  # float64 [E], how often each entry of an epoch is drawn; None: once


def plan_run_on(data: Dataset, config: Config, rank: int, world_size: int) -> RunPlan:
    """Plans the steps of a run on these images, as `plan_run` does, with those options of the config that count."""
    sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
    return plan_run(config.batch, config.optim, config.schedule, sizes, rank, world_size, repeat_factors(data, config))


def plan_run(batch: Batch, optim: Optim, schedule: Schedule, sizes: np.ndarray, rank: int, world_size: int,
             factors: np.ndarray | None = None) -> RunPlan:
    """Plans the steps of a run, with the linear scaling rule (Goyal et al. 2017, section 2.1).

    A batch of k times the reference batch takes k times the learning rate and a k-th of the warm-up steps, which are at
    most a tenth of the run and end before the learning rate falls. Milestones are stated in epochs. A rank's share of
    more than micro_batch_size images is split, and gradients are accumulated.

    Args:
        sizes: int [E, 2], height and width of the images of one epoch.
        factors: float64 [E], how often each of them is drawn in an epoch on average; None: once.

    Raises:
        BadInput: more processes than images in a batch, or static groups with fewer images than one batch.
    """
    size = batch.size or batch.micro_batch_size * world_size
    if world_size > size:
        raise BadInput(f"batch.size={size} cannot be shared by {world_size} processes: start at most {size}, or set "
                       f"batch.size={batch.micro_batch_size * world_size} (the learning rate follows)")
    steps = steps_per_epoch(sizes, size, batch.aspect_ratio_groups, factors)
    if batch.aspect_ratio_groups == "static" and not steps:
        raise BadInput(f"batch.aspect_ratio_groups=static with batch.size={size}: {len(sizes)} images are fewer than "
                       "one batch. Set a smaller batch.size, or batch.aspect_ratio_groups=shuffled")
    scale = size / optim.reference_batch_size
    splits = [micro_batches(size, batch.micro_batch_size, other, world_size) for other in range(world_size)]
    total_steps = schedule.steps or max(1, round(schedule.epochs * steps))
    milestones = milestone_steps(schedule, steps, total_steps)
    warmup_steps, reason = limit_warmup(round(schedule.warmup_steps / scale), total_steps, milestones)
    summary = describe_batch(batch, size, splits) + (
        f"; lr {optim.lr:g} x {size}/{optim.reference_batch_size} = {optim.lr * scale:g} after {warmup_steps} steps of "
        f"warm-up{reason}; {count_of(steps, 'step')} an epoch")
    unused = len(sizes) - steps * size
    if batch.aspect_ratio_groups == "static" and unused:
        summary += f"; the {unused} widest of {len(sizes)} images are never trained on"
    return RunPlan(size, splits[rank], max(map(len, splits)), steps, total_steps, optim.lr * scale, warmup_steps,
                   milestones, summary, factors)


def limit_warmup(warmup_steps: int, total_steps: int, milestones: tuple[int, ...]) -> tuple[int, str]:
    """Returns the steps of the warm-up, at most a tenth of the run and none after the first milestone; and why they are
    fewer than stated, "" if they are not."""
    limits = {total_steps // 10: ", limited to a tenth of the run"}
    if milestones and milestones[0] < total_steps:
        limits[milestones[0]] = ", limited by the step at which the learning rate falls"
    limit = min(limits)
    return (limit, limits[limit]) if limit < warmup_steps else (warmup_steps, "")


def describe_batch(batch: Batch, size: int, splits: list[list[range]]) -> str:
    """Returns one clause: images of a step, processes, images of each process, accumulation.

    Args:
        splits: the micro-batches of each rank.
    """
    images = max(sum(map(len, micro)) for micro in splits)
    forward_passes = max(map(len, splits))
    accumulated = f", accumulated over {forward_passes} micro-batches of {batch.micro_batch_size}"
    return (f"a step is {count_of(size, 'image')}: {count_of(len(splits), 'process', 'processes')} x {images}"
            + (accumulated if forward_passes > 1 else ""))


def milestone_steps(schedule: Schedule, steps_per_epoch: int, total_steps: int) -> tuple[int, ...]:
    """Returns the steps at which the learning rate is multiplied by gamma.

    `lr_schedule=periodic` is the rule of jwyang/faster-rcnn.pytorch since 2017-12-15: at the start of epoch
    e = 1, 2, ... where e mod (period + 1) = 0. A cosine has none.
    """
    if schedule.lr_schedule == "cosine":
        return ()
    if schedule.lr_schedule == "periodic":
        return tuple(range(schedule.period * steps_per_epoch, total_steps, (schedule.period + 1) * steps_per_epoch))
    return tuple(round(epoch * steps_per_epoch) for epoch in schedule.milestones)


def describe_schedule(plan: RunPlan, schedule: Schedule) -> str:
    """Returns one line: number of steps and epochs, and how the learning rate falls."""
    drops = [str(step) for step in plan.milestones if step < plan.total_steps]
    listed = ", ".join(drops[:4]) + (f" and {len(drops) - 4} more" if len(drops) > 4 else "")
    if schedule.lr_schedule == "cosine":
        decay = "lr falls along a cosine to 0"
    elif drops:
        decay = f"lr times {schedule.gamma:g} at step {listed}"
    else:
        decay = "lr stays constant"
    epochs = f"{plan.total_steps / plan.steps_per_epoch:.3g}"
    return f"{count_of(plan.total_steps, 'step')} ({epochs} epoch{'' if epochs == '1' else 's'}), {decay}"


def learning_rate(step: int, plan: RunPlan, schedule: Schedule) -> float:
    """Returns the learning rate of a step (from 0): that of milestones or a cosine, times a linear warm-up."""
    lr = plan.lr
    if step < plan.warmup_steps:
        lr *= schedule.warmup_factor + (1 - schedule.warmup_factor) * step / plan.warmup_steps
    if schedule.lr_schedule == "cosine":
        return lr * 0.5 * (1 + float(np.cos(np.pi * min(step / plan.total_steps, 1))))
    return lr * schedule.gamma ** sum(step >= milestone for milestone in plan.milestones)


def evaluation_interval(every_epochs: float, plan: RunPlan) -> int:
    """Returns the steps between two evaluations; the whole run where `every_epochs` is 0."""
    return round(every_epochs * plan.steps_per_epoch) or plan.total_steps


def is_due(step: int, every: int, total_steps: int) -> bool:
    """Returns whether `step` is a multiple of `every` (0: of none), or the last step."""
    return step == total_steps or (every > 0 and step % every == 0)
