"""How a step changes the weights: what a step is, its learning rate, and which weights decay."""

import torch
from torch import nn

from detector.config.schema import Optim

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(model: nn.Module, config: Optim) -> list[dict]:
    """Learning weights by decay and relative rate, in the order of the model; `relative` is the group's factor."""
    norms = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters()}
    groups: dict[tuple[float, float], list] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            norm, bias = id(weight) in norms, name.endswith("bias")
            own = config.weight_decay_norm if norm else config.weight_decay_bias if bias else -1
            key = (config.weight_decay if own < 0 else own, config.bias_lr_factor if bias and not norm else 1.0)
            groups.setdefault(key, []).append(weight)
    return [{"params": weights, "weight_decay": decay, "relative": relative}
            for (decay, relative), weights in groups.items()]


def build_optimizer(model: nn.Module, config: Optim) -> torch.optim.SGD:
    """SGD whose momentum begins as zeros: the fused step would take uninitialised memory where fp16 skips the first."""
    optimizer = torch.optim.SGD(parameter_groups(model, config), lr=config.lr, momentum=config.momentum, fused=True)
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
