"""Unpacking a packed batch gives what was packed."""

import pickle

import pytest
import torch

from detector.data.packed_batch import ALIGNMENT, PackedBatch, pack, unpack

IMAGE = torch.arange(3 * 5 * 7).to(torch.uint8)


def assert_same(a, b) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for value_a, value_b in zip(a, b):
            assert_same(value_a, value_b)
    else:
        assert a == b


@pytest.mark.parametrize("nest", [
    ([IMAGE.reshape(3, 5, 7), IMAGE.reshape(5, 7, 3).permute(2, 0, 1)],  # as Pillow and as torchvision.io lay it out
     [{"boxes": torch.rand(2, 4), "labels": torch.tensor([1, 2]), "index": torch.tensor(3)},
      {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "index": torch.tensor(4),
       "frame": (0, 1, 2, 3, 4, 5), "unreadable": torch.tensor([1, 2, 3], dtype=torch.uint8)}]),
    ([], []), {}, 5, [torch.rand(4, 6)[:, ::2], torch.rand(6, 4).t(), torch.rand(2, 3, 4).permute(1, 0, 2), torch.rand(8)[::3]],
    [torch.rand(3).double(), torch.tensor(True), torch.rand(1).half()]])
def test_unpacking_gives_what_was_packed(nest):
    packed = pack(nest)
    assert packed.memory.dtype == torch.uint8 and packed.memory.ndim == 1
    assert_same(unpack(packed), nest)
    assert_same(unpack(pickle.loads(pickle.dumps(packed))), nest)


def test_images_keep_the_order_of_their_axes_in_memory():
    image = IMAGE.reshape(5, 7, 3).permute(2, 0, 1)
    unpacked, = unpack(pack([image]))
    assert unpacked.stride() == image.stride() == (1, 21, 3)


def test_tensors_are_adjacent_copies():
    first, second = torch.zeros(3, dtype=torch.uint8), torch.zeros(2)
    packed = pack([first, second])
    assert packed.memory.numel() == 2 * ALIGNMENT
    packed.memory.fill_(1)
    assert first.sum() == 0 and unpack(packed)[0].tolist() == [1, 1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_pinned_memory_holds_the_whole_batch():
    packed = pack([torch.rand(3, 4), IMAGE]).pin_memory()
    assert isinstance(packed, PackedBatch) and all(tensor.is_pinned() for tensor in unpack(packed))
