"""Confidence interval of the difference in AP between two detectors, by a paired bootstrap over images.

Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 10 and 13: paired draws, percentile interval. Both
detectors are evaluated on the same random draws of the images, with replacement.

A draw is represented by how often each image occurs in it. Detections are therefore matched once: in a draw, each
detection and each object counts as often as its image, and AP is that of the weighted precision-recall curve.

Shapes: B draws, I images, C classes, K detections, N objects, T IoU thresholds.
"""

from dataclasses import dataclass

import numpy as np
import torch

from detector.metrics.coco_params import AREA_RANGES, IOU_THRESHOLDS, RECALL_THRESHOLDS
from detector.metrics.matching import (
    ABOVE_HALF,
    Match,
    ignored_object_mask,
    image_indices,
    match_coco,
    match_voc,
    overlapping_pairs,
    rows_by_class,
)
from detector.seeding import derive_seed, generator
from detector.structures import Dataset, Detections


def bootstrap_draws(images: int, count: int, seed: int = 0) -> np.ndarray:
    """Returns how often each image occurs in each draw, float32 [1 + B, I].

    The first row is all ones: the data set itself. The draws depend on the arguments alone.

    Args:
        images: I.
        count: B.
    """
    rng = generator(derive_seed(seed, "bootstrap", images))
    drawn = torch.randint(images, (count, images), generator=rng).numpy()
    times = np.stack([np.bincount(row, minlength=images) for row in drawn]) if count else np.zeros((0, images))
    return np.concatenate([np.ones((1, images)), times]).astype(np.float32)


@dataclass(frozen=True)
class ClassMatches:
    """The matched detections of one detector at one IoU threshold and area range; each list has an array per class."""

    true_positive: list[np.ndarray]   # bool [K_c], of the counted detections by falling score
    image: list[np.ndarray]           # int64 [K_c], index of the image of each of them
    image_of_object: list[np.ndarray]  # int64 [N_c], index of the image of each object to be found


def match_by_class(detections: Detections, dataset: Dataset, metric: str, size: str) -> list[ClassMatches]:
    """Matches detections at each IoU threshold of the metric: COCO's ten, or VOC's one.

    As in pycocotools, objects outside of the area range are ignored, and so are false positives outside of it.

    Args:
        metric: coco or voc; any other has VOC's rule.
        size: a key of AREA_RANGES.
    """
    low, high = AREA_RANGES[size]
    ignored = ignored_object_mask(dataset) | (dataset.areas < low) | (dataset.areas > high)
    image = image_indices(detections, dataset)
    # Equal scores are ordered as in the metric itself: by image id in pycocotools, by row in voc_metrics.
    rows = rows_by_class(detections.labels, detections.scores, len(dataset.classes),
                         tie_order=detections.image_ids if metric == "coco" else None)
    sides = detections.boxes[:, 2:].astype(np.float64) - detections.boxes[:, :2]
    area = sides[:, 0] * sides[:, 1]
    outside = (area < low) | (area > high)
    image_of_box = dataset.image_of_box()
    image_of_object = [image_of_box[~ignored & (dataset.labels == label)]
                       for label in range(1, len(dataset.classes) + 1)]
    pairs = overlapping_pairs(detections, dataset, 0.5 if metric == "coco" else ABOVE_HALF, crowd_iou=metric == "coco")

    def split(match: Match) -> ClassMatches:
        counted = ~match.ignored & ~(outside & ~match.true_positive)
        kept = [of_class[counted[of_class]] for of_class in rows]
        return ClassMatches([match.true_positive[r] for r in kept], [image[r] for r in kept], image_of_object)
    if metric == "coco":
        return [split(match_coco(detections, dataset, pairs, ignored, iou)) for iou in IOU_THRESHOLDS]
    return [split(match_voc(detections, dataset, pairs, ignored))]


def bootstrap_class_aps(matches: list[ClassMatches], times: np.ndarray, metric: str) -> np.ndarray:
    """Returns AP of each class in each draw, float64 [1 + B, C]; nan where a draw has no object of the class.

    Args:
        matches: of each IoU threshold; AP is the mean over them.
        times: float32 [1 + B, I], see `bootstrap_draws`.
        metric: coco: mean precision at 101 recalls; any other: area below the curve.
    """
    image_of_object = matches[0].image_of_object
    class_aps = np.full((len(times), len(image_of_object)), np.nan)
    for c, images in enumerate(image_of_object):
        objects = times[:, images].sum(axis=1, dtype=np.float64)
        if not objects.any():
            continue
        aps = [weighted_aps(match.true_positive[c], match.image[c], objects, times, metric) for match in matches]
        class_aps[:, c] = np.where(objects > 0, np.mean(aps, axis=0), np.nan)
    return class_aps


def weighted_aps(true_positive: np.ndarray, image: np.ndarray, objects: np.ndarray, times: np.ndarray,
                 metric: str) -> np.ndarray:
    """Returns AP of one class at one IoU threshold in each draw, float64 [1 + B].

    Args:
        true_positive, image: bool and int64 [K_c], of the detections by falling score.
        objects: float64 [1 + B], number of objects in each draw.
    """
    columns = np.flatnonzero(true_positive)  # precision has its maxima at true positives; other columns are not needed
    if not len(columns):
        return np.zeros(len(times))
    weight = times[:, image]
    num_detections = np.cumsum(weight, axis=1, dtype=np.float64)[:, columns]
    weight = weight[:, columns].astype(np.float64)
    hits = np.cumsum(weight, axis=1)
    precision = np.divide(hits, num_detections, out=np.zeros_like(hits), where=num_detections > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    objects = np.maximum(objects, 1)[:, None]
    if metric != "coco":
        return (weight * envelope).sum(axis=1) / objects[:, 0]
    # One searchsorted for all draws: an offset of 2 for each draw makes the recalls of all draws one rising sequence.
    offsets = 2.0 * np.arange(len(times))[:, None]
    reached_at = np.searchsorted((hits / objects + offsets).ravel(), (RECALL_THRESHOLDS + offsets).ravel(), side="left")
    reached_at = reached_at.reshape(len(times), -1) - np.arange(len(times))[:, None] * len(columns)
    envelope = np.append(envelope, np.zeros((len(times), 1)), axis=1)
    return np.take_along_axis(envelope, reached_at, axis=1).mean(axis=1)


@dataclass(frozen=True)
class APDifference:
    """AP of two detectors on the data set, and the 95 % interval of B - A over the draws; nan without objects."""

    a: float
    b: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """True if the interval does not contain zero."""
        return self.low > 0 or self.high < 0


def ap_difference(a: np.ndarray, b: np.ndarray) -> APDifference:
    """Returns the difference of two detectors.

    Args:
        a, b: float64 [1 + B], AP on the data set and on each draw.
    """
    differences = (b - a)[1:]
    differences = differences[~np.isnan(differences)]
    low, high = np.quantile(differences, (0.025, 0.975)) if len(differences) else (np.nan, np.nan)
    return APDifference(float(a[0]), float(b[0]), float(low), float(high))


def mean_over_classes(aps: np.ndarray) -> np.ndarray:
    """Returns the mean of AP [1 + B, C] over the classes, float64 [1 + B], without classes that are nan in a draw."""
    known = ~np.isnan(aps)
    return np.divide(np.nansum(aps, axis=1), known.sum(axis=1), out=np.full(len(aps), np.nan), where=known.any(axis=1))
