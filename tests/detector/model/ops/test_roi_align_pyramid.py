"""A pyramid on one map: pooling and gradients as level by level, also of slivers at the far edges."""

import pytest
import torch
from refuse_waiting import RefuseWaiting
from torchvision.ops import roi_align

from detector.model.ops.roi_align_pyramid import BORDER, PyramidMap, roi_align_pyramid, level_corners

STRIDES = [4, 8, 16, 32]
HEIGHT, WIDTH = 96, 128


def pyramid() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, HEIGHT // s, WIDTH // s, requires_grad=True) for s in STRIDES]


def slow(features, level, rois, size, ratio):
    """One box after the other, each from its own level."""
    return torch.cat([roi_align(features[int(number)], roi[None], size, 1 / STRIDES[int(number)], ratio)
                      for number, roi in zip(level, rois)])


BOXES = [(0, 0, WIDTH, HEIGHT), (3.3, 2.1, 40.7, 50.2), (0, 0, 0, 0),
         (WIDTH - 1, 10, WIDTH, 40), (20, HEIGHT - 0.5, 70, HEIGHT), (WIDTH - 2, HEIGHT - 3, WIDTH, HEIGHT),
         (WIDTH, HEIGHT, WIDTH, HEIGHT), (WIDTH - 0.1, 0, WIDTH, 1), (60, 40, 61, 41), (WIDTH - 3.5, 5, WIDTH - 3.2, 90)]


@pytest.mark.parametrize("ratio", [1, 2, 3, -1])
@pytest.mark.parametrize("size", [2, 7])
def test_every_box_on_every_level_is_pooled_as_from_that_level_alone(size, ratio):
    rois = torch.tensor([(image, *box) for image in (0, 1) for box in BOXES for _ in STRIDES], dtype=torch.float32)
    level = torch.arange(len(STRIDES)).repeat(2 * len(BOXES))
    ours, theirs = pyramid(), pyramid()
    expected = slow(theirs, level, rois, size, ratio)
    with RefuseWaiting():
        mine = roi_align_pyramid(ours, STRIDES, level, rois, size, ratio)
    assert (expected == 0).any() and (expected != 0).any()
    torch.testing.assert_close(mine, expected, atol=1e-4, rtol=0)
    weights = torch.randn_like(expected)
    (mine * weights).sum().backward()
    (expected * weights).sum().backward()
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-3, rtol=1e-4)


def test_no_boxes():
    pooled = roi_align_pyramid(pyramid(), STRIDES, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5), 7, 2)
    assert pooled.shape == (0, 3, 7, 7)


def test_levels_do_not_meet():
    corners = level_corners([(24, 32), (12, 16), (6, 8), (3, 4)])
    assert corners == [(0, 0), (24 + BORDER, 0), (24 + BORDER, 16 + BORDER), (24 + BORDER, 24 + 2 * BORDER)]
    levels = [torch.full((1, 1, *shape), float(n)) for n, shape in enumerate([(24, 32), (12, 16), (6, 8), (3, 4)], 1)]
    atlas = PyramidMap.apply(corners, *levels)
    for (y, x), level in zip(corners, levels):  # each with its continued edges, and nothing is written twice
        height, width = level.shape[-2] + BORDER, level.shape[-1] + BORDER
        assert (atlas[0, 0, y:y + height, x:x + width] == level[0, 0, 0, 0]).all()


def test_the_gradient_of_the_map_is_exact():
    levels = [torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True),
              torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)]
    corners = level_corners([tuple(level.shape[-2:]) for level in levels])
    assert torch.autograd.gradcheck(lambda *some: PyramidMap.apply(corners, *some), levels)
