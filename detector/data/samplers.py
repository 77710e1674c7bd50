"""Which images make up which step: pure functions of (seed, epoch, sizes, batch size), equal on every rank.

An aspect-ratio group is the set of images whose height / width lies in one range. Every step takes all its images from
one group, on all ranks, so that little is padded and no rank waits for a larger batch of another one.
"""

import math
from typing import Iterator

import numpy as np

from detector.py_faster_rcnn.static_chunks import chunk_indices
from detector.seeding import derive_seed, random_order
from detector.structures import ceil_div

ASPECT_RATIO_EDGES = 2.0 ** np.array([-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1])  # height / width; below 1: landscape


def aspect_groups(sizes: np.ndarray, global_batch: int) -> np.ndarray:
    """Returns the aspect-ratio group of each image.

    The groups are a partition of the images: first {images with height / width <= 1/2}, then one set between each two
    edges, last {images with height / width > 2}. A set with fewer images than one batch is merged with a neighbour, so
    that no image occurs more often than once in a batch.

    Args:
        sizes: int32 [I, 2], height and width of each image in pixels.
        global_batch: images per optimizer step, over all ranks.

    Returns:
        int64 [I], numbers of the groups from 0.
    """
    ranges = np.searchsorted(ASPECT_RATIO_EDGES, sizes[:, 0] / np.maximum(sizes[:, 1], 1), side="left")
    counts = np.bincount(ranges, minlength=len(ASPECT_RATIO_EDGES) + 1)
    group_of_range, group, collected = np.zeros(len(counts), np.int64), 0, 0
    for index, count in enumerate(counts):
        group_of_range[index] = group
        collected += count
        if collected >= global_batch and counts[index + 1:].sum() >= global_batch:
            group, collected = group + 1, 0
    return group_of_range[ranges]


def epoch_sizes(sizes: np.ndarray, mirrored_copies: bool) -> np.ndarray:
    """Returns the sizes of the entries of an epoch: the images [I, 2], then their mirrored copies if there are any.

    In a key (epoch, index) an index from I on is the mirrored copy of image index - I.
    """
    return np.concatenate([sizes, sizes]) if mirrored_copies else sizes


def steps_per_epoch(sizes: np.ndarray, global_batch: int, aspect_ratio_groups: str = "shuffled",
                    repeat_factors: np.ndarray | None = None) -> int:
    """Returns the number of steps of an epoch; it is the same for all epochs."""
    if aspect_ratio_groups == "static":
        return len(sizes) // global_batch
    return sum(steps_per_group(aspect_groups(sizes, global_batch), global_batch, repeat_factors))


def steps_per_group(groups: np.ndarray, global_batch: int, repeat_factors: np.ndarray | None) -> list[int]:
    """Returns the steps of an epoch that take their images from each group, 0 for a group without images.

    Args:
        groups: int64 [E], the group of each entry.
        repeat_factors: see `plan_epoch`. Their sum is exact, so that it does not depend on an order.
    """
    if repeat_factors is None:
        return [ceil_div(int(count), global_batch) for count in np.bincount(groups)]
    return [math.ceil(math.fsum(repeat_factors[groups == group]) / global_batch)
            for group in range(len(np.bincount(groups)))]


def plan_epoch(seed: int, epoch: int, sizes: np.ndarray, global_batch: int, aspect_ratio_groups: str = "shuffled",
               repeat_factors: np.ndarray | None = None) -> np.ndarray:
    """Returns the image indices of every step of one epoch.

    The plan depends on the arguments alone: every rank computes the same one, and resuming is a slice of it.

    Args:
        sizes: int32 [E, 2], height and width of each entry in pixels, see `epoch_sizes`.
        global_batch: images per optimizer step, over all ranks.
        aspect_ratio_groups: shuffled: batches are drawn anew in each epoch, and every image occurs at least once, as
            each group is filled up to whole batches with images of its own. static: the chunks of
            py_faster_rcnn/static_chunks.py, in another order in each epoch.
        repeat_factors: float64 [E], how often each entry is drawn on average, see `repeated_batches`; shuffled only.
            None: once.

    Returns:
        int64 [steps, global_batch], indices into `sizes`.
    """
    plan = chunk_indices(sizes, global_batch) if aspect_ratio_groups == "static" else \
        shuffled_batches(seed, epoch, sizes, global_batch, repeat_factors)
    return plan[random_order(derive_seed(seed, "steps", epoch), len(plan))]


def shuffled_batches(seed: int, epoch: int, sizes: np.ndarray, global_batch: int,
                     repeat_factors: np.ndarray | None = None) -> np.ndarray:
    """Returns the batches of one group after the other, shuffled inside each: int64 [steps, global_batch]."""
    groups = aspect_groups(sizes, global_batch)
    order = random_order(derive_seed(seed, "epoch", epoch), len(sizes))
    order = order[np.argsort(groups[order], kind="stable")]
    batches, first = [], 0
    steps = steps_per_group(groups, global_batch, repeat_factors)
    for group, count in enumerate(np.bincount(groups)):
        members = order[first:first + count]
        first += count
        if count and repeat_factors is None:
            batches.append(np.resize(members, steps[group] * global_batch).reshape(-1, global_batch))
        elif count:
            fraction = (derive_seed(seed, "repeats", epoch, group) >> 31) / 2**32
            batches.append(repeated_batches(members, repeat_factors[members], steps[group], global_batch, fraction))
    return np.concatenate([np.zeros((0, global_batch), np.int64), *batches])


def repeated_batches(members: np.ndarray, factors: np.ndarray, steps: int, global_batch: int,
                     fraction: float) -> np.ndarray:
    """Returns the batches of one group, in which images are repeated: int64 [steps, global_batch].

    All epochs have the same number of draws, steps * global_batch, and the factors are scaled up to that sum. An image
    with the scaled factor k + p is drawn k times, and once more with probability p. Which ones, the epoch's random
    number decides for all (systematic sampling): those at which the sum of p plus `fraction` passes an integer. The
    draws of an image are in different batches if these are enough.

    Args:
        members: int64 [M], the images of the group in random order.
        factors: float64 [M], how often each is drawn on average, 1 or more; at most steps * global_batch in all.
        fraction: the random number of the epoch, 0 <= fraction < 1.
    """
    draws = steps * global_batch
    factors = factors * max(draws / math.fsum(factors), 1)
    counts = factors.astype(np.int64)
    sums, rest = np.cumsum(factors - counts), draws - int(counts.sum())
    if rest:
        sums *= rest / sums[-1]
        sums[-1] = rest  # without a rounding error
        counts += np.diff(np.floor(sums + fraction), prepend=0).astype(np.int64)
    return np.repeat(members, counts).reshape(global_batch, steps).T


def number_draws(plan: np.ndarray) -> np.ndarray:
    """Returns how often the epoch has drawn the entry of each place of a plan before: int64 [steps, global_batch]."""
    entries = plan.ravel()
    order = np.argsort(entries, kind="stable")
    is_first = np.diff(entries[order], prepend=-1) != 0
    numbers = np.empty(len(entries), np.int64)
    numbers[order] = np.arange(len(entries)) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    return numbers.reshape(plan.shape)


def rank_part(count: int, rank: int, world_size: int) -> range:
    """Returns the items of one rank, of `count` items; the parts of two ranks differ in length by one at most."""
    return range(count * rank // world_size, count * (rank + 1) // world_size)


def micro_batches(global_batch: int, micro_batch_size: int, rank: int, world_size: int) -> list[range]:
    """Returns the micro-batches of one rank, as ranges of positions in the global batch (columns of `plan_epoch`).

    With at least one micro-batch for each rank, the ranges do not depend on the number of ranks, and neither do padding
    and sampling. With fewer, each rank takes its part of the images instead. No rank has more micro-batches than
    needed.
    """
    ranges = [range(first, min(first + micro_batch_size, global_batch))
              for first in range(0, global_batch, micro_batch_size)]
    if len(ranges) >= world_size:
        return [ranges[index] for index in rank_part(len(ranges), rank, world_size)]
    columns = rank_part(global_batch, rank, world_size)
    return [columns[first:first + micro_batch_size] for first in range(0, len(columns), micro_batch_size)]


def plan_eval_batches(sizes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Returns batches of images of similar size; every image occurs exactly once.

    The batches do not depend on the number of ranks, and rank r predicts batches r, r + world size, ...; padding and
    detections are therefore the same at any world size. The largest batch comes first, so that a lack of memory shows
    at once.

    Args:
        sizes: int32 [I, 2], height and width of each image in pixels.

    Returns:
        int64 [at most batch_size] each, indices into `sizes`.
    """
    ratio = sizes[:, 0] / np.maximum(sizes[:, 1], 1)
    order = np.lexsort((np.arange(len(sizes)), -sizes[:, 0].astype(np.int64) * sizes[:, 1], ratio))
    batches = [order[first:first + batch_size] for first in range(0, len(order), batch_size)]
    pixels = [int(sizes[batch, 0].max()) * int(sizes[batch, 1].max()) for batch in batches]
    return [batches[index] for index in np.argsort([-count for count in pixels], kind="stable")]


class TrainBatchSampler:
    """Batch sampler of one rank: yields the keys (epoch, index) of each of its micro-batches, step by step.

    Iterating again starts again at `first_step`; DataLoader requests an iterator twice if it has workers. With repeat
    factors, the index of draw k of an entry in an epoch (from 0) is entry + k * E, so that each is augmented anew.

    Args:
        seed: seed of the run.
        sizes: int32 [E, 2], height and width of each entry of an epoch in pixels, see `epoch_sizes`.
        global_batch: images per optimizer step, over all ranks.
        micro_batches: columns of a step that this rank takes, one range for each micro-batch.
        first_step: first step to yield, 0 for a new run; a resumed run starts at the step of its checkpoint.
        last_step: the step to stop before.
        steps_per_epoch: rows of `plan_epoch`.
        aspect_ratio_groups: shuffled or static, see `plan_epoch`.
        repeat_factors: float64 [E] or None, see `plan_epoch`.
    """

    def __init__(self, seed: int, sizes: np.ndarray, global_batch: int, micro_batches: list[range], first_step: int,
                 last_step: int, steps_per_epoch: int, aspect_ratio_groups: str = "shuffled",
                 repeat_factors: np.ndarray | None = None):
        self.seed, self.sizes, self.global_batch = seed, sizes, global_batch
        self.micro_batches, self.aspect_ratio_groups = micro_batches, aspect_ratio_groups
        self.repeat_factors = repeat_factors
        self.first_step, self.last_step, self.steps_per_epoch = first_step, last_step, steps_per_epoch

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * len(self.micro_batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        plan, planned_epoch = None, -1
        for step in range(self.first_step, self.last_step):
            epoch, row = divmod(step, self.steps_per_epoch)
            if epoch != planned_epoch:
                plan = plan_epoch(self.seed, epoch, self.sizes, self.global_batch, self.aspect_ratio_groups,
                                  self.repeat_factors)
                if self.repeat_factors is not None:
                    plan = plan + number_draws(plan) * len(self.sizes)
                planned_epoch = epoch
            for columns in self.micro_batches:
                yield [(epoch, int(plan[row, column])) for column in columns]
