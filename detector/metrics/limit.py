"""COCO's limit on detections: what it hides where an image has more than 100 objects or detections of a class.

COCO's metrics look at the best 100 detections of each class in each image (maxDets). Of 300 objects of a class in one
image, at most 100 can be found.
"""

from dataclasses import dataclass

import numpy as np

from detector.metrics.coco_params import MAX_DETECTIONS
from detector.metrics.matching import Match, ignored_object_mask, image_indices, rank_in_group
from detector.structures import Dataset, Detections


@dataclass(frozen=True)
class BeyondLimit:
    """How much lies beyond COCO's limit."""

    images: int           # with more objects of a class than the limit
    objects: int          # that cannot be found, even by a perfect detector
    detections: int       # that are not looked at
    most_detections: int  # the largest number of detections of a class in an image


def beyond_limit(detections: Detections, dataset: Dataset) -> BeyondLimit:
    """Returns what COCO's limit hides."""
    objects = object_groups(dataset)[~ignored_object_mask(dataset)]
    groups, counts = np.unique(objects, return_counts=True)
    _, of_detections = np.unique(group_numbers(dataset, image_indices(detections, dataset), detections.labels),
                                 return_counts=True)
    large = groups[counts > MAX_DETECTIONS] // (len(dataset.classes) + 1)
    return BeyondLimit(len(np.unique(large)), int(np.maximum(counts - MAX_DETECTIONS, 0).sum()),
                       int(np.maximum(of_detections - MAX_DETECTIONS, 0).sum()), int(of_detections.max(initial=0)))


def hidden_objects(dataset: Dataset, match: Match, ignored: np.ndarray) -> np.ndarray:
    """Returns the objects that cannot be found because of the limit, bool [N].

    Of n > 100 objects of a class in an image, n - 100 are hidden, or fewer if fewer were not found: those that a
    detection beyond the limit matches come first.

    Args:
        match: by COCO's rule.
        ignored: bool [N], objects that need not be found.
    """
    hidden, is_matched, is_missing = np.zeros(len(ignored), bool), np.zeros(len(ignored), bool), ~ignored
    is_matched[match.object[match.ignored & (match.object >= 0)]] = True
    is_missing[match.object[match.true_positive]] = False
    _, group, counts = np.unique(object_groups(dataset)[~ignored], return_inverse=True, return_counts=True)
    group_of_object = np.zeros(len(ignored), np.int64)
    group_of_object[~ignored] = group
    excess = np.maximum(counts - MAX_DETECTIONS, 0)
    rows = np.flatnonzero(is_missing & ~ignored)
    rows = rows[excess[group_of_object[rows]] > 0]
    rank = rank_in_group(group_of_object[rows], is_matched[rows].astype(np.float32))
    hidden[rows[rank < excess[group_of_object[rows]]]] = True
    return hidden


def object_groups(dataset: Dataset) -> np.ndarray:
    return group_numbers(dataset, dataset.image_of_box(), dataset.labels)


def group_numbers(dataset: Dataset, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns a number for each pair of an image and a class, int64."""
    return images * (len(dataset.classes) + 1) + labels
