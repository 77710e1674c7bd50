"""RoIAlign as sums of rows: torchvision's values and gradients, box by box, on every level and at every edge."""

import pytest
import torch
from torchvision.ops import roi_align

from detector.model.ops.roi_align_cpu import roi_align_cpu

STRIDES = [4, 8, 16]
HEIGHT, WIDTH = 96, 128
BOXES = [(0, 0, WIDTH, HEIGHT), (3.3, 2.1, 40.7, 50.2), (0, 0, 0, 0), (50, 50, 50.1, 50.1),
         (WIDTH - 1, 10, WIDTH, 40), (20, HEIGHT - 0.5, 70, HEIGHT), (WIDTH, HEIGHT, WIDTH, HEIGHT),
         (-30, -30, 20, 20), (-3, 40, 60, 160), (200, 200, 230, 220), (60, 40, 61, 41)]


def pyramid(layout) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, HEIGHT // s, WIDTH // s).to(memory_format=layout).requires_grad_() for s in STRIDES]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 7])
def test_values_and_gradients_are_torchvisions(size, ratio, layout):
    rois = torch.tensor([(image, *box) for image in (0, 1) for box in BOXES for _ in STRIDES], dtype=torch.float32)
    level = torch.arange(len(STRIDES)).repeat(2 * len(BOXES))
    ours, theirs = pyramid(layout), pyramid(layout)
    mine = roi_align_cpu(ours, STRIDES, level, rois, size, ratio)
    expected = torch.cat([roi_align(theirs[int(number)], roi[None], size, 1 / STRIDES[int(number)], ratio)
                          for number, roi in zip(level, rois)])
    assert (expected == 0).any() and (expected != 0).any()
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(expected)
    (mine * weights).sum().backward()
    (expected * weights).sum().backward()
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)


def test_no_boxes_still_reach_the_features():
    features = pyramid(torch.channels_last)
    pooled = roi_align_cpu(features, STRIDES, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5), 7, 2)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert all((feature.grad == 0).all() for feature in features)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_narrow_features_are_summed_in_float32(kind):
    rois, level = torch.tensor([[0, 3.0, 4, 60, 70]]), torch.zeros(1, dtype=torch.int64)
    narrow = [feature.detach().to(kind) for feature in pyramid(torch.channels_last)]
    pooled = roi_align_cpu(narrow, STRIDES, level, rois, 7, 2)
    assert pooled.dtype == kind
    exact = roi_align_cpu([feature.float() for feature in narrow], STRIDES, level, rois, 7, 2)
    assert torch.equal(pooled, exact.to(kind))


def test_a_box_that_is_not_a_number_stays_inside_the_features():
    rois = torch.tensor([[0, torch.nan, 4, 60, 70], [0, 3, 4, torch.inf, 70]])
    pooled = roi_align_cpu(pyramid(torch.channels_last), STRIDES, torch.zeros(2, dtype=torch.int64), rois, 7, 2)
    assert pooled.shape == (2, 3, 7, 7)
