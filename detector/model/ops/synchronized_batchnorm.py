"""Batch norms whose statistics are those of the images of all processes (model.norm=synchronized)."""

from typing import Callable

import torch
from torch import Tensor, nn

from detector.distributed.collectives import sum_over_ranks
from detector.distributed.rank_info import world_size


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """The computation of PyTorch's SyncBatchNorm, which needs a GPU, on any device.

    A forward pass in training is collective, and so is its backward pass. With one process, and in evaluation, this is
    a BatchNorm2d.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count, mean, variance = batch_statistics(values)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return ((values - per_channel(mean)) * per_channel(scale) + per_channel(self.bias)).to(x.dtype)


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the count [], mean [C] and biased variance [C] over the features x [B, C, h, w] of all ranks.

    Ranks may have different B, h and w. The moments are summed in float64, so that the square of a large mean leaves
    the variance its digits. Collective.
    """
    variance, mean = (moment.double() for moment in torch.var_mean(x, dim=(0, 2, 3), correction=0))
    count = x.numel() / x.shape[1]
    moments = torch.cat([count * mean, count * (variance + mean ** 2), mean.new_full((1,), count)])
    total = sum_over_ranks(moments)
    mean, square = (total[:-1] / total[-1]).chunk(2)
    return total[-1].to(x.dtype), mean.to(x.dtype), (square - mean ** 2).clamp(min=0).to(x.dtype)


def per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def synchronize_norms(module: nn.Module) -> nn.Module:
    """Replaces the batch norms inside a module by synchronized ones, in place, and returns the module; frozen norms
    stay, and state dicts keep their names."""
    def synchronized(norm: nn.BatchNorm2d) -> SynchronizedBatchNorm:
        other = SynchronizedBatchNorm(norm.num_features, norm.eps, norm.momentum)
        other.load_state_dict(norm.state_dict())
        return other
    return replace_norms(module, nn.BatchNorm2d, synchronized)


def use_pytorchs_synchronization(module: nn.Module) -> nn.Module:
    """Replaces synchronized norms by PyTorch's, whose kernels are faster, for a module that goes to a GPU."""
    return replace_norms(module, SynchronizedBatchNorm, nn.SyncBatchNorm.convert_sync_batchnorm)


def replace_norms(module: nn.Module, kind: type[nn.Module], other: Callable[[nn.Module], nn.Module]) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, kind):
            setattr(module, name, other(child))
        else:
            replace_norms(child, kind, other)
    return module
