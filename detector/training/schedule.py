"""The learning rate of every step, and the number of steps of a run."""

from dataclasses import dataclass

import numpy as np

from detector.config.schema import Batch, Optim, Schedule
from detector.data.samplers import micro_batches, steps_per_epoch
from detector.errors import BadInput


@dataclass(frozen=True)
class Plan:
    """What a run's steps are, in numbers that follow from config, data and number of processes."""

    global_batch: int     # images of one step, over all processes
    micro: list[range]    # columns of the step that this process takes, by turns
    steps_per_epoch: int
    total_steps: int
    rate: float           # after warm-up
    warmup_steps: int
    milestones: tuple[int, ...]  # steps
    sentence: str         # which and how, for the user


def plan_run(batch: Batch, optim: Optim, schedule: Schedule, sizes: np.ndarray, rank: int, world: int) -> Plan:
    """Linear scaling, stated once (Goyal et al. 2017, 2.1): k times the reference batch takes k times the rate and a
    k-th of the warm-up steps; milestones are in epochs and so follow by themselves.

    sizes [E, 2] are those of all that an epoch is made of. A batch that does not fit the processes at once is
    accumulated. Raises BadInput for more processes than images, and for static chunks of more images than there are.
    """
    size = batch.size or batch.micro_batch_size * world
    if world > size:
        raise BadInput(f"batch.size={size} cannot be shared by {world} processes: start at most {size}, or set "
                       f"batch.size={batch.micro_batch_size * world} (the rate follows)")
    steps = steps_per_epoch(sizes, size, batch.aspect_ratio_groups)
    if batch.aspect_ratio_groups == "static" and not steps:
        raise BadInput(f"batch.aspect_ratio_groups=static with batch.size={size}: {len(sizes)} images make no whole batch. Take a "
                       "smaller batch.size, or batch.aspect_ratio_groups=shuffled")
    scale = size / optim.reference_batch_size
    warmup = round(schedule.warmup_steps / scale)
    shares = [micro_batches(size, batch.micro_batch_size, other, world) for other in range(world)]
    most, turns = max(sum(map(len, micro)) for micro in shares), max(map(len, shares))
    sentence = (f"a step is {size} images: {world} process{'es' * (world > 1)} x {most}"
                + (f", accumulated over {turns} turns of {batch.micro_batch_size}" if turns > 1 else "")
                + f"; rate {optim.lr:g} x {size}/{optim.reference_batch_size} = {optim.lr * scale:g} after {warmup} "
                  f"steps of warm-up; {steps} steps an epoch")
    rest = len(sizes) - steps * size
    if batch.aspect_ratio_groups == "static" and rest:
        sentence += f", in which the {rest} widest of {len(sizes)} images never train"
    total = schedule.steps or max(1, round(schedule.epochs * steps))
    return Plan(size, shares[rank], steps, total, optim.lr * scale, warmup, milestones(schedule, steps, total),
                sentence)


def milestones(schedule: Schedule, steps: int, total: int) -> tuple[int, ...]:
    """The steps at which the rate falls. Periodic is the rule of jwyang/faster-rcnn.pytorch since 2017-12-15: at the
    start of epoch e = 1, 2, ... where e mod (period + 1) = 0, again and again."""
    if schedule.lr_schedule == "periodic":
        return tuple(range(schedule.period * steps, total, (schedule.period + 1) * steps))
    return tuple(round(epoch * steps) for epoch in schedule.milestones)


def describe_schedule(plan: Plan, schedule: Schedule) -> str:
    """One line: how long, and how the rate falls."""
    falls = [str(step) for step in plan.milestones if step < plan.total_steps]
    some = ", ".join(falls[:4]) + f" and {len(falls) - 4} more" * (len(falls) > 4)
    how = "falling along a cosine to 0" if schedule.lr_schedule == "cosine" else \
        f"the rate times {schedule.gamma:g} at step {some}" if falls else "the rate stays"
    return f"{plan.total_steps} steps ({plan.total_steps / plan.steps_per_epoch:.3g} epochs), {how}"


def learning_rate(step: int, plan: Plan, schedule: Schedule) -> float:
    """The rate of step 0, 1, ...: linear warm-up from warmup_factor, then milestones or a cosine to zero."""
    rate = plan.rate
    if step < plan.warmup_steps:
        rate *= schedule.warmup_factor + (1 - schedule.warmup_factor) * step / plan.warmup_steps
    if schedule.lr_schedule == "cosine":
        return rate * 0.5 * (1 + float(np.cos(np.pi * min(step / plan.total_steps, 1))))
    return rate * schedule.gamma ** sum(step >= milestone for milestone in plan.milestones)
