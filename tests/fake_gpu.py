"""A GPU of fake tensors: they have a device, a shape and a dtype, and no content, so that a model runs on them without a GPU.

PyTorch's FakeTensorMode does this, but for some functions that ask for a driver; these are replaced while the mode is on.
"""

from contextlib import ExitStack, contextmanager
from typing import Iterator
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Statistics [C] of the features of one process, and of all; the features, normalised: for nn.SyncBatchNorm.
STATISTICS, NORMALISED = ("aten.batch_norm_stats", "aten.batch_norm_gather_stats_with_counts"), "aten.batch_norm_elemt"
ON_CONSTANTS = ("aten.lift", "aten._to_copy", "aten.detach", "aten.copy_")  # that the host makes and then copies
WITHOUT_FAKE_KERNEL = ("aten._fused_", "aten._amp_")  # the optimizer and the loss scale: they change their arguments


@contextmanager
def fake_gpu() -> Iterator[torch.device]:
    """Yields the device of fake tensors; every tensor that is made meanwhile is fake.

    Initial weights that are drawn until all lie in a range need content; they are not drawn.
    """
    with ExitStack() as stack:
        for name, replacement in {
                "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
                "torch.cuda.is_bf16_supported": lambda including_emulation=True: True,
                "torch.nn.init.trunc_normal_": lambda tensor, *args, **kwargs: tensor,
                "detector.model.precision.copy_stream": lambda device: None}.items():
            stack.enter_context(patch(name, replacement))
        stack.enter_context(FakeTensorMode())
        yield torch.device("cuda", 0)


@contextmanager
def fake_process_group() -> Iterator[None]:
    """Opens PyTorch's process group of two ranks that sends nothing, for nn.SyncBatchNorm; this package counts one rank."""
    from torch.testing._internal.distributed.fake_pg import FakeStore  # registers the backend
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def no_backward(model: torch.nn.Module) -> Iterator[None]:
    """Replaces the backward pass where there is no driver: it leaves a gradient of the right shape at every parameter."""
    def leave_gradients(loss: torch.Tensor) -> None:
        assert loss.requires_grad and loss.shape == ()
        for weight in model.parameters():
            weight.grad = torch.empty_like(weight) if weight.requires_grad else None
    with ExitStack() as stack:
        if not torch.cuda.is_available():
            stack.enter_context(patch("torch.Tensor.backward", leave_gradients))
        yield


class KeepEverything(TorchDispatchMode):
    """Lets operations whose number of results depends on content keep every element: nonzero(), NMS, a mask as an index.

    Raises AssertionError for a result on another device than the GPU. Constants are made on the host and copied.
    FakeTensorMode itself refuses operations on tensors of several devices.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, first = str(function), args[0] if args else None
        if name.startswith(WITHOUT_FAKE_KERNEL):
            return None
        if name.startswith("aten.nonzero"):
            return first.new_empty((first.numel(), first.ndim), dtype=torch.int64)
        if name.startswith("torchvision.nms"):
            return first.new_empty((len(first),), dtype=torch.int64)
        if name.startswith(STATISTICS):
            return tuple(first.new_empty(first.shape[1], dtype=torch.float32) for _ in range(2))
        if name.startswith(NORMALISED):
            return torch.empty_like(first)
        if name.startswith("aten.index.Tensor") and any(is_mask(index) for index in args[1]):
            return first.new_empty((args[1][0].numel(), *first.shape[args[1][0].ndim:]))
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result) if not name.startswith(ON_CONSTANTS) else ():
            assert not isinstance(tensor, torch.Tensor) or tensor.device.type == "cuda", f"{name} on {tensor.device}"
        return result


def is_mask(index: torch.Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)
