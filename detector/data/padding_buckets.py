"""Canvases of few sizes, so that shapes repeat: what compiled code, CUDA graphs and cached workspaces are made for.

With batch.pad_to=group every batch is padded to what the largest image of its aspect group needs (data/samplers.py).
An epoch then has at most as many shapes as there are groups, for each short side.
"""

from dataclasses import dataclass, field

import numpy as np

from detector.config.schema import Config
from detector.data.samplers import aspect_groups
from detector.structures import Resize, resized_sizes


@dataclass(frozen=True)
class PaddingBuckets:
    """For each short side, height and width that each image is padded to at least: int64 [E, 2]. Empty: no least."""

    by_side: dict[int, np.ndarray] = field(default_factory=dict)

    def least(self, side: Resize, indices: list[int]) -> tuple[int, int]:
        """Height and width, in pixels, of the smallest canvas that a batch of these images may have."""
        if not self.by_side:
            return 0, 0
        height, width = self.by_side[side.min_size][indices].max(axis=0)
        return int(height), int(width)


def plan_padding_buckets(config: Config, sizes: np.ndarray, global_batch: int) -> PaddingBuckets:
    """Of a run, whose epochs are made of images of sizes [E, 2]: the same on every rank, at every world size."""
    if config.batch.pad_to == "batch":
        return PaddingBuckets()
    groups, multiple = aspect_groups(sizes, global_batch), config.model.size_divisor
    return PaddingBuckets({short: group_canvases(sizes, groups, Resize(short, config.augment.max_size), multiple)
                     for short in config.augment.min_size})


def group_canvases(sizes: np.ndarray, groups: np.ndarray, side: Resize, multiple: int) -> np.ndarray:
    """The canvas of each image's group [E]: int64 [E, 2], multiples of `multiple`, no image of the group is larger."""
    shapes = resized_sizes(sizes, side)
    largest = np.zeros((groups.max() + 1, 2), np.int64)
    np.maximum.at(largest, groups, shapes)
    return (-(-largest // multiple) * multiple)[groups]
