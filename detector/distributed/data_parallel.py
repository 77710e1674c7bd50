"""DistributedDataParallel around the model, and what belongs to it."""

import inspect
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from detector.distributed.collectives import all_reduce_mean
from detector.distributed.rank_info import world_size


def average_batchnorm_statistics(module: nn.Module) -> None:
    """Makes the running statistics of learning batch norms the mean over all ranks: all keep one state."""
    buffers = [b for norm in module.modules() if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats
               for b in (norm.running_mean, norm.running_var)]
    if world_size() > 1 and buffers:
        flat = all_reduce_mean(torch.cat([b.flatten() for b in buffers]))
        for buffer, values in zip(buffers, flat.split([b.numel() for b in buffers])):
            buffer.copy_(values.view_as(buffer))


def wrap_ddp(module: nn.Module, device: torch.device, turns: int = 1, compress: bool = False) -> nn.Module:
    """The module with its gradients averaged over all ranks, as bf16 with `compress`; itself for one rank."""
    if world_size() == 1:
        return module
    parallel = nn.parallel.DistributedDataParallel
    newer = "forward_sync_buffers" in inspect.signature(parallel).parameters  # the name since PyTorch 2.12 or so
    options = {"gradient_as_bucket_view": True,
               "forward_sync_buffers" if newer else "broadcast_buffers": False}  # mean_statistics keeps them equal
    if device.type == "cuda":  # the search below makes the host wait; a static graph allows no turns without a sum
        wrapped = parallel(module, device_ids=[device.index], static_graph=turns == 1, **options)
    else:  # buckets sorted anew after the first step of a start would make more than two ranks sum in another order
        wrapped = parallel(_WithUnused(module), find_unused_parameters=True, **options)
    if compress:
        wrapped.register_comm_hook(None, bf16_compress_hook)
    return wrapped


class _WithUnused(nn.Module):
    """The module, and a weight that nothing depends on: a search for unused weights that finds none warns each run."""
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.unused = module, nn.Parameter(torch.zeros(1))

    def forward(self, *arguments):
        return self.module(*arguments)


def sync_gradients(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Gradients stay on this rank, except in the last backward pass of a step."""
    shared = last or not isinstance(module, nn.parallel.DistributedDataParallel)
    return nullcontext() if shared else module.no_sync()
