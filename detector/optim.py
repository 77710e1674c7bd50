"""How a step changes the weights: what a step is, its learning rate, and which weights decay."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from detector.config.schema import Batch, Optim, Schedule
from detector.data.batches import micro_batches, steps_per_epoch
from detector.errors import BadInput

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


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
    size = batch.size or batch.per_process * world
    if world > size:
        raise BadInput(f"batch.size={size} cannot be shared by {world} processes: start at most {size}, or set "
                       f"batch.size={batch.per_process * world} (the rate follows)")
    steps = steps_per_epoch(sizes, size, batch.groups)
    if batch.groups == "static" and not steps:
        raise BadInput(f"batch.groups=static with batch.size={size}: {len(sizes)} images make no whole batch. Take a "
                       "smaller batch.size, or batch.groups=shuffled")
    scale = size / optim.reference_batch
    warmup = round(schedule.warmup_steps / scale)
    shares = [micro_batches(size, batch.per_process, other, world) for other in range(world)]
    most, turns = max(sum(map(len, micro)) for micro in shares), max(map(len, shares))
    sentence = (f"a step is {size} images: {world} process{'es' * (world > 1)} x {most}"
                + (f", accumulated over {turns} turns of {batch.per_process}" if turns > 1 else "")
                + f"; rate {optim.rate:g} x {size}/{optim.reference_batch} = {optim.rate * scale:g} after {warmup} "
                  f"steps of warm-up; {steps} steps an epoch")
    rest = len(sizes) - steps * size
    if batch.groups == "static" and rest:
        sentence += f", in which the {rest} widest of {len(sizes)} images never train"
    total = schedule.steps or max(1, round(schedule.epochs * steps))
    return Plan(size, shares[rank], steps, total, optim.rate * scale, warmup, milestones(schedule, steps, total),
                sentence)


def milestones(schedule: Schedule, steps: int, total: int) -> tuple[int, ...]:
    """The steps at which the rate falls. Periodic is the rule of jwyang/faster-rcnn.pytorch since 2017-12-15: at the
    start of epoch e = 1, 2, ... where e mod (period + 1) = 0, again and again."""
    if schedule.shape == "periodic":
        return tuple(range(schedule.period * steps, total, (schedule.period + 1) * steps))
    return tuple(round(epoch * steps) for epoch in schedule.milestones)


def describe_schedule(plan: Plan, schedule: Schedule) -> str:
    """One line: how long, and how the rate falls."""
    falls = [str(step) for step in plan.milestones if step < plan.total_steps]
    some = ", ".join(falls[:4]) + f" and {len(falls) - 4} more" * (len(falls) > 4)
    how = "falling along a cosine to 0" if schedule.shape == "cosine" else \
        f"the rate times {schedule.gamma:g} at step {some}" if falls else "the rate stays"
    return f"{plan.total_steps} steps ({plan.total_steps / plan.steps_per_epoch:.3g} epochs), {how}"


def learning_rate(step: int, plan: Plan, schedule: Schedule) -> float:
    """The rate of step 0, 1, ...: linear warm-up from warmup_factor, then milestones or a cosine to zero."""
    rate = plan.rate
    if step < plan.warmup_steps:
        rate *= schedule.warmup_factor + (1 - schedule.warmup_factor) * step / plan.warmup_steps
    if schedule.shape == "cosine":
        return rate * 0.5 * (1 + float(np.cos(np.pi * min(step / plan.total_steps, 1))))
    return rate * schedule.gamma ** sum(step >= milestone for milestone in plan.milestones)


def parameter_groups(model: nn.Module, config: Optim) -> list[dict]:
    """Learning weights by decay and relative rate, in the order of the model; `relative` is the group's factor."""
    norms = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters()}
    groups: dict[tuple[float, float], list] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            norm, bias = id(weight) in norms, name.endswith("bias")
            decays = config.decay_norms if norm else config.decay_biases or not bias
            key = (config.decay if decays else 0.0, config.bias_rate if bias and not norm else 1.0)
            groups.setdefault(key, []).append(weight)
    return [{"params": weights, "weight_decay": decay, "relative": relative}
            for (decay, relative), weights in groups.items()]


def build_optimizer(model: nn.Module, config: Optim) -> torch.optim.SGD:
    """SGD whose momentum begins as zeros: the fused step would take uninitialised memory where fp16 skips the first."""
    optimizer = torch.optim.SGD(parameter_groups(model, config), lr=config.rate, momentum=config.momentum, fused=True)
    if config.momentum:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["relative"]


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and statistics; young averages forget faster, so that the start counts
    for little: the decay of step n is at most (1 + n) / (10 + n)."""
    share_of_new = 1 - min(decay, (1 + step) / (10 + step))
    for old, new in zip(average.state_dict().values(), model.state_dict().values()):
        if old.is_floating_point():
            old.lerp_(new, share_of_new)
        else:
            old.copy_(new)
