"""The anchors of a config, without building its network: those of model/anchors.py, and where they lie on a canvas."""

from dataclasses import dataclass

import numpy as np
import torch

from detector.config.schema import Model
from detector.model.anchors import Anchors, anchors_of
from detector.model.bodies import build_body
from detector.model.coding import grown


@dataclass(frozen=True)
class AnchorPlan:
    """Anchors, and the body's cells on any canvas. `extent`: see model/coding.py; boxes given here are exclusive."""

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
        return [grown(torch.tensor(cell, dtype=torch.float64), self.extent).numpy()
                for cell in self.anchors.cells(strides)]

    def on_canvas(self, height: int, width: int) -> list[np.ndarray]:
        """All anchors of each level, float32 [A, 4], for a canvas of this size; some reach out of it."""
        cells = self.cells(height, width)
        grid = grown(self.anchors.grid(cells, (height, width), torch.zeros(1)), self.extent)
        counts = [rows * columns * each for (rows, columns), each in zip(cells, self.anchors.per_cell())]
        return [level.numpy() for level in grid.split(counts)]


def plan_anchors(config: Model) -> AnchorPlan:
    with torch.device("meta"):
        parts = build_body(config)
    return AnchorPlan(anchors_of(config, parts), parts.body.eval(), int(config.plus_one))
