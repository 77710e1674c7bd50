"""The optimizer and its parameter groups."""

import torch
from torch import nn

from detector.config.parsing import did_you_mean
from detector.config.schema import Optim
from detector.errors import BadInput

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
NEW_LAYERS = ("backbone.fpn.", "backbone.norms.")  # below `backbone.`, not of the pretrained network


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


# Value of optim.optimizer -> function (parameter groups, Optim) -> optimizer. A checkpoint keeps the optimizer's state
# by the names of the parameters, so nothing else has to know an entry.
OPTIMIZERS = {"sgd": build_sgd,
              "adamw": lambda groups, config: torch.optim.AdamW(groups, lr=config.lr, fused=True)}


def build_optimizer(model: nn.Module, config: Optim) -> torch.optim.Optimizer:
    """Returns the optimizer that `optim.optimizer` names, over the model's trainable parameters.

    Raises:
        BadInput: OPTIMIZERS has no such entry.
    """
    if config.optimizer not in OPTIMIZERS:
        raise BadInput(f"optim.optimizer={config.optimizer}: one of {', '.join(OPTIMIZERS)}"
                       + did_you_mean(config.optimizer, OPTIMIZERS))
    return OPTIMIZERS[config.optimizer](parameter_groups(model, config), config)


def parameter_groups(model: nn.Module, config: Optim) -> list[dict]:
    """Returns the trainable parameters grouped by weight decay and lr factor, in the order of the model.

    The key "lr_factor" of a group is its learning rate as a multiple of the run's: optim.bias_lr_factor for biases,
    times optim.backbone_lr_factor in the backbone.
    """
    norms = {id(parameter) for module in model.modules() if isinstance(module, NORMS)
             for parameter in module.parameters()}
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_norm, is_bias = id(parameter) in norms, name.endswith("bias")
            decay = config.weight_decay_norm if is_norm else config.weight_decay_bias if is_bias else -1
            lr_factor = config.bias_lr_factor if is_bias and not is_norm else 1.0
            if name.startswith("backbone.") and not name.startswith(NEW_LAYERS):
                lr_factor *= config.backbone_lr_factor
            groups.setdefault((config.weight_decay if decay < 0 else decay, lr_factor), []).append(parameter)
    return [{"params": parameters, "weight_decay": decay, "lr_factor": lr_factor}
            for (decay, lr_factor), parameters in groups.items()]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every parameter group, times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
