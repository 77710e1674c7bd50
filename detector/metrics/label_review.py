"""Ranks annotations by how likely they are wrong, from detections of the same images.

Three kinds of doubtful labels are found. As in Northcutt et al. 2021, "Confident Learning", a label is doubted if a
model disagrees with it that is usually right about its class:

    MISSING  a detection that no object explains: an object may have been left out
    WRONG    an object on which detections of another class lie: its class may be wrong
    STRAY    an object that no detection confirms: it may not be there, or its box may be misplaced

Shapes: N objects (rows of the Dataset), K detections (rows of the Detections), C classes.
"""

from dataclasses import dataclass, replace

import numpy as np

from detector.metrics.matching import (
    Pairs,
    best_overlaps,
    ignored_object_mask,
    image_indices,
    overlapping_pairs,
    paired_iou,
    rows_by_class,
)
from detector.structures import Dataset, Detections, to_xywh

MISSING, WRONG, STRAY = ("missing", "wrong", "stray")
EXPLAINED_IOU = 0.5    # a detection with this IoU is a detection of the object
APART_IOU = 0.3        # up to this IoU it is none; in between, it counts in part
MAX_CANDIDATES = 10_000  # detections that are looked at for missing labels, the most confident ones
MIN_PAIR_IOU = 0.1     # below it, an object and a detection have nothing to do with each other


@dataclass(frozen=True)
class DoubtfulLabel:
    """A place where annotation and detections disagree."""

    kind: str         # MISSING, WRONG or STRAY
    doubt: float      # 0 ... 1, how likely the annotation is wrong; comparable between kinds
    image: int        # index in the Dataset
    object: int       # row of the Dataset; -1: MISSING
    detection: int    # row of the Detections that speaks against the annotation; of a STRAY object, where its box
                      # should perhaps be; -1: none


def find_doubtful_labels(dataset: Dataset, detections: Detections, limit: int = 300) -> list[DoubtfulLabel]:
    """Returns the labels that are most likely wrong, the most doubtful first, at most `limit`.

    Crowd regions and difficult objects explain detections, and are never doubted themselves.

    The evidence against a label is a score, or the lack of one, weighted by how often such evidence is right on this
    data set: MISSING by the fraction of the detections of the class, with this score or more, that lie on an object of
    the class; WRONG by the same fraction of those that lie on an object of any class; STRAY by the mean support of the
    objects of its class, so that a class which the detector rarely finds raises few doubts.
    """
    if not len(detections):
        return []
    pairs = overlapping_pairs(detections, dataset, MIN_PAIR_IOU, crowd_iou=True)
    same_class = detections.labels[pairs.detection] == dataset.labels[pairs.object]
    on_class = best_overlaps(pairs.select(same_class), len(detections))[0] >= EXPLAINED_IOU
    on_object = best_overlaps(pairs, len(detections))[0] >= EXPLAINED_IOU
    is_there, is_class = (detections.scores * precision_from_score(detections, on_class, counted, len(dataset.classes))
                          for counted in (np.ones(len(detections), bool), on_object))
    own = strongest(pairs.select(same_class), detections.scores, len(dataset.boxes))[0]
    missing = missing_labels(dataset, detections, pairs, is_there)
    stray = stray_labels(dataset, strongest(pairs, detections.scores, len(dataset.boxes))[0], own)
    labels = [*wrong_labels(dataset, pairs.select(~same_class), is_class, own),
              *merge_misplaced(missing, stray, pairs.select(same_class))]
    labels.sort(key=lambda label: (-label.doubt, label.image, label.kind, label.object, label.detection))
    objects = np.array([label.object for label in labels], np.int64)
    _, first = np.unique(objects, return_index=True)  # an object is doubted once, for the stronger reason
    is_first = objects < 0
    is_first[first] = True
    return [label for label, kept in zip(labels, is_first) if kept][:limit]


def explained_fraction(iou: np.ndarray) -> np.ndarray:
    """Returns how far an IoU makes a detection one of the object: 0 up to APART_IOU, 1 from EXPLAINED_IOU on."""
    return ((iou - APART_IOU) / (EXPLAINED_IOU - APART_IOU)).clip(0, 1)


def precision_from_score(detections: Detections, is_right: np.ndarray, is_counted: np.ndarray,
                         classes: int) -> np.ndarray:
    """Returns for each detection the fraction of right ones among those of its class, with its score or more.

    Args:
        is_right: bool [K].
        is_counted: bool [K], the detections of which the fraction is taken.
        classes: C.

    Returns:
        float64 [K]; 0 where none is counted.
    """
    precision = np.empty(len(detections))
    for rows in rows_by_class(detections.labels, detections.scores, classes):
        counted = is_counted[rows]
        precision[rows] = np.cumsum(is_right[rows] & counted) / np.maximum(np.cumsum(counted), 1)
    return precision


def strongest(pairs: Pairs, scores: np.ndarray, num_objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the support of each object and the detection that gives it, float64 [N] and int64 [N].

    Support is the highest score * explained_fraction(IoU) over the pairs of the object; 0 and -1 without a pair.
    """
    support = scores[pairs.detection] * explained_fraction(pairs.iou)
    return best_overlaps(Pairs(pairs.object, pairs.detection, support), num_objects)


def missing_labels(dataset: Dataset, detections: Detections, pairs: Pairs,
                   confidence: np.ndarray) -> list[DoubtfulLabel]:
    """Returns a label for each detection that overlaps objects by less than EXPLAINED_IOU, the best of each place."""
    iou = best_overlaps(pairs, len(detections))[0]
    doubts = confidence * (1 - explained_fraction(iou))
    image, boxes = image_indices(detections, dataset), to_xywh(detections.boxes)
    labels, kept = [], {}
    for row in np.argsort(-doubts, kind="stable")[:MAX_CANDIDATES]:
        if doubts[row] <= 0:
            break
        others = kept.setdefault(int(image[row]), [])
        if (paired_iou(boxes[row][None], boxes[others], np.zeros(len(others), bool)) < EXPLAINED_IOU).all():
            others.append(row)
            labels.append(DoubtfulLabel(MISSING, float(doubts[row]), int(image[row]), -1, int(row)))
    return labels


def wrong_labels(dataset: Dataset, pairs: Pairs, confidence: np.ndarray, own: np.ndarray) -> list[DoubtfulLabel]:
    """Returns a label for each object on which a detection of another class lies.

    Args:
        pairs: those of different classes.
        own: float64 [N], support of each object by detections of its own class.
    """
    against, detection = strongest(pairs.select(pairs.iou >= EXPLAINED_IOU), confidence, len(dataset.boxes))
    doubts = np.where(ignored_object_mask(dataset), 0, against * (1 - own))
    image = dataset.image_of_box()
    return [DoubtfulLabel(WRONG, float(doubts[row]), int(image[row]), int(row), int(detection[row]))
            for row in np.flatnonzero(doubts > 0)]


def stray_labels(dataset: Dataset, support: np.ndarray, own: np.ndarray) -> list[DoubtfulLabel]:
    """Returns a label for each object without full support.

    Args:
        support, own: float64 [N], support of each object by detections of any class, and of its own.
    """
    usable = ~ignored_object_mask(dataset)
    counts = np.bincount(dataset.labels[usable], minlength=len(dataset.classes) + 1)
    sums = np.bincount(dataset.labels[usable], own[usable], len(dataset.classes) + 1)
    doubts = np.where(usable, (sums / np.maximum(counts, 1))[dataset.labels] * (1 - support), 0)
    image = dataset.image_of_box()
    return [DoubtfulLabel(STRAY, float(doubts[row]), int(image[row]), int(row), -1)
            for row in np.flatnonzero(doubts > 0)]


def merge_misplaced(missing: list[DoubtfulLabel], stray: list[DoubtfulLabel], pairs: Pairs) -> list[DoubtfulLabel]:
    """Returns the labels of both lists, a STRAY object and a MISSING one beside it as one.

    Args:
        pairs: those of equal class; a pair of both lists is one misplaced box, as doubtful as the more doubtful one.
    """
    by_detection = {label.detection: label for label in missing}
    by_object = {label.object: label for label in stray}
    for index in np.argsort(-pairs.iou, kind="stable"):
        detection, row = int(pairs.detection[index]), int(pairs.object[index])
        if detection in by_detection and row in by_object and by_object[row].detection < 0:
            doubt = max(by_object[row].doubt, by_detection.pop(detection).doubt)
            by_object[row] = replace(by_object[row], doubt=doubt, detection=detection)
    return [*by_detection.values(), *by_object.values()]
