"""A batch in one block of memory, to move it from a worker to the training process, to pinned memory and to the GPU.

Moving each tensor alone would take a file descriptor, a memory mapping and a message each, which delays the step.
"""

from dataclasses import dataclass
from typing import Callable, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from detector.structures import round_up

ALIGNMENT = 16  # bytes; each tensor starts at a multiple of it


class TensorSlot(NamedTuple):
    """Position and layout of one tensor in the block."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int  # elements of `dtype`


@dataclass(frozen=True)
class PackedBatch:
    """Nested lists, tuples and dicts, `nest`, whose tensors are slots in `memory` (uint8 [bytes])."""

    memory: Tensor
    nest: object

    def pin_memory(self, *_) -> "PackedBatch":  # called by DataLoader
        return PackedBatch(self.memory.pin_memory(), self.nest)


def pack(nest: object) -> PackedBatch:
    """Copies the tensors of nested lists, tuples and dicts into one block; in a worker, of shared memory."""
    pieces, size = [], 0

    def allocate(tensor: Tensor) -> TensorSlot:
        nonlocal size
        tensor = tensor if is_dense(tensor) else tensor.contiguous()
        slot = TensorSlot(tensor.dtype, tuple(tensor.shape), tensor.stride(), size // tensor.element_size())
        size += round_up(tensor.nbytes, ALIGNMENT)
        pieces.append((tensor, slot))
        return slot
    nest = map_nested(nest, Tensor, allocate)
    memory = torch.empty(0, dtype=torch.uint8)
    if get_worker_info() is None:
        memory = memory.new_empty(size)
    else:
        memory.set_(torch.UntypedStorage._new_shared(size), 0, (size,))  # as PyTorch's default_collate does
    for tensor, slot in pieces:
        slot_view(memory, slot).copy_(tensor)
    return PackedBatch(memory, nest)


def unpack(packed: PackedBatch) -> object:
    """Returns the nested lists, tuples and dicts; the tensors are views of the block."""
    return map_nested(packed.nest, TensorSlot, lambda slot: slot_view(packed.memory, slot))


def slot_view(memory: Tensor, slot: TensorSlot) -> Tensor:
    return memory.view(slot.dtype).as_strided(slot.shape, slot.strides, slot.offset)


def is_dense(tensor: Tensor) -> bool:
    """Returns whether the tensor fills its memory without gaps, [C, H, W] or, like decoded images, stored [H, W, C]."""
    return tensor.is_contiguous() or tensor.ndim == 3 and tensor.permute(1, 2, 0).is_contiguous()


def map_nested(nest: object, kind: type, function: Callable) -> object:
    """Returns a copy of nested lists, tuples and dicts with `function` applied to every value of type `kind`."""
    if isinstance(nest, kind):
        return function(nest)
    if isinstance(nest, dict):
        return {key: map_nested(value, kind, function) for key, value in nest.items()}
    return type(nest)(map_nested(value, kind, function) for value in nest) if isinstance(nest, (list, tuple)) else nest
