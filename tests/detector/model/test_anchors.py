"""Anchors: torchvision's, or py-faster-rcnn's in whole pixels."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from detector.config.model_schema import Model
from detector.model.anchors import Anchors, build_anchors

RATIOS = (0.5, 1.0, 2.0)


@pytest.mark.parametrize("sizes", [((32,), (64,), (128,)), ((16, 32), (64, 100), (200, 333)), ((7.5, 31),) * 3])
def test_the_grid_is_torchvisions(sizes):
    grid_sizes, padded_size = [(24, 32), (12, 16), (6, 8)], (96, 128)
    generator = AnchorGenerator(sizes, (RATIOS,) * 3)
    features = [torch.zeros(1, 1, *shape) for shape in grid_sizes]
    expected = generator(ImageList(torch.zeros(1, 3, *padded_size), [padded_size]), features)[0]
    anchors = Anchors(sizes, RATIOS)
    assert torch.equal(anchors.grid(grid_sizes, padded_size, features[0]), expected)
    assert anchors.num_anchors_per_location() == generator.num_anchors_per_location()


def slow_legacy_anchors(sizes: list[float], stride: int) -> list[list[float]]:
    """generate_anchors.py of py-faster-rcnn: the inclusive box (0, 0, 15, 15), sides rounded for each ratio, scaled."""
    anchors = []
    for ratio in RATIOS:
        width = round((stride ** 2 / ratio) ** 0.5)
        height = round(width * ratio)
        for scale in (size / stride for size in sizes):
            w, h = width * scale, height * scale
            centre = (stride - 1) / 2
            box = [centre - (w - 1) / 2, centre - (h - 1) / 2, centre + (w - 1) / 2, centre + (h - 1) / 2]
            assert box[2] - box[0] + 1 == w and box[3] - box[1] + 1 == h
            anchors.append(box)
    return anchors


def test_legacy_anchors_of_voc_by_hand():
    """Base sides 23 x 12, 16 x 16 and 11 x 22 around (7.5, 7.5), times 8, 16, 32: ratio first, then scale."""
    cell = Anchors(((128, 256, 512),), RATIOS, legacy=True).cell_anchors([16])[0]
    assert [list(box) for box in cell] == slow_legacy_anchors([128, 256, 512], 16)
    assert [(x2 - x1 + 1, y2 - y1 + 1) for x1, y1, x2, y2 in cell] == [
        (184, 96), (368, 192), (736, 384), (128, 128), (256, 256), (512, 512), (88, 176), (176, 352), (352, 704)]
    assert {((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in cell} == {(7.5, 7.5)}
    assert cell[0] == (-84, -40, 99, 55)  # the comment in its source counts from 1: -83 -39 100 56


def test_legacy_anchors_move_by_whole_strides():
    grid = Anchors(((64, 128, 256, 512),), RATIOS, legacy=True).grid([(2, 3)], (32, 48), torch.zeros(1))
    cell = torch.tensor(slow_legacy_anchors([64, 128, 256, 512], 16))
    slow = [cell + torch.tensor([16 * x, 16 * y] * 2) for y in range(2) for x in range(3)]
    assert len(cell) == 12 and torch.equal(grid, torch.cat(slow))


def test_a_single_level_states_its_stride_and_a_pyramid_computes_them():
    """600 x 1000 pixels of stride 16 are 37.5 x 62.5 cells; VGG16 drops the last part of a cell, a ResNet keeps it."""
    single = build_anchors(Model(backbone="vgg16"))
    assert single.strides([(37, 62)], (600, 1000)) == single.strides([(38, 63)], (600, 1000)) == [(16, 16)]
    assert build_anchors(Model(backbone="resnet50_fpn")).strides([(24, 32), (12, 16)], (96, 128)) == [(4, 4), (8, 8)]
