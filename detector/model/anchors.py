"""The boxes that the RPN starts from: some of each level's sizes and ratios around every cell of its feature map."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from detector.config.model import Model
from detector.model.bodies import Parts
from detector.model.coding import on_device


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


def anchors_of(config: Model, parts: Parts) -> Anchors:
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


@lru_cache(maxsize=64)
def legacy_cell(sizes: tuple[float, ...], ratios: tuple[float, ...], stride: int) -> tuple[tuple[float, ...], ...]:
    """py-faster-rcnn's, with x2 and y2 the last pixel: the cell itself (0, 0, 15, 15 at stride 16), its sides rounded
    for each ratio, then multiplied by size / stride, around the cell's centre at 7.5.

    The list printed in the comment of its generate_anchors.py counts pixels from 1; its code gives one less.
    """
    centre, found = (stride - 1) / 2, []
    for ratio in ratios:
        width = round((stride * stride / ratio) ** 0.5)
        height = round(width * ratio)
        for size in sizes:
            right, down = (width * size / stride - 1) / 2, (height * size / stride - 1) / 2
            found.append((centre - right, centre - down, centre + right, centre + down))
    return tuple(found)
