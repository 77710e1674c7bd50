"""RoIAlign as one embedding_bag: torchvision's values and gradients, box by box, on every level and at every edge."""

import pytest
import torch
from torchvision.ops import roi_align

from detector.model.ops.roi_align_cpu import roi_align_cpu

STRIDES = [4, 8, 16]
HEIGHT, WIDTH = 96, 128
BOXES = [(0, 0, WIDTH, HEIGHT), (3.3, 2.1, 40.7, 50.2), (0, 0, 0, 0), (50, 50, 50.1, 50.1),
         (WIDTH - 1, 10, WIDTH, 40), (20, HEIGHT - 0.5, 70, HEIGHT), (WIDTH, HEIGHT, WIDTH, HEIGHT),
         (-30, -30, 20, 20), (-3, 40, 60, 160), (200, 200, 230, 220), (60, 40, 61, 41)]


def pyramid(layout: torch.memory_format) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, HEIGHT // s, WIDTH // s).to(memory_format=layout).requires_grad_() for s in STRIDES]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 7])
def test_values_and_gradients_are_torchvisions(size, ratio, layout):
    rois = torch.tensor([(image, *box) for image in (0, 1) for box in BOXES for _ in STRIDES], dtype=torch.float32)
    level = torch.arange(len(STRIDES)).repeat(2 * len(BOXES))
    features, copies = pyramid(layout), pyramid(layout)
    pooled = roi_align_cpu(features, STRIDES, level, rois, size, ratio)
    expected = torch.cat([roi_align(copies[int(number)], roi[None], size, 1 / STRIDES[int(number)], ratio)
                          for number, roi in zip(level, rois)])
    assert (expected == 0).any() and (expected != 0).any()
    # Coordinates of up to 32 cells are rounded to 2e-6 of a cell, between N(0, 1) features that differ by up to 8.
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=1e-5)
    weights = torch.randn_like(expected)
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    for feature, copy in zip(features, copies):  # sums over all boxes: relative to the largest sum
        torch.testing.assert_close(feature.grad, copy.grad, atol=1e-5 * float(copy.grad.abs().max()), rtol=1e-4)


def test_without_boxes_the_features_get_a_gradient_of_zero():
    features = pyramid(torch.channels_last)
    pooled = roi_align_cpu(features, STRIDES, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5), 7, 2)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert all((feature.grad == 0).all() for feature in features)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_of_16_bits_are_summed_in_float32(dtype):
    rois, level = torch.tensor([[0, 3.0, 4, 60, 70]]), torch.zeros(1, dtype=torch.int64)
    features = [feature.detach().to(dtype) for feature in pyramid(torch.channels_last)]
    pooled = roi_align_cpu(features, STRIDES, level, rois, 7, 2)
    assert pooled.dtype == dtype
    exact = roi_align_cpu([feature.float() for feature in features], STRIDES, level, rois, 7, 2)
    assert torch.equal(pooled, exact.to(dtype))


def test_a_nan_or_infinite_box_reads_inside_the_features():
    rois = torch.tensor([[0, torch.nan, 4, 60, 70], [0, 3, 4, torch.inf, 70]])
    pooled = roi_align_cpu(pyramid(torch.channels_last), STRIDES, torch.zeros(2, dtype=torch.int64), rois, 7, 2)
    assert pooled.shape == (2, 3, 7, 7)
