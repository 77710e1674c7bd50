"""Which images make up which step: pure functions of (seed, epoch, sizes, batch), the same on every rank.

A group is the images of one range of aspect ratio, so that a batch pads little. A step takes its images from one
group on all ranks together, so that no rank waits for another one's larger canvas.
"""

from typing import Iterator

import numpy as np

from detector.py_faster_rcnn.static_chunks import chunks
from detector.seeding import derive_seed, random_order

pass

EDGES = 2.0 ** np.array([-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1])  # of height / width; below 1 is landscape


def aspect_groups(sizes: np.ndarray, global_batch: int) -> np.ndarray:
    """The group of each image, int64 [I], for sizes [I, 2] (height, width).

    A group with fewer images than one batch joins its neighbour, so that no image is repeated more than once a batch.
    """
    groups = np.searchsorted(EDGES, sizes[:, 0] / np.maximum(sizes[:, 1], 1), side="left")
    counts = np.bincount(groups, minlength=len(EDGES) + 1)
    joined, target, collected = np.zeros(len(counts), np.int64), 0, 0
    for group, count in enumerate(counts):
        joined[group] = target
        collected += count
        if collected >= global_batch and counts[group + 1:].sum() >= global_batch:
            target, collected = target + 1, 0
    return joined[groups]


def epoch_sizes(sizes: np.ndarray, mirrored_copies: bool) -> np.ndarray:
    """The sizes of all that an epoch is made of: the images [I, 2], and where wanted their mirrored copies after them.

    In a key (epoch, index) an index from I on is the mirrored copy of image index - I.
    """
    return np.concatenate([sizes, sizes]) if mirrored_copies else sizes


def steps_per_epoch(sizes: np.ndarray, global_batch: int, groups: str = "shuffled") -> int:
    """The number of steps of every epoch."""
    if groups == "static":
        return len(sizes) // global_batch
    return int(sum(-(-count // global_batch) for count in np.bincount(aspect_groups(sizes, global_batch)) if count))


def plan_epoch(seed: int, epoch: int, sizes: np.ndarray, global_batch: int, groups: str = "shuffled") -> np.ndarray:
    """The images of each step: int64 [steps, global_batch], indices into sizes [I, 2].

    Shuffled: every image occurs at least once; each group is filled up to whole batches with images of its own. Static:
    the chunks of py_faster_rcnn/static_chunks.py, in another order each epoch. Resuming at a step is a slice of this, and a rank's share
    is a range of its columns.
    """
    plan = chunks(sizes, global_batch) if groups == "static" else shuffled(seed, epoch, sizes, global_batch)
    return plan[random_order(derive_seed(seed, "steps", epoch), len(plan))]


def shuffled(seed: int, epoch: int, sizes: np.ndarray, global_batch: int) -> np.ndarray:
    """Batches of the groups, one group after the other: int64 [steps, global_batch]."""
    groups = aspect_groups(sizes, global_batch)
    order = random_order(derive_seed(seed, "epoch", epoch), len(sizes))
    order = order[np.argsort(groups[order], kind="stable")]  # by group, shuffled inside each
    batches, first = [], 0
    for count in np.bincount(groups):
        members = order[first:first + count]
        first += count
        if count:
            batches.append(np.resize(members, -(-count // global_batch) * global_batch).reshape(-1, global_batch))
    return np.concatenate([np.zeros((0, global_batch), np.int64), *batches])


def rank_share(count: int, rank: int, world: int) -> range:
    """The things that one rank takes of `count`; shares differ by one at most."""
    return range(count * rank // world, count * (rank + 1) // world)


def micro_batches(global_batch: int, per_process: int, rank: int, world: int) -> list[range]:
    """The columns of a step that one rank takes, cut into what it holds at once; the gradients of all make one step.

    Where there are enough of them for all ranks, the cuts are the same for any number of ranks, and with them padding
    and all that is sampled. Else each rank gets its share of the images, cut anew. No rank has more turns than needed.
    """
    cuts = [range(first, min(first + per_process, global_batch)) for first in range(0, global_batch, per_process)]
    if len(cuts) >= world:
        return [cuts[turn] for turn in rank_share(len(cuts), rank, world)]
    columns = rank_share(global_batch, rank, world)
    return [columns[first:first + per_process] for first in range(0, len(columns), per_process)]


def plan_eval_batches(sizes: np.ndarray, batch: int) -> list[np.ndarray]:
    """Batches of images of like size, each image exactly once; int64 [at most batch] each.

    The batches do not depend on the number of ranks, and rank r predicts batches r, r + world, ...: so padding, and
    with it every detection, is the same at any world size. The largest come first, so that memory fails early.
    """
    ratio = sizes[:, 0] / np.maximum(sizes[:, 1], 1)
    order = np.lexsort((np.arange(len(sizes)), -sizes[:, 0].astype(np.int64) * sizes[:, 1], ratio))
    batches = [order[first:first + batch] for first in range(0, len(order), batch)]
    pixels = [int(sizes[b, 0].max()) * int(sizes[b, 1].max()) for b in batches]
    return [batches[i] for i in np.argsort([-p for p in pixels], kind="stable")]


class TrainBatchSampler:
    """The keys of every micro-batch of one rank, from `first_step` to `last_step`, over all epochs.

    Iterating anew begins anew: DataLoader asks for the iterator twice when it has workers.
    """

    def __init__(self, seed: int, sizes: np.ndarray, global_batch: int, micro: list[range], first_step: int,
                 last_step: int, steps: int, groups: str = "shuffled"):
        self.seed, self.sizes, self.global_batch, self.micro = seed, sizes, global_batch, micro
        self.first_step, self.last_step, self.steps, self.groups = first_step, last_step, steps, groups

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * len(self.micro)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        plan, planned = None, -1
        for step in range(self.first_step, self.last_step):
            epoch, row = divmod(step, self.steps)
            if epoch != planned:
                plan, planned = plan_epoch(self.seed, epoch, self.sizes, self.global_batch, self.groups), epoch
            for columns in self.micro:
                yield [(epoch, int(plan[row, column])) for column in columns]
