"""The optimizer and its parameter groups."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from detector.config.parsing import did_you_mean
from detector.config.schema import Optim
from detector.errors import BadInput

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
PYRAMID = "backbone.fpn."  # part of `model.backbone`, but not of what optim.backbone_lr_factor is for


def build_sgd(groups: list[dict], config: Optim) -> torch.optim.Optimizer:
    """Returns SGD whose momentum buffers start as zeros.

    Without that, the fused kernel would read an uninitialized buffer where fp16 skips the first step.
    """
    optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    if config.momentum:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


Build = Callable[[list[dict], Optim], torch.optim.Optimizer]  # from parameter groups and options


@dataclass(frozen=True)
class Optimizer:
    """An entry of OPTIMIZERS."""

    build: Build
    # What optim.lr=auto is for a batch of 16 images, to scale linearly (Goyal et al. 2017, section 2.1); None: refused.
    lr_of_16: float | None = None


# Value of optim.optimizer -> entry; a function alone stands for Optimizer(function). A checkpoint keeps the optimizer's
# state by the names of the parameters, so nothing else has to know an entry.
OPTIMIZERS: dict[str, Optimizer | Build] = {
    "sgd": Optimizer(build_sgd, lr_of_16=0.02),
    "adamw": Optimizer(lambda groups, config: torch.optim.AdamW(groups, lr=config.lr, fused=True), lr_of_16=0.0001)}


def find_optimizer(name: str) -> Optimizer:
    """Returns the entry of OPTIMIZERS with this name. Raises BadInput if there is none."""
    if name not in OPTIMIZERS:
        raise BadInput(f"optim.optimizer={name}: one of {', '.join(OPTIMIZERS)}{did_you_mean(name, OPTIMIZERS)}")
    entry = OPTIMIZERS[name]
    return entry if isinstance(entry, Optimizer) else Optimizer(entry)


def build_optimizer(model: nn.Module, config: Optim) -> torch.optim.Optimizer:
    """Returns the optimizer that `optim.optimizer` names, over the model's trainable parameters.

    Raises:
        BadInput: OPTIMIZERS has no such entry.
    """
    return find_optimizer(config.optimizer).build(parameter_groups(model, config), config)


def parameter_groups(model: nn.Module, config: Optim) -> list[dict]:
    """Returns the trainable parameters grouped by weight decay and lr factor, in the order of the model.

    The key "lr_factor" of a group is its learning rate as a multiple of the run's: optim.bias_lr_factor for biases,
    times optim.backbone_lr_factor in the backbone below its feature pyramid: also in the norms between them, of which
    Swin's last one is of the pretrained network.
    """
    norms = {id(parameter) for module in model.modules() if isinstance(module, NORMS)
             for parameter in module.parameters()}
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_norm, is_bias = id(parameter) in norms, name.endswith("bias")
            decay = config.weight_decay_norm if is_norm else config.weight_decay_bias if is_bias else -1
            lr_factor = config.bias_lr_factor if is_bias and not is_norm else 1.0
            if name.startswith("backbone.") and not name.startswith(PYRAMID):
                lr_factor *= config.backbone_lr_factor
            groups.setdefault((config.weight_decay if decay < 0 else decay, lr_factor), []).append(parameter)
    return [{"params": parameters, "weight_decay": decay, "lr_factor": lr_factor}
            for (decay, lr_factor), parameters in groups.items()]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every parameter group, times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
