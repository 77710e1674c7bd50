"""How sure a difference between two detectors is: AP of many random draws of the images, for both of the same draws.

(Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 10 and 13: paired, by percentiles.)

B draws, I images, C classes, K detections, N objects, T overlaps. A draw is how often each image is in it, so it needs
no new matching: a detection counts as often as its image, and AP is that of the weighted curve.
"""

from dataclasses import dataclass

import numpy as np
import torch

from detector.metrics.matching import ABOVE_HALF, Match, ignored_objects, image_of, match_coco, match_voc, overlapping
from detector.seeding import derive_seed, generator
from detector.structures import Dataset, Detections

COCO_IOUS = np.linspace(0.5, 0.95, 10)
SIZES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # pixels, COCO's
RECALL = np.linspace(0, 1, 101)


def draws(images: int, count: int, seed: int = 0) -> np.ndarray:
    """float32 [1 + B, I]: how often each image is drawn; the first is every image once, the data set itself."""
    chance = generator(derive_seed(seed, "bootstrap", images))
    picked = torch.randint(images, (count, images), generator=chance).numpy()
    times = np.stack([np.bincount(row, minlength=images) for row in picked]) if count else np.zeros((0, images))
    return np.concatenate([np.ones((1, images)), times]).astype(np.float32)


@dataclass(frozen=True)
class Judged:
    """One detector at one overlap and size, class by class, best first."""

    right: list[np.ndarray]    # bool [K_c] of each class
    image: list[np.ndarray]    # int64 [K_c]; of what counts
    objects: list[np.ndarray]  # int64 [N_c]: the image of each object to be found


def judge(detections: Detections, dataset: Dataset, metric: str, size: str) -> list[Judged]:
    """For each overlap that the metric asks for: COCO's ten, or VOC's one. As pycocotools has it, objects of another
    size are ignored, and detections of another size that find nothing."""
    low, high = SIZES[size]
    ignored = ignored_objects(dataset) | (dataset.areas < low) | (dataset.areas > high)
    image, (order, bounds) = image_of(detections, dataset), by_class(detections, dataset, metric)
    sides = detections.boxes[:, 2:].astype(np.float64) - detections.boxes[:, :2]
    area = sides[:, 0] * sides[:, 1]
    outside = (area < low) | (area > high)
    image_of_object = dataset.image_of_box()
    objects = [image_of_object[~ignored & (dataset.labels == c)] for c in range(1, len(dataset.classes) + 1)]
    pairs = overlapping(detections, dataset, 0.5 if metric == "coco" else ABOVE_HALF, crowds=metric == "coco")

    def judged(match: Match) -> Judged:
        counts = ~match.ignored & ~(outside & ~match.right)
        rows = [order[first:last][counts[order[first:last]]] for first, last in zip(bounds[:-1], bounds[1:])]
        return Judged([match.right[r] for r in rows], [image[r] for r in rows], objects)
    if metric == "coco":
        return [judged(match_coco(detections, dataset, pairs, ignored, iou)) for iou in COCO_IOUS]
    return [judged(match_voc(detections, dataset, pairs, ignored))]


def by_class(detections: Detections, dataset: Dataset, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows by class, best first; and where each class begins [C + 1]. Equal scores stand in the order of image ids, as
    pycocotools has them, or of the rows, as our VOC metric has them."""
    ties = [detections.image_ids] if metric == "coco" else []
    order = np.lexsort((*ties, -detections.scores, detections.labels))
    return order, np.searchsorted(detections.labels[order], np.arange(1, len(dataset.classes) + 2))


def class_aps(judged: list[Judged], times: np.ndarray, metric: str) -> np.ndarray:
    """AP of each class in each draw, the mean over the overlaps: float64 [1 + B, C]; nan where a draw has no object."""
    classes = len(judged[0].objects)
    found = np.full((len(times), classes), np.nan)
    for c in range(classes):
        positives = times[:, judged[0].objects[c]].sum(axis=1, dtype=np.float64)
        if not positives.any():
            continue
        aps = [weighted_aps(one.right[c], one.image[c], positives, times, metric) for one in judged]
        found[:, c] = np.where(positives > 0, np.mean(aps, axis=0), np.nan)
    return found


def weighted_aps(right: np.ndarray, image: np.ndarray, positives: np.ndarray, times: np.ndarray,
                 metric: str) -> np.ndarray:
    """float64 [1 + B]: AP of one class, whose objects in each draw are positives [1 + B]. Only where a right detection
    stands can precision be the best so far, so only those columns are looked at."""
    steps = np.flatnonzero(right)
    if not len(steps):
        return np.zeros(len(times))
    weight = times[:, image]
    every = np.cumsum(weight, axis=1, dtype=np.float64)[:, steps]
    weight = weight[:, steps].astype(np.float64)
    hits = np.cumsum(weight, axis=1)
    precision = np.divide(hits, every, out=np.zeros_like(hits), where=every > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    objects = np.maximum(positives, 1)[:, None]
    if metric != "coco":
        return (weight * best).sum(axis=1) / objects[:, 0]
    apart = 2.0 * np.arange(len(times))[:, None]  # recalls of all draws in one rising row
    reached = np.searchsorted((hits / objects + apart).ravel(), (RECALL + apart).ravel(), side="left")
    reached = reached.reshape(len(times), -1) - np.arange(len(times))[:, None] * len(steps)
    best = np.append(best, np.zeros((len(times), 1)), axis=1)
    return np.take_along_axis(best, reached, axis=1).mean(axis=1)


@dataclass(frozen=True)
class Difference:
    """AP of two detectors, and 95 % of the draws' differences; nan where there is nothing to be found."""

    a: float
    b: float
    low: float
    high: float

    @property
    def real(self) -> bool:
        """Does the interval leave out zero?"""
        return self.low > 0 or self.high < 0


def difference(a: np.ndarray, b: np.ndarray) -> Difference:
    """a, b: float64 [1 + B], AP of the data set and of each draw."""
    gaps = (b - a)[1:]
    gaps = gaps[~np.isnan(gaps)]
    low, high = np.quantile(gaps, (0.025, 0.975)) if len(gaps) else (np.nan, np.nan)
    return Difference(float(a[0]), float(b[0]), float(low), float(high))


def mean_over_classes(aps: np.ndarray) -> np.ndarray:
    """float64 [1 + B]; classes without an object in a draw are left out of its mean."""
    known = ~np.isnan(aps)
    return np.divide(np.nansum(aps, axis=1), known.sum(axis=1), out=np.full(len(aps), np.nan), where=known.any(axis=1))
