"""The boxes that the RPN starts from: some of each level's sizes and ratios around every cell of its feature map."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from detector.config.model_schema import Model
from detector.model.backbones import BackboneParts, build_backbone
from detector.model.box_coder import on_device, to_exclusive
from detector.py_faster_rcnn.anchors import legacy_cell


@dataclass(frozen=True)
class Anchors:
    """sizes: sides in pixels, a tuple for each level; ratios: height / width, the same ones at every level.

    A = len(sizes of a level) * len(ratios) anchors a cell, the ratio changing slowest.
    """

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]
    legacy: bool = False
    stride: int = 0  # of the only level, pixels; 0: what the canvas is over the map

    def per_cell(self) -> list[int]:
        return [len(sizes) * len(self.ratios) for sizes in self.sizes]

    def cells(self, strides: list[int]) -> list[tuple[tuple[float, ...], ...]]:
        """The anchors of the first cell of each level, in pixels."""
        kind = legacy_cell if self.legacy else centred_cell
        return [kind(sizes, self.ratios, stride) for sizes, stride in zip(self.sizes, strides, strict=True)]

    def strides(self, shapes: list[tuple[int, int]], canvas: tuple[int, int]) -> list[tuple[int, int]]:
        """Pixels from row to row and from column to column, for feature maps of these (height, width).

        A level's stride is the canvas over the map, whole pixels, as in torchvision; where a map ends with a part of a
        cell, it has to be stated.
        """
        return [(self.stride or canvas[0] // height, self.stride or canvas[1] // width) for height, width in shapes]

    def grid(self, shapes: list[tuple[int, int]], canvas: tuple[int, int], like: Tensor) -> Tensor:
        """All anchors float32 [N, 4] on feature maps of these (height, width): level, row, column, anchor."""
        strides = self.strides(shapes, canvas)
        levels = []
        for cell, (height, width), (down, right) in zip(self.cells([d for d, _ in strides]), shapes, strides):
            y = torch.arange(height, device=like.device, dtype=torch.float32)[:, None] * down
            x = torch.arange(width, device=like.device, dtype=torch.float32)[None] * right
            x, y = torch.broadcast_tensors(x, y)
            corners = torch.stack([x, y, x, y], dim=-1)[:, :, None]  # [height, width, 1, 4]
            levels.append((corners + on_device(cell, like)).reshape(-1, 4))
        return torch.cat(levels)

    def generator(self) -> AnchorGenerator:
        """torchvision's own, of the same sides and ratios: legacy anchors and a stated stride it does not know."""
        return AnchorGenerator(self.sizes, (self.ratios,) * len(self.sizes))


def anchors_of(config: Model, parts: BackboneParts) -> Anchors:
    """What `model.anchor_sizes` and `model.anchor_ratios` say; where they say nothing, the usual ones of the body."""
    sizes = config.anchor_sizes or parts.anchor_sizes
    if len(sizes) == 1:  # one list is for every level
        sizes = sizes * len(parts.anchor_sizes)
    stride = parts.strides["0"] if len(parts.anchor_sizes) == 1 else 0
    return Anchors(tuple(map(tuple, sizes)), tuple(config.anchor_ratios), config.legacy_anchors, stride)


@lru_cache(maxsize=64)
def centred_cell(sizes: tuple[float, ...], ratios: tuple[float, ...], stride: int) -> tuple[tuple[float, ...], ...]:
    """Around the corner of the cell, rounded to whole pixels, as torchvision's AnchorGenerator has them."""
    halves = [(size / ratio ** 0.5 / 2, size * ratio ** 0.5 / 2) for ratio in ratios for size in sizes]
    return tuple((round(-w), round(-h), round(w), round(h)) for w, h in halves)


@dataclass(frozen=True)
class AnchorPlan:
    """Anchors, and the body's cells on any canvas. `extent`: see model/box_coder.py; boxes given here are exclusive."""

    anchors: Anchors
    body: torch.nn.Module  # on the meta device: it knows shapes, and computes nothing
    extent: int = 0

    def cells(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of each level on a canvas of this size."""
        features = self.body(torch.zeros((1, 3, height, width), device="meta"))
        return [tuple(level.shape[-2:]) for level in features.values()]

    def shapes(self) -> list[list[tuple[float, float]]]:
        """(side, ratio) of the anchors of a cell, for each level."""
        return [[(side, ratio) for ratio in self.anchors.ratios for side in sides] for sides in self.anchors.sizes]

    def first_cells(self, strides: list[int]) -> list[np.ndarray]:
        """The anchors float64 [A, 4] of each level's first cell."""
        return [to_exclusive(torch.tensor(cell, dtype=torch.float64), self.extent).numpy()
                for cell in self.anchors.cells(strides)]

    def on_canvas(self, height: int, width: int) -> list[np.ndarray]:
        """All anchors of each level, float32 [A, 4], for a canvas of this size; some reach out of it."""
        cells = self.cells(height, width)
        grid = to_exclusive(self.anchors.grid(cells, (height, width), torch.zeros(1)), self.extent)
        counts = [rows * columns * each for (rows, columns), each in zip(cells, self.anchors.per_cell())]
        return [level.numpy() for level in grid.split(counts)]


def plan_anchors(config: Model) -> AnchorPlan:
    with torch.device("meta"):
        parts = build_backbone(config)
    return AnchorPlan(anchors_of(config, parts), parts.body.eval(), int(config.inclusive_boxes))
