"""Few distinct padded batch sizes, so that tensor shapes repeat for torch.compile, CUDA graphs and cuDNN.

With batch.pad_to=group every batch is padded to the largest image of its aspect-ratio group (data/samplers.py). With
shuffled groups, an epoch then has at most as many shapes as there are groups, for each value of augment.min_size.
"""

from dataclasses import dataclass, field

import numpy as np

from detector.config.schema import Config
from detector.data.samplers import aspect_groups
from detector.structures import Resize, resized_sizes, round_up


@dataclass(frozen=True)
class PaddingBuckets:
    """The least padded size of a batch that holds an image, for each image and each short side.

    by_min_size: value of augment.min_size -> int64 [E, 2], height and width in pixels. Empty: batches are padded to
    their own largest image only.
    """

    by_min_size: dict[int, np.ndarray] = field(default_factory=dict)

    def min_padded_size(self, resize: Resize, indices: list[int]) -> tuple[int, int]:
        """Returns the least (height, width), in pixels, that a batch of these images is padded to; (0, 0): none."""
        if not self.by_min_size:
            return 0, 0
        height, width = self.by_min_size[resize.min_size][indices].max(axis=0)
        return int(height), int(width)


def plan_padding_buckets(config: Config, sizes: np.ndarray, global_batch: int) -> PaddingBuckets:
    """Returns the padded sizes of a run; they are equal on every rank and at every world size.

    Args:
        sizes: int32 [E, 2], height and width of the images of an epoch (`epoch_sizes`).
        global_batch: images per optimizer step, over all ranks.
    """
    if config.batch.pad_to == "batch":
        return PaddingBuckets()
    groups, divisor = aspect_groups(sizes, global_batch), config.model.size_divisor
    return PaddingBuckets({
        min_size: group_padded_sizes(sizes, groups, Resize(min_size, config.augment.max_size), divisor)
        for min_size in config.augment.min_size})


def group_padded_sizes(sizes: np.ndarray, groups: np.ndarray, resize: Resize, divisor: int) -> np.ndarray:
    """Returns the size of the largest resized image of each image's group, rounded up to `divisor`: int64 [E, 2].

    Args:
        sizes: int32 [E, 2], height and width.
        groups: int64 [E], the aspect-ratio group of each image.
    """
    largest = np.zeros((groups.max() + 1, 2), np.int64)
    np.maximum.at(largest, groups, resized_sizes(sizes, resize))
    return round_up(largest, divisor)[groups]
