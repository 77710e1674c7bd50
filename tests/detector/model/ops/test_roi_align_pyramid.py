"""A pyramid on one map: pooling and gradients as level by level, also of thin boxes at the far edges."""

import pytest
import torch
from refuse_waiting import RefuseWaiting
from torchvision.ops import roi_align

from detector.model.ops.roi_align_pyramid import BORDER, PyramidMap, level_corners, roi_align_pyramid

STRIDES = [4, 8, 16, 32]
HEIGHT, WIDTH = 96, 128


def pyramid() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, HEIGHT // s, WIDTH // s, requires_grad=True) for s in STRIDES]


def slow_align(features, level, rois, size, ratio):
    """One box after the other, each from its own level."""
    return torch.cat([roi_align(features[int(number)], roi[None], size, 1 / STRIDES[int(number)], ratio)
                      for number, roi in zip(level, rois)])


BOXES = [(0, 0, WIDTH, HEIGHT), (3.3, 2.1, 40.7, 50.2), (0, 0, 0, 0),
         (WIDTH - 1, 10, WIDTH, 40), (20, HEIGHT - 0.5, 70, HEIGHT), (WIDTH - 2, HEIGHT - 3, WIDTH, HEIGHT),
         (WIDTH, HEIGHT, WIDTH, HEIGHT), (WIDTH - 0.1, 0, WIDTH, 1), (60, 40, 61, 41), (WIDTH - 3.5, 5, WIDTH - 3.2, 90)]


@pytest.mark.parametrize("ratio", [1, 2, 3, -1])
@pytest.mark.parametrize("size", [2, 7])
def test_every_box_is_pooled_as_from_its_level_alone(size, ratio):
    rois = torch.tensor([(image, *box) for image in (0, 1) for box in BOXES for _ in STRIDES], dtype=torch.float32)
    level = torch.arange(len(STRIDES)).repeat(2 * len(BOXES))
    features, copies = pyramid(), pyramid()
    expected = slow_align(copies, level, rois, size, ratio)
    with RefuseWaiting():
        pooled = roi_align_pyramid(features, STRIDES, level, rois, size, ratio)
    assert (expected == 0).any() and (expected != 0).any()
    # Coordinates of up to 64 cells are rounded to 4e-6 of a cell, between N(0, 1) features that differ by up to 8.
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=0)
    weights = torch.randn_like(expected)
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    for feature, copy in zip(features, copies):  # sums over all boxes: relative to the largest sum
        torch.testing.assert_close(feature.grad, copy.grad, atol=1e-4 * float(copy.grad.abs().max()), rtol=1e-4)


def test_no_boxes():
    pooled = roi_align_pyramid(pyramid(), STRIDES, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5), 7, 2)
    assert pooled.shape == (0, 3, 7, 7)


def test_levels_do_not_overlap():
    corners = level_corners([(24, 32), (12, 16), (6, 8), (3, 4)])
    assert corners == [(0, 0), (24 + BORDER, 0), (24 + BORDER, 16 + BORDER), (24 + BORDER, 24 + 2 * BORDER)]
    levels = [torch.full((1, 1, *shape), float(n)) for n, shape in enumerate([(24, 32), (12, 16), (6, 8), (3, 4)], 1)]
    joined = PyramidMap.apply(corners, *levels)
    for (y, x), level in zip(corners, levels):  # each with its repeated edges; nothing is written twice
        height, width = level.shape[-2] + BORDER, level.shape[-1] + BORDER
        assert (joined[0, 0, y:y + height, x:x + width] == level[0, 0, 0, 0]).all()


def test_the_gradient_of_the_map_is_exact():
    levels = [torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True),
              torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)]
    corners = level_corners([tuple(level.shape[-2:]) for level in levels])
    assert torch.autograd.gradcheck(lambda *inputs: PyramidMap.apply(corners, *inputs), levels)
