"""The exponential moving average of the weights (optim.ema_decay)."""

import torch
from torch import nn


@torch.no_grad()
def update_ema(ema_model: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Updates the exponential moving average of weights and statistics, in place.

    The decay of step n is at most (1 + n) / (10 + n), so that the initial weights are forgotten early.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for average, value in zip(ema_model.state_dict().values(), model.state_dict().values()):
        if average.is_floating_point():
            average.lerp_(value, weight)
        else:
            average.copy_(value)
