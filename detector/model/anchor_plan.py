"""The anchors of a config, without building its network: sides, ratios, and where they lie on a canvas.

An anchor of side s and ratio r (height / width) has the area s x s; each cell of a level carries one for every side of
that level and every ratio, around the corner of the cell (torchvision's AnchorGenerator).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from detector.config.schema import Model
from detector.model.bodies import build_body


@dataclass(frozen=True)
class AnchorPlan:
    """Sides in pixels for each level of the RPN, ratios, and the body's cells on any canvas."""

    sides: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]
    body: torch.nn.Module  # on the meta device: it knows shapes, and computes nothing

    def generator(self) -> AnchorGenerator:
        return AnchorGenerator(self.sides, (self.ratios,) * len(self.sides))

    def cells(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of each level on a canvas of this size."""
        features = self.body(torch.zeros((1, 3, height, width), device="meta"))
        return [tuple(level.shape[-2:]) for level in features.values()]

    def on_canvas(self, height: int, width: int) -> list[np.ndarray]:
        """All anchors of each level, float32 [A, 4], for a canvas of this size; some reach out of it."""
        cells = self.cells(height, width)
        features = [torch.zeros((1, 1, *level)) for level in cells]
        anchors = self.generator()(ImageList(torch.zeros((1, 3, height, width)), [(height, width)]), features)[0]
        counts = [rows * columns * len(sides) * len(self.ratios) for (rows, columns), sides in zip(cells, self.sides)]
        return [level.numpy() for level in anchors.split(counts)]


def plan_anchors(config: Model) -> AnchorPlan:
    """What `model.anchor_sizes` and `model.anchor_ratios` say; where they say nothing, the usual ones of the body."""
    with torch.device("meta"):
        parts = build_body(config)
    sides = config.anchor_sizes or parts.anchor_sizes
    sides = sides * len(parts.anchor_sizes) if len(sides) == 1 else sides
    return AnchorPlan(tuple(tuple(float(side) for side in level) for level in sides), tuple(config.anchor_ratios),
                      parts.body.eval())
