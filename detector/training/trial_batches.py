"""The batches that a trial tries: those of a run that need most memory, and the median one, for the time.

The memory of a forward pass grows with the pixels of its padded images. The overlaps of anchors and objects grow with
pixels times objects: of the image with most objects, as all are padded to it. Which of the two weighs more depends on
the model, so the largest batch by each, and by a sum of both, is tried.
"""

from dataclasses import dataclass

import numpy as np

from detector.config.schema import Config
from detector.data.padding_buckets import plan_padding_buckets
from detector.data.samplers import epoch_sizes, micro_batches, plan_epoch, plan_eval_batches
from detector.py_faster_rcnn.static_chunks import chunk_ratios
from detector.structures import Dataset, Resize, ceil_div, resized_sizes, round_up
from detector.training.schedule import RunPlan
from detector.training.step import draw_resize

OBJECTS_LIKE_FORWARD = 1000  # objects of an image whose overlaps take about as much memory as the forward pass


@dataclass(frozen=True)
class PaddedBatch:
    """One micro-batch of one step."""

    step: int
    min_size: int                      # short side that the images of this step are resized to
    keys: tuple[tuple[int, int], ...]  # (epoch, index) of the images
    height: int                        # of the padded images
    width: int
    objects: int                       # of the image with most objects


@dataclass(frozen=True)
class TrialBatches:
    """The batches of a trial. Two of them may be the same."""

    largest: PaddedBatch         # most pixels
    most_objects: PaddedBatch    # most pixels times objects
    both: PaddedBatch            # most of the sum of both
    median: PaddedBatch          # by pixels

    @property
    def heaviest(self) -> list[PaddedBatch]:
        """The different batches of which one needs most memory."""
        return list(dict.fromkeys([self.largest, self.most_objects, self.both]))


def plan_trial(config: Config, data: Dataset, plan: RunPlan) -> TrialBatches:
    """Returns the batches to try, of all micro-batches of the run."""
    sizes, min_sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies), config.augment.min_size
    objects = np.resize(data.boxes_per_image(), len(sizes))  # of the mirrored copies, too
    if config.augment.max_boxes:
        objects = np.minimum(objects, config.augment.max_boxes)
    resized = np.stack([train_sizes(config, sizes, plan.global_batch, min_size) for min_size in min_sizes])
    by_min_size = plan_padding_buckets(config, sizes, plan.global_batch).by_min_size
    buckets = np.stack([by_min_size[min_size] for min_size in min_sizes]) if by_min_size else None
    drawn = draw_min_sizes(config, plan)
    pixels, most_objects, batches = [], [], []
    for epoch in range(ceil_div(plan.total_steps, plan.steps_per_epoch)):
        steps = np.arange(epoch * plan.steps_per_epoch, min((epoch + 1) * plan.steps_per_epoch, plan.total_steps))
        rows = plan_epoch(config.seed, epoch, sizes, plan.global_batch, config.batch.aspect_ratio_groups,
                          plan.repeat_factors)[:len(steps)]
        scale = drawn[steps][:, None]  # [steps, 1]
        for columns in micro_batches(plan.global_batch, config.batch.micro_batch_size, 0, 1):
            indices = rows[:, columns]  # [steps, micro-batch size]
            padded = round_up(resized[scale, indices].max(axis=1), config.model.size_divisor)  # [steps, 2]
            if buckets is not None:
                padded = np.maximum(padded, buckets[scale, indices].max(axis=1))
            pixels.append(padded.prod(axis=1) * len(columns))
            most_objects.append(objects[indices].max(axis=1))
            batches += [(int(step), indices[row], padded[row]) for row, step in enumerate(steps)]
    areas, counts = np.concatenate(pixels), np.concatenate(most_objects)

    def padded_batch(number: int) -> PaddedBatch:
        step, indices, (height, width) = batches[number]
        keys = tuple((step // plan.steps_per_epoch, int(index)) for index in indices)
        return PaddedBatch(step, min_sizes[drawn[step]], keys, int(height), int(width), int(counts[number]))
    return TrialBatches(*(padded_batch(int(number)) for number in (
        *heaviest(areas, counts), np.argsort(areas, kind="stable")[len(areas) // 2])))


def heaviest(areas: np.ndarray, counts: np.ndarray) -> tuple[int, int, int]:
    """Returns the positions of the batch with most pixels, most pixels times objects, and most of the sum of both.

    Args:
        areas: int64 [B], pixels of all padded images of each batch.
        counts: int64 [B], objects of the image with most objects.
    """
    return (int(np.lexsort((counts, areas))[-1]), int(np.lexsort((areas, areas * counts))[-1]),
            int(np.argmax(areas * (counts + OBJECTS_LIKE_FORWARD))))


def plan_eval_trial(config: Config, data: Dataset) -> list[np.ndarray]:
    """Returns the different batches of an evaluation that may need most memory, as indices of images."""
    resized = resized_sizes(data.sizes, Resize(config.evaluate.min_size, config.evaluate.max_size))
    batches = plan_eval_batches(data.sizes, config.evaluate.batch_size)
    areas = np.array([round_up(resized[batch].max(axis=0), config.model.size_divisor).prod() * len(batch)
                      for batch in batches])
    counts = np.array([data.boxes_per_image()[batch].max() for batch in batches])
    return [batches[number] for number in dict.fromkeys(heaviest(areas, counts))]


def draw_min_sizes(config: Config, plan: RunPlan) -> np.ndarray:
    """Returns the position in augment.min_size that each step draws, int64 [steps]."""
    min_sizes = config.augment.min_size
    if len(min_sizes) == 1:
        return np.zeros(plan.total_steps, np.int64)
    return np.array([min_sizes.index(draw_resize(config, step).min_size) for step in range(plan.total_steps)], np.int64)


def train_sizes(config: Config, sizes: np.ndarray, global_batch: int, min_size: int) -> np.ndarray:
    """Returns (height, width) of each resized image, int64 [E, 2]; with batch.crop_to_group that of its crop frame."""
    resized = resized_sizes(sizes, Resize(min_size, config.augment.max_size))
    if not config.batch.crop_to_group:
        return resized
    ratios, short = np.nan_to_num(chunk_ratios(sizes, global_batch), nan=1.0), resized.min(axis=1)
    tall = np.stack([np.maximum(np.ceil(resized[:, 1] / ratios), resized[:, 0]), resized[:, 1]], axis=1)
    wide = np.stack([resized[:, 0], np.maximum(np.ceil(resized[:, 0] * ratios), resized[:, 1])], axis=1)
    square = np.stack([short, short], axis=1)
    return np.where((ratios == 1)[:, None], square, np.where((ratios < 1)[:, None], tall, wide)).astype(np.int64)
