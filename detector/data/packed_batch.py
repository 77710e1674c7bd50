"""A batch as one piece of memory, for its way from a worker to the training process, to pinned memory and the device.

Each tensor on its own would need a file descriptor, a mapping and a message, which a step waits for.
"""

from dataclasses import dataclass
from typing import Callable, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

ALIGNED = 16  # bytes that each tensor begins at a multiple of


class Place(NamedTuple):
    """Where a tensor lies in the memory."""

    kind: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    first: int  # element


@dataclass(frozen=True)
class Packed:
    """A nest of lists, tuples and dicts whose tensors are places in `memory` (uint8 [bytes])."""

    memory: Tensor
    nest: object

    def pin_memory(self, *_) -> "Packed":  # what DataLoader asks for
        return Packed(self.memory.pin_memory(), self.nest)


def pack(nest: object) -> Packed:
    """Copies the tensors of a nest; in a worker, into memory that is shared from the start."""
    pieces, size = [], 0

    def place(tensor: Tensor) -> Place:
        nonlocal size
        tensor = tensor if dense(tensor) else tensor.contiguous()
        where = Place(tensor.dtype, tuple(tensor.shape), tensor.stride(), size // tensor.element_size())
        size += -(-tensor.nbytes // ALIGNED) * ALIGNED
        pieces.append((tensor, where))
        return where
    nest = mapped(nest, Tensor, place)
    memory = torch.empty(0, dtype=torch.uint8)
    if get_worker_info() is None:
        memory = memory.new_empty(size)
    else:
        memory.set_(torch.UntypedStorage._new_shared(size), 0, (size,))  # as PyTorch's own default_collate
    for tensor, where in pieces:
        view(memory, where).copy_(tensor)
    return Packed(memory, nest)


def unpack(packed: Packed) -> object:
    """The nest, with tensors that are views of the memory."""
    return mapped(packed.nest, Place, lambda where: view(packed.memory, where))


def view(memory: Tensor, where: Place) -> Tensor:
    return memory.view(where.kind).as_strided(where.shape, where.strides, where.first)


def dense(tensor: Tensor) -> bool:
    """Does it fill a piece of memory, in whatever order of its axes? A decoded image lies there as [H, W, 3]."""
    return tensor.is_contiguous() or tensor.ndim == 3 and tensor.permute(1, 2, 0).is_contiguous()


def mapped(nest: object, kind: type, change: Callable) -> object:
    """The nest, with everything of this kind in it changed."""
    if isinstance(nest, kind):
        return change(nest)
    if isinstance(nest, dict):
        return {key: mapped(value, kind, change) for key, value in nest.items()}
    return type(nest)(mapped(value, kind, change) for value in nest) if isinstance(nest, (list, tuple)) else nest
