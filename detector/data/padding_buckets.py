"""Canvases of few sizes, so that shapes repeat: what compiled code, CUDA graphs and cached workspaces are made for.

With batch.canvases=group every batch is padded to what the largest image of its aspect group needs (data/samplers.py).
An epoch then has at most as many shapes as there are groups, for each short side.
"""

from dataclasses import dataclass, field

import numpy as np

from detector.config.schema import Config
from detector.data.samplers import aspect_groups
from detector.structures import Side, resized_shapes


@dataclass(frozen=True)
class Canvases:
    """For each short side, height and width that each image is padded to at least: int64 [E, 2]. Empty: no least."""

    by_side: dict[int, np.ndarray] = field(default_factory=dict)

    def least(self, side: Side, indices: list[int]) -> tuple[int, int]:
        """Height and width, in pixels, of the smallest canvas that a batch of these images may have."""
        if not self.by_side:
            return 0, 0
        height, width = self.by_side[side.short][indices].max(axis=0)
        return int(height), int(width)


def plan_canvases(config: Config, sizes: np.ndarray, global_batch: int) -> Canvases:
    """Of a run, whose epochs are made of images of sizes [E, 2]: the same on every rank, at every world size."""
    if config.batch.canvases == "own":
        return Canvases()
    groups, multiple = aspect_groups(sizes, global_batch), config.model.canvas_multiple
    return Canvases({short: group_canvases(sizes, groups, Side(short, config.augment.long_side), multiple)
                     for short in config.augment.short_sides})


def group_canvases(sizes: np.ndarray, groups: np.ndarray, side: Side, multiple: int) -> np.ndarray:
    """The canvas of each image's group [E]: int64 [E, 2], multiples of `multiple`, no image of the group is larger."""
    shapes = resized_shapes(sizes, side)
    largest = np.zeros((groups.max() + 1, 2), np.int64)
    np.maximum.at(largest, groups, shapes)
    return (-(-largest // multiple) * multiple)[groups]
