"""DistributedDataParallel around the model, and batch-norm statistics that are the same on all ranks."""

import inspect
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from detector.distributed.collectives import all_reduce_mean
from detector.distributed.rank_info import world_size


def average_batchnorm_statistics(module: nn.Module) -> None:
    """Replaces the running statistics of all trained batch norms by their mean over all ranks. Collective."""
    buffers = [buffer for norm in module.modules() if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats
               for buffer in (norm.running_mean, norm.running_var)]
    if world_size() > 1 and buffers:
        flat = all_reduce_mean(torch.cat([buffer.flatten() for buffer in buffers]))
        for buffer, values in zip(buffers, flat.split([buffer.numel() for buffer in buffers])):
            buffer.copy_(values.view_as(buffer))


def wrap_ddp(module: nn.Module, device: torch.device, forward_passes: int = 1,
             bf16_allreduce: bool = False) -> nn.Module:
    """Returns the module wrapped by DistributedDataParallel, which averages its gradients over all ranks.

    With one process the module itself is returned. Gradients are summed in the same order after every start, so that a
    resumed run computes the same weights.

    Args:
        forward_passes: of an optimizer step, of the rank that has the most; see `sync_gradients`. The same on all
            ranks, whose gradients DDP would otherwise send in different pieces.
        bf16_allreduce: send gradients as bf16, half the bytes with less precision.
    """
    if world_size() == 1:
        return module
    ddp = nn.parallel.DistributedDataParallel
    # Buffers need no broadcast: average_batchnorm_statistics keeps them equal. The option was renamed in about PyTorch
    # 2.12.
    renamed = "forward_sync_buffers" in inspect.signature(ddp).parameters
    options = {"gradient_as_bucket_view": True, "forward_sync_buffers" if renamed else "broadcast_buffers": False}
    if device.type == "cuda":
        # find_unused_parameters would make the host wait for the GPU in each step. static_graph is incompatible with
        # no_sync().
        wrapped = ddp(module, device_ids=[device.index], static_graph=forward_passes == 1, **options)
    else:
        # Without find_unused_parameters, DDP rebuilds its buckets after the first step of each start: three or more
        # ranks would then sum in another order after a resume.
        wrapped = ddp(_WithUnusedParameter(module), find_unused_parameters=True, **options)
    if bf16_allreduce:
        wrapped.register_comm_hook(None, bf16_compress_hook)
    return wrapped


class _WithUnusedParameter(nn.Module):
    """The module, with a parameter that no output depends on.

    DDP warns in each run if find_unused_parameters finds no unused parameter.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.unused = module, nn.Parameter(torch.zeros(1))

    def forward(self, *args):
        return self.module(*args)


def sync_gradients(module: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Returns a context for the forward and backward pass of one micro-batch.

    Gradients are averaged over the ranks in the last micro-batch of a step (`is_last`); before that, they add up on
    this rank.
    """
    if is_last or not isinstance(module, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return module.no_sync()
