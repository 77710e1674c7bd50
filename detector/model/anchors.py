"""Anchors: boxes of each level's sizes and ratios around every cell of its feature map."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from detector.config.model_schema import Model
from detector.model.backbones import check_backbone
from detector.model.box_coder import BoxCoder, build_box_coder
from detector.model.precision import numbers_to_device
from detector.py_faster_rcnn.anchors import legacy_cell_anchors


@dataclass(frozen=True)
class Anchors:
    """The anchors of all levels; A = len(sizes of a level) * len(ratios) at each cell, the ratio changing slowest.

    sizes: sides in pixels, a tuple for each level. ratios: height / width, the same at every level. stride: pixels
    between the cells of a single level; 0: computed from the padded size of the batch. legacy: py-faster-rcnn's
    anchors.
    """

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]
    legacy: bool = False
    stride: int = 0

    def num_anchors_per_location(self) -> list[int]:
        """Returns A for each level."""
        return [len(sizes) * len(self.ratios) for sizes in self.sizes]

    def cell_anchors(self, strides: list[int]) -> list[tuple[tuple[float, ...], ...]]:
        """Returns the anchors of the first cell of each level, in pixels."""
        cell = legacy_cell_anchors if self.legacy else centered_cell_anchors
        return [cell(sizes, self.ratios, stride) for sizes, stride in zip(self.sizes, strides, strict=True)]

    def strides(self, grid_sizes: list[tuple[int, int]], padded_size: tuple[int, int]) -> list[tuple[int, int]]:
        """Returns the pixels from row to row and from column to column of each level.

        A level's stride is the padded size over the map's size, in whole pixels, as in torchvision. A backbone whose
        map ends with a part of a cell has a single level, and states the stride.

        Args:
            grid_sizes: (rows, columns) of each level's feature map.
            padded_size: (height, width) of the batch.
        """
        return [(self.stride or padded_size[0] // height, self.stride or padded_size[1] // width)
                for height, width in grid_sizes]

    def grid(self, grid_sizes: list[tuple[int, int]], padded_size: tuple[int, int], like: Tensor) -> Tensor:
        """Returns all anchors float32 [N, 4] on the device of `like`: by level, row, column, anchor of the cell.

        Arguments as of `strides`.
        """
        strides = self.strides(grid_sizes, padded_size)
        cells, levels = self.cell_anchors([down for down, _ in strides]), []
        for cell, (height, width), (down, right) in zip(cells, grid_sizes, strides):
            y = torch.arange(height, device=like.device, dtype=torch.float32)[:, None] * down
            x = torch.arange(width, device=like.device, dtype=torch.float32)[None] * right
            x, y = torch.broadcast_tensors(x, y)
            corners = torch.stack([x, y, x, y], dim=-1)[:, :, None]  # [height, width, 1, 4]
            levels.append((corners + numbers_to_device(cell, like)).reshape(-1, 4))
        return torch.cat(levels)

    def torchvision_generator(self) -> AnchorGenerator:
        """Returns torchvision's generator of the same anchors; it knows neither legacy anchors nor a stated stride."""
        return AnchorGenerator(self.sizes, (self.ratios,) * len(self.sizes))


def build_anchors(config: Model) -> Anchors:
    """Returns the anchors of model.anchor_sizes, or the usual ones of the backbone, and of model.anchor_ratios."""
    backbone = check_backbone(config)
    levels = len(backbone.anchor_sizes)
    sizes = config.anchor_sizes or backbone.anchor_sizes
    if len(sizes) == 1:  # one list is for every level
        sizes = sizes * levels
    stride = next(iter(backbone.strides.values())) if levels == 1 else 0
    return Anchors(tuple(map(tuple, sizes)), tuple(config.anchor_ratios), config.legacy_anchors, stride)


@lru_cache(maxsize=64)
def centered_cell_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...],
                          stride: int) -> tuple[tuple[float, ...], ...]:
    """Returns anchors around the corner of the cell, rounded to whole pixels, as torchvision's AnchorGenerator does."""
    halves = [(size / ratio ** 0.5 / 2, size * ratio ** 0.5 / 2) for ratio in ratios for size in sizes]
    return tuple((round(-w), round(-h), round(w), round(h)) for w, h in halves)


@dataclass(frozen=True)
class AnchorPlan:
    """The anchors of a model for a batch of any size, computed without running it.

    Returned boxes are exclusive (width = x2 - x1).
    """

    anchors: Anchors
    backbone: torch.nn.Module  # on the meta device: gives shapes and computes nothing
    box_coder: BoxCoder

    def grid_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Returns the (rows, columns) of each level for a batch of this padded size."""
        features = self.backbone(torch.zeros((1, 3, height, width), device="meta"))
        return [tuple(level.shape[-2:]) for level in features.values()]

    def size_ratio_pairs(self) -> list[list[tuple[float, float]]]:
        """Returns the (size, ratio) of each anchor of a cell, for each level."""
        return [[(size, ratio) for ratio in self.anchors.ratios for size in sizes] for sizes in self.anchors.sizes]

    def cell_anchors(self, strides: list[int]) -> list[np.ndarray]:
        """Returns the anchors of each level's first cell, float64 [A, 4]."""
        return [self.box_coder.to_exclusive(torch.tensor(cell, dtype=torch.float64)).numpy()
                for cell in self.anchors.cell_anchors(strides)]

    def all_anchors(self, height: int, width: int) -> list[np.ndarray]:
        """Returns all anchors of each level, float32 [N, 4], including those that cross the image border.

        Args:
            height, width: padded size of the batch.
        """
        grid_sizes = self.grid_sizes(height, width)
        grid = self.box_coder.to_exclusive(self.anchors.grid(grid_sizes, (height, width), torch.zeros(1)))
        counts = [rows * columns * each
                  for (rows, columns), each in zip(grid_sizes, self.anchors.num_anchors_per_location())]
        return [level.numpy() for level in grid.split(counts)]


def plan_anchors(config: Model) -> AnchorPlan:
    """Returns the anchors of the model that a config describes. Raises BadInput if its backbone does not exist."""
    anchors = build_anchors(config)
    with torch.device("meta"):
        backbone = check_backbone(config).build(config).backbone
    return AnchorPlan(anchors, backbone.eval(), build_box_coder(config))
