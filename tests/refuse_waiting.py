"""A dispatch mode that finds on the CPU the operations for which the host would wait for a GPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

FORBIDDEN = ("aten.nonzero", "aten._local_scalar_dense", "aten.masked_select", "aten.is_nonzero", "aten._unique",
             "aten.unique", "aten.equal")
FORBIDDEN_ON_GPU = "torchvision.nms"  # its kernel for CPUs stands for nms_by_rounds there, see detector/model/ops/nms.py


class RefuseWaiting(TorchDispatchMode):
    """Raises AssertionError for operations that need the content of a tensor: item(), nonzero(), a mask as an index.

    With fake CUDA tensors also for torchvision's NMS, for copies from the device to the host, and for blocking ones from
    the host.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        assert not name.startswith(FORBIDDEN), f"{name} waits for the device"
        assert not (name.startswith(FORBIDDEN_ON_GPU) and args[0].is_cuda), f"{name} waits for the device"
        if name.startswith(("aten.index", "aten._index_put", "aten.index_put")) and len(args) > 1:
            indices = args[1] if isinstance(args[1], (list, tuple)) else []
            assert not any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices), name
        kwargs = kwargs or {}
        if name.startswith("aten._to_copy"):
            target = torch.device(kwargs.get("device") or args[0].device)
            assert_not_blocking(name, args[0].device.type, target.type, kwargs.get("non_blocking", False))
        if name.startswith("aten.copy_"):
            assert_not_blocking(name, args[1].device.type, args[0].device.type, args[2] if len(args) > 2 else
                                kwargs.get("non_blocking", False))
        return function(*args, **kwargs)


def assert_not_blocking(name: str, source: str, target: str, non_blocking: bool) -> None:
    """Raises AssertionError for a copy between devices for which the host waits."""
    assert (source, target) != ("cuda", "cpu"), f"{name} to the host waits for the device"
    assert source == target or non_blocking, f"{name} to {target} blocks the host"
