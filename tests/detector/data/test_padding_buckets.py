"""Padding buckets: how many shapes an epoch has, that no image is cut, and how many more pixels are padded."""

import numpy as np
import pytest
import torch

from detector.config.schema import Augment, Batch, Config
from detector.data.padding_buckets import PaddingBuckets, plan_padding_buckets
from detector.data.samplers import aspect_groups, plan_epoch
from detector.model.preprocessing import Preprocessing, to_batch
from detector.seeding import numpy_random_state
from detector.structures import Resize, ceil_div, resized_sizes, round_up, scale_and_size


def sizes_like_cocos(count: int) -> np.ndarray:
    """Two thirds landscape around 4:3, the rest upright, a few extremes: int32 [count, 2]."""
    state = numpy_random_state(3)
    ratio = np.exp(state.normal(np.log(4 / 3), 0.25, count)) ** np.where(state.rand(count) < 0.3, -1, 1)
    long = state.randint(300, 641, count)
    return np.stack([np.where(ratio < 1, long, long / ratio), np.where(ratio < 1, long * ratio, long)], 1).astype(np.int32)


@pytest.mark.parametrize("resize", [Resize(800, 1333), Resize(320, 0), Resize(64, 100)])
def test_all_images_at_once_are_resized_as_one_is(resize):
    sizes = sizes_like_cocos(500)
    assert resized_sizes(sizes, resize).tolist() == [list(scale_and_size(*map(int, size), resize)[1]) for size in sizes]


def test_an_epoch_has_few_shapes_and_no_image_is_cut():
    sizes = sizes_like_cocos(3000)
    config = Config(batch=Batch(16, 2, pad_to="group"), augment=Augment(min_size=(640, 800), max_size=1333))
    buckets, plan = plan_padding_buckets(config, sizes, 16), plan_epoch(0, 0, sizes, 16)
    for min_size in (640, 800):
        resize = Resize(min_size, 1333)
        needed = resized_sizes(sizes, resize)
        padded = np.array([buckets.min_padded_size(resize, row[first:first + 2].tolist()) for row in plan for first in range(0, 16, 2)])
        each = np.repeat(padded.reshape(len(plan), 8, 2), 2, axis=1)
        assert (each >= needed[plan]).all() and not (padded % 32).any()
        assert (each == each[:, :1]).all(), "all ranks of a step have the same padded size"
        few = {tuple(shape) for shape in padded}
        many = {tuple(ceil_div(shape, 32)) for shape in needed[plan].reshape(-1, 2, 2).max(1)}
        assert len(few) == len(set(aspect_groups(sizes, 16))) <= 8 < len(many) / 4
        tight = round_up(needed[plan].reshape(-1, 2, 2).max(1), 32).prod(1).sum()
        assert 1 < padded.prod(1).sum() / tight < 1.35, "padded pixels, relative to batches without buckets"


def test_a_batch_is_as_large_as_its_bucket_and_has_the_same_pixels():
    images = [torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8), torch.randint(0, 256, (3, 45, 60), dtype=torch.uint8)]
    resize = Resize(64, 0)
    tight = to_batch(images, resize, Preprocessing())
    wide = to_batch(images, resize, Preprocessing(), min_padded_size=(96, 160))
    assert tight.tensors.shape[-2:] == (64, 96) and wide.tensors.shape[-2:] == (96, 160)
    assert wide.image_sizes == tight.image_sizes and torch.equal(wide.tensors[:, :, :64, :96], tight.tensors)
    assert not wide.tensors[:, :, 64:].any() and not wide.tensors[:, :, :, 96:].any()


def test_without_buckets_there_is_no_least_size():
    assert plan_padding_buckets(Config(), sizes_like_cocos(20), 16) == PaddingBuckets()
    assert PaddingBuckets().min_padded_size(Resize(800, 1333), [3]) == (0, 0)
