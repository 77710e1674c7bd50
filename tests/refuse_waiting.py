"""A dispatch mode that finds on the CPU the operations for which the host would wait for a GPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

FORBIDDEN = ("aten.nonzero", "aten._local_scalar_dense", "aten.masked_select", "aten.is_nonzero", "aten._unique",
             "aten.unique", "aten.equal", "aten._to_cpu")


class RefuseWaiting(TorchDispatchMode):
    """Raises AssertionError for operations that need the content of a tensor: item(), nonzero(), a mask as an index.

    With fake CUDA tensors also for blocking copies from the host to the device.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        assert not name.startswith(FORBIDDEN), f"{name} waits for the device"
        if name.startswith(("aten.index", "aten._index_put", "aten.index_put")) and len(args) > 1:
            indices = args[1] if isinstance(args[1], (list, tuple)) else []
            assert not any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices), name
        if name.startswith("aten._to_copy") and args[0].device.type == "cpu":
            kwargs = kwargs or {}
            device = torch.device(kwargs.get("device") or "cpu")
            assert device.type == "cpu" or kwargs.get("non_blocking"), f"{name} to {device} blocks the host"
        return function(*args, **(kwargs or {}))
