"""Canvases of few sizes: how many there are, that no image is larger than its own, and what they cost."""

import numpy as np
import pytest
import torch

from detector.config.schema import Augment, Batch, Config
from detector.data.padding_buckets import PaddingBuckets, plan_padding_buckets
from detector.data.samplers import aspect_groups, plan_epoch
from detector.model.preprocessing import Input, to_batch
from detector.seeding import numpy_random_state
from detector.structures import Resize, resized_sizes, scale_and_size


def sizes_like_cocos(count: int) -> np.ndarray:
    """Two thirds landscape around 4:3, the rest upright, a few extremes: int32 [count, 2]."""
    chance = numpy_random_state(3)
    ratio = np.exp(chance.normal(np.log(4 / 3), 0.25, count)) ** np.where(chance.rand(count) < 0.3, -1, 1)
    long = chance.randint(300, 641, count)
    return np.stack([np.where(ratio < 1, long, long / ratio), np.where(ratio < 1, long * ratio, long)], 1).astype(np.int32)


@pytest.mark.parametrize("side", [Resize(800, 1333), Resize(320, 0), Resize(64, 100)])
def test_all_images_at_once_are_resized_as_one_is(side):
    sizes = sizes_like_cocos(500)
    assert resized_sizes(sizes, side).tolist() == [list(scale_and_size(*map(int, size), side)[1]) for size in sizes]


def test_an_epoch_has_few_shapes_and_no_image_is_cut():
    sizes = sizes_like_cocos(3000)
    config = Config(batch_size_per_image=Batch(16, 2, pad_to="group"), augment=Augment(min_size=(640, 800), max_size=1333))
    canvases, plan = plan_padding_buckets(config, sizes, 16), plan_epoch(0, 0, sizes, 16)
    for short in (640, 800):
        side = Resize(short, 1333)
        needed = resized_sizes(sizes, side)
        seen = np.array([canvases.least(side, row[turn:turn + 2].tolist()) for row in plan for turn in range(0, 16, 2)])
        each = np.repeat(seen.reshape(len(plan), 8, 2), 2, axis=1)
        assert (each >= needed[plan]).all() and not (seen % 32).any()
        assert (each == each[:, :1]).all(), "all ranks of a step have the same canvas"
        few, many = {tuple(shape) for shape in seen}, {tuple(-(-shape // 32)) for shape in needed[plan].reshape(-1, 2, 2).max(1)}
        assert len(few) == len(set(aspect_groups(sizes, 16))) <= 8 < len(many) / 4
        own = (-(-needed[plan].reshape(-1, 2, 2).max(1) // 32) * 32).prod(1).sum()
        assert 1 < seen.prod(1).sum() / own < 1.35, "what it costs in pixels"


def test_the_batch_is_as_large_as_its_canvas_and_holds_the_same_pixels():
    images = [torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8), torch.randint(0, 256, (3, 45, 60), dtype=torch.uint8)]
    side = Resize(64, 0)
    tight, wide = to_batch(images, side, Input()), to_batch(images, side, Input(), least=(96, 160))
    assert tight.tensors.shape[-2:] == (64, 96) and wide.tensors.shape[-2:] == (96, 160)
    assert wide.image_sizes == tight.image_sizes and torch.equal(wide.tensors[:, :, :64, :96], tight.tensors)
    assert not wide.tensors[:, :, 64:].any() and not wide.tensors[:, :, :, 96:].any()


def test_own_canvases_ask_for_nothing():
    assert plan_padding_buckets(Config(), sizes_like_cocos(20), 16) == PaddingBuckets() and PaddingBuckets().least(Resize(800, 1333), [3]) == (0, 0)
