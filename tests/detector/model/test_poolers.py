"""RoI pooling beside torchvision's or a slow loop; the result does not depend on earlier batches.

Pooling computes in float32. Features are N(0, 1), so neighbouring cells differ by up to 8. A coordinate of up to 160 cells
is rounded to 8e-6 of a cell, in two directions. Two ways of the same pooling may therefore differ by 1.3e-4.
"""

import math

import pytest
import torch
from refuse_waiting import RefuseWaiting
from torchvision.ops import MultiScaleRoIAlign, roi_pool

from detector.model.poolers import RoiPooling
from detector.py_faster_rcnn.roi_pooling import align_original, crop

TOLERANCE = {"atol": 2e-4, "rtol": 1e-5}
PYRAMID = {"0": 4, "1": 8, "2": 16, "3": 32}
KINDS = ("align", "align_detectron2", "align_original", "pool", "crop")


def pyramid(height: int, width: int, images: int = 2) -> dict[str, torch.Tensor]:
    return {name: torch.randn(images, 2, height // stride, width // stride) for name, stride in PYRAMID.items()}


def random_boxes(count: int, height: int, width: int) -> torch.Tensor:
    first = torch.rand(count, 2) * torch.tensor([width, height]) * 0.9
    return torch.cat([first, first + torch.rand(count, 2) * (torch.tensor([width, height]) - first)], dim=1)


def slow_crop(feature: torch.Tensor, rois: torch.Tensor, points: int, stride: int) -> torch.Tensor:
    """One sample after the other: bilinear between four cells, where a cell outside the map counts as 0."""
    channels, height, width = feature.shape[1:]
    out = torch.zeros(len(rois), channels, points, points)
    for r, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        for i in range(points):
            for j in range(points):
                x = x1 / stride + j * (x2 - x1) / stride / (points - 1)
                y = y1 / stride + i * (y2 - y1) / stride / (points - 1)
                for column in (math.floor(x), math.floor(x) + 1):
                    for row in (math.floor(y), math.floor(y) + 1):
                        if 0 <= column < width and 0 <= row < height:
                            weight = (1 - abs(x - column)) * (1 - abs(y - row))
                            out[r, :, i, j] += weight * feature[int(image), :, row, column]
    return out


@pytest.mark.parametrize("sampling_ratio", [2, 0])
def test_align_is_torchvisions_on_a_pyramid(sampling_ratio):
    torch.manual_seed(0)
    features, size = pyramid(512, 640), (512, 640)
    boxes = [torch.cat([random_boxes(30, *size), torch.tensor([[0.0, 0, side, side] for side in (20, 150, 300, 500)])]),
             random_boxes(7, *size)]
    pooled = RoiPooling("align", 7, PYRAMID, sampling_ratio).eval()(features, boxes, [size, size])
    expected = MultiScaleRoIAlign(list(PYRAMID), 7, sampling_ratio)(features, boxes, [size, size])
    assert pooled.shape == (41, 2, 7, 7)
    torch.testing.assert_close(pooled, expected, **TOLERANCE)
    in_training = RoiPooling("align", 7, PYRAMID, sampling_ratio).train()(features, boxes, [size, size])
    # Coordinates are rounded a second time, when they are moved to the pyramid map.
    torch.testing.assert_close(in_training, expected, atol=4e-4, rtol=1e-5)


@pytest.mark.parametrize("side, level", [(20, 0), (111, 0), (113, 1), (223, 1), (225, 2), (447, 2), (449, 3), (470, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_box_is_pooled_from_the_level_of_its_size(kind, side, level):
    """A box of 224 x 224 pixels belongs to stride 16; half or twice the side is the next level (FPN, eq. 1)."""
    features = {name: torch.full((1, 1, 512 // stride, 512 // stride), float(name)) for name, stride in PYRAMID.items()}
    pooled = RoiPooling(kind, 3, PYRAMID)(features, [torch.tensor([[4.0, 4, 4 + side, 4 + side]])], [(512, 512)])
    torch.testing.assert_close(pooled, torch.full((1, 1, 3, 3), float(level)))


def test_pool_is_torchvisions():
    torch.manual_seed(0)
    feature, boxes = torch.randn(3, 2, 8, 10), [random_boxes(n, 128, 160) for n in (4, 0, 6)]
    pooled = RoiPooling("pool", 7, {"0": 16})({"0": feature}, boxes, [(128, 160)] * 3)
    torch.testing.assert_close(pooled, roi_pool(feature, boxes, 7, 1 / 16))


@pytest.mark.parametrize("size, max_pool", [(7, False), (7, True), (3, False), (2, True)])
def test_crop_is_the_slow_loop(size, max_pool):
    """With max_pool: twice as many samples in each direction, then the largest of each 2 x 2."""
    torch.manual_seed(0)
    feature = torch.randn(2, 2, 5, 6)  # of an image 80 x 96
    boxes = [torch.tensor([[0.0, 0, 96, 80], [10, 20, 60, 33], [40, 5, 41, 6], [-20, -9, 30, 12], [70, 60, 130, 99]]),
             torch.tensor([[8.0, 8, 88, 72]])]
    rois = torch.cat([torch.tensor([[0.0]] * 5 + [[1.0]]), torch.cat(boxes)], dim=1)
    pooled = RoiPooling("crop", size, {"0": 16}, max_pool=max_pool)({"0": feature}, boxes, [(80, 96)] * 2)
    slow = slow_crop(feature, rois, 2 * size if max_pool else size, 16)
    if max_pool:
        slow = slow.reshape(6, 2, size, 2, size, 2).amax(dim=(3, 5))
    torch.testing.assert_close(pooled, slow, **TOLERANCE)


@pytest.mark.parametrize("height, width", [(1, 4), (4, 1), (1, 1)])
def test_crop_is_the_slow_loop_on_a_map_of_one_cell(height, width):
    """The highest level of a pyramid is such a map for an image no larger than its stride."""
    torch.manual_seed(0)
    feature = torch.randn(1, 2, height, width)
    rois = torch.tensor([[0.0, 0, 0, 16 * width, 16 * height], [0, 4, 4, 12, 12]])
    torch.testing.assert_close(crop(feature, rois, 3, 1 / 16), slow_crop(feature, rois, 3, 16), **TOLERANCE)


def test_crop_keeps_the_order_of_boxes_of_several_images():
    torch.manual_seed(0)
    feature = torch.randn(3, 2, 4, 4)
    rois = torch.tensor([[2.0, 0, 0, 40, 30], [0, 5, 5, 60, 60], [2, 10, 0, 20, 60], [1, 0, 0, 64, 64],
                         [0, 1, 2, 30, 40]])
    torch.testing.assert_close(crop(feature, rois, 5, 1 / 16), slow_crop(feature, rois, 5, 16), **TOLERANCE)


def slow_align_original(feature: torch.Tensor, rois: torch.Tensor, stride: int) -> torch.Tensor:
    """Number by number: 8 x 8 samples at the corners of 7 x 7 bins that span the box and one cell more, then the mean
    of the four corners of each bin."""
    channels, height, width = feature.shape[1:]
    out = torch.zeros(len(rois), channels, 7, 7, dtype=feature.dtype)
    for r, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        corner = torch.zeros(channels, 8, 8, dtype=feature.dtype)
        for i in range(8):
            for j in range(8):
                x = x1 / stride + j * (x2 / stride - x1 / stride + 1) / 7
                y = y1 / stride + i * (y2 / stride - y1 / stride + 1) / 7
                if not (0 <= x < width and 0 <= y < height):
                    continue
                left, top = min(math.floor(x), width - 2), min(math.floor(y), height - 2)
                cells = feature[int(image)]
                upper = (1 - (x - left)) * cells[:, top, left] + (x - left) * cells[:, top, left + 1]
                lower = (1 - (x - left)) * cells[:, top + 1, left] + (x - left) * cells[:, top + 1, left + 1]
                corner[:, i, j] = (1 - (y - top)) * upper + (y - top) * lower
        for i in range(7):
            for j in range(7):
                out[r, :, i, j] = (corner[:, i, j] + corner[:, i, j + 1] + corner[:, i + 1, j]
                                   + corner[:, i + 1, j + 1]) / 4
    return out


AT_THE_EDGES = [[0.0, 0, 96, 80], [10, 20, 60, 33], [40, 5, 41, 6], [-20, -9, 30, 12], [70, 60, 130, 99],
                [79, 63, 95, 79], [82, 66, 93, 77], [0, 0, 0, 0], [-40, -40, -30, -30], [200, 10, 210, 20]]


@pytest.mark.parametrize("height, width", [(5, 6), (2, 2), (2, 9), (38, 57)])
def test_align_original_is_the_slow_loop(height, width):
    torch.manual_seed(0)
    feature = torch.randn(2, 3, height, width)
    boxes = [torch.tensor(AT_THE_EDGES), random_boxes(40, 16 * height, 16 * width)]
    rois = torch.cat([torch.tensor([[0.0]] * len(boxes[0]) + [[1.0]] * 40), torch.cat(boxes)], dim=1)
    pooled = RoiPooling("align_original", 7, {"0": 16})({"0": feature}, boxes, [(16 * height, 16 * width)] * 2)
    torch.testing.assert_close(pooled, slow_align_original(feature, rois, 16), **TOLERANCE)
    assert pooled.abs().sum() > 0


def test_align_original_by_hand():
    """One row of four cells 0, 10, 20, 30 in a map of two equal rows, a box from 1.5 to 2.5 cells and one cell more:
    samples at 1.5, 1.5 + 2/7, ..., 3.5 are 15, 15 + 20/7, ..., 35: beyond the last centre the line goes on. Each bin is
    the mean of its two corners."""
    feature = torch.tensor([0.0, 10, 20, 30]).repeat(2, 1)[None, None]
    box = torch.tensor([[24.0, 0, 40, 8]])
    pooled = RoiPooling("align_original", 7, {"0": 16})({"0": feature}, [box], [(32, 64)])
    assert pooled[0, 0, 0].tolist() == pytest.approx([15 + (2 * j + 1) * 10 / 7 for j in range(7)], rel=1e-5)
    outside = RoiPooling("align_original", 7, {"0": 16})({"0": feature}, [torch.tensor([[64.0, 0, 80, 8]])], [(32, 64)])
    assert not outside.any(), "a sample at the right edge, x = W, is outside"


@pytest.mark.parametrize("height, width", [(1, 4), (4, 1), (1, 1)])
def test_align_original_on_a_map_of_one_cell_gives_that_cell(height, width):
    """There is no line through one cell: it is repeated."""
    feature = torch.full((1, 1, height, width), 3.0)
    rois = torch.tensor([[0.0, 0, 0, 8, 8]])
    samples = align_original(feature, rois, 8, 1 / 16)
    inside = torch.arange(8) * 1.5 / 7
    expected = 3.0 * (inside < height)[:, None] * (inside < width)[None, :]
    torch.testing.assert_close(samples[0, 0], expected)


def test_align_original_has_the_slow_loops_gradient():
    torch.manual_seed(0)
    feature = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = torch.cat([torch.zeros(len(AT_THE_EDGES), 1), torch.tensor(AT_THE_EDGES)], dim=1)
    weight = torch.randn(len(rois), 2, 7, 7)
    pooled = RoiPooling("align_original", 7, {"0": 16})({"0": feature}, [rois[:, 1:]], [(80, 96)])
    gradient, = torch.autograd.grad((pooled * weight).sum(), feature)
    expected, = torch.autograd.grad((slow_align_original(feature, rois, 16) * weight).sum(), feature)
    # A cell sums hundreds of products of N(0, 1) and bilinear weights, in float32: relative to the largest sum.
    torch.testing.assert_close(gradient, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)
    assert gradient.abs().sum() > 0


def test_align_detectron2_lies_half_a_cell_to_the_upper_left():
    """Whole cells: a box over cells 1 and 2 takes their values, where torchvision's align takes the means between."""
    feature = torch.tensor([0.0, 10, 20, 30, 40]).repeat(4, 1)[None, None]
    box = [torch.tensor([[16.0, 16, 48, 48]])]
    pooled = {kind: RoiPooling(kind, 2, {"0": 16}, sampling_ratio=1)({"0": feature}, box, [(64, 80)])[0, 0, 0].tolist()
              for kind in ("align", "align_detectron2")}
    assert pooled == {"align": [15, 25], "align_detectron2": [10, 20]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strides", [{"0": 16}, PYRAMID])
def test_each_image_is_pooled_from_its_own_map(kind, strides):
    """All images at once give the result of one image after the other, an image without boxes among them."""
    torch.manual_seed(0)
    pooling = RoiPooling(kind, 3, strides)
    features = {name: torch.randn(3, 2, 128 // stride, 160 // stride) for name, stride in strides.items()}
    boxes = [random_boxes(4, 128, 160), torch.zeros(0, 4), random_boxes(2, 128, 160)]
    batched = pooling(features, boxes, [(128, 160)] * 3)
    single = [pooling({name: level[i:i + 1] for name, level in features.items()}, [boxes[i]], [(128, 160)])
             for i in range(3)]
    torch.testing.assert_close(batched, torch.cat(single), **TOLERANCE)
    assert [len(part) for part in single] == [4, 0, 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strides", [{"0": 16}, PYRAMID])
def test_no_boxes_give_no_features_and_a_gradient_all_the_same(kind, strides):
    features = {name: torch.randn(2, 2, 64 // stride, 64 // stride, requires_grad=True)
                for name, stride in strides.items()}
    pooled = RoiPooling(kind, 7, strides)(features, [torch.zeros(0, 4)] * 2, [(64, 64)] * 2)
    assert pooled.shape == (0, 2, 7, 7)
    weight = torch.ones((), requires_grad=True)
    (weight * pooled).sum().backward()  # as the box head does
    assert weight.grad == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_does_not_depend_on_earlier_batches(kind):
    """torchvision infers the strides from the first batch and keeps them."""
    torch.manual_seed(0)
    image, boxes = (128, 160), [random_boxes(5, 128, 160)]
    features = pyramid(*image, images=1)
    used, fresh = RoiPooling(kind, 3, PYRAMID), RoiPooling(kind, 3, PYRAMID)
    small = {name: torch.randn(1, 2, 1, 1) for name in PYRAMID}  # maps whose size does not tell their stride
    used(small, [torch.tensor([[0.0, 0, 9, 9]])], [(9, 9)])
    assert torch.equal(used(features, boxes, [image]), fresh(features, boxes, [image]))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_features_and_not_the_boxes(kind):
    torch.manual_seed(0)
    feature = torch.randn(1, 2, 4, 4, requires_grad=True)
    boxes = torch.tensor([[3.0, 5, 50, 60]], requires_grad=True)
    RoiPooling(kind, 3, {"0": 16})({"0": feature}, [boxes], [(64, 64)]).sum().backward()
    assert feature.grad.abs().sum() > 0
    assert boxes.grad is None or not boxes.grad.any()


@pytest.mark.parametrize("kind", ["align_original", "crop"])
def test_pooling_of_one_level_does_not_wait_for_the_device(kind):
    feature, boxes = torch.randn(3, 2, 8, 10), [random_boxes(n, 128, 160) for n in (4, 0, 6)]
    with RefuseWaiting():
        pooled = RoiPooling(kind, 7, {"0": 16})({"0": feature}, boxes, [(128, 160)] * 3)
    assert pooled.shape == (10, 2, 7, 7)


@pytest.mark.parametrize("kind, sampling_ratio", [("align_detectron2", 2), ("align_detectron2", 0), ("align_original", 2), ("pool", 2),
                                                  ("crop", 2)])
def test_on_a_gpu_the_sum_of_all_levels_gives_each_box_its_own_level_without_waiting(kind, sampling_ratio):
    torch.manual_seed(0)
    pooling = RoiPooling(kind, 3, PYRAMID, sampling_ratio)
    features = pyramid(256, 320)
    levels, copies = ([(feature.clone().requires_grad_(), 1 / PYRAMID[name]) for name, feature in features.items()] for _ in range(2))
    boxes = [random_boxes(40, 256, 320), torch.tensor([[0.0, 0, 320, 256], [318, 254, 320, 256], [0, 0, 0, 0]])]
    rois = torch.cat([torch.tensor([[0.0]] * 40 + [[1.0]] * 3), torch.cat(boxes)], dim=1)
    level = torch.arange(43) % 4  # also boxes that do not fit their level
    with RefuseWaiting():
        pooled = pooling.sum_of_levels(levels, level, rois, [40, 3])
    expected = pooling.level_by_level(copies, level, rois)
    assert torch.equal(pooled, expected) and expected.any()
    weights = torch.randn_like(expected)
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    for (feature, _), (copy, _) in zip(levels, copies):
        torch.testing.assert_close(feature.grad, copy.grad, **TOLERANCE)
