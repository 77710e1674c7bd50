"""Matches detections to annotated objects, for all images at once, by COCO's rule or by PASCAL VOC's rule.

Shapes: N objects (rows of the Dataset), K detections (rows of the Detections), P pairs of a detection and an object of
the same image. No function loops over single images or boxes. The loop of `match_greedily` runs over the positions of
detections by score, because a detection with a higher score takes its object before one with a lower score.
"""

from dataclasses import dataclass

import numpy as np

from detector.metrics.coco_params import MAX_DETECTIONS
from detector.structures import CROWD, DIFFICULT, Dataset, Detections, to_xywh

PAIRS_PER_CHUNK = 2_000_000  # pairs whose IoU is computed at once; limits memory
ABOVE_HALF = float(np.nextafter(0.5, 1))  # VOC requires an IoU above 0.5, so IoU >= ABOVE_HALF


@dataclass(frozen=True)
class Pairs:
    """Pairs of a detection and an object of the same image, whatever their classes."""

    detection: np.ndarray  # int64 [P], row of the Detections
    object: np.ndarray     # int64 [P], row of the Dataset
    iou: np.ndarray        # float64 [P]

    def select(self, mask: np.ndarray) -> "Pairs":
        """Returns the pairs where `mask` (bool [P]) is true."""
        return Pairs(self.detection[mask], self.object[mask], self.iou[mask])


@dataclass(frozen=True)
class Match:
    """The result of matching. A detection that is neither a true positive nor ignored is a false positive.

    A detection beyond COCO's limit is ignored; its `object` is the one that it would have been matched to.
    """

    true_positive: np.ndarray  # bool [K]
    ignored: np.ndarray        # bool [K]
    object: np.ndarray         # int64 [K], row of the object that the detection was matched to; -1: none


def image_indices(detections: Detections, dataset: Dataset) -> np.ndarray:
    """Returns the index in `dataset` of the image of each detection, int64 [K]. Every image id must be in `dataset`."""
    order = np.argsort(dataset.image_ids)
    positions = np.searchsorted(dataset.image_ids[order], detections.image_ids).clip(max=len(order) - 1)
    assert np.array_equal(dataset.image_ids[order[positions]], detections.image_ids), \
        "a detection has an image id that is not in the data set"
    return order[positions]


def overlapping_pairs(detections: Detections, dataset: Dataset, min_iou: float, crowd_iou: bool) -> Pairs:
    """Returns all pairs with an IoU of `min_iou` or more, ordered by detection, then by object.

    Args:
        crowd_iou: for a crowd region, use COCO's overlap instead of IoU: the fraction of the detection's area that lies
            inside the region.
    """
    image = image_indices(detections, dataset)
    counts, first_object = dataset.boxes_per_image()[image], dataset.offsets[image]
    crowd = ((dataset.flags & CROWD) > 0) & crowd_iou
    detection_boxes, object_boxes = to_xywh(detections.boxes), to_xywh(dataset.boxes)
    ends, parts, start = np.cumsum(counts), [], 0
    while start < len(detections):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + PAIRS_PER_CHUNK, side="right")), start + 1)
        chunk = counts[start:stop]
        rows = np.repeat(np.arange(start, stop), chunk)
        first_pair = ends[start:stop] - chunk
        objects = np.repeat(first_object[start:stop] - first_pair, chunk) + np.arange(done, ends[stop - 1])
        iou = paired_iou(detection_boxes[rows], object_boxes[objects], crowd[objects])
        keep = iou >= min_iou
        parts.append((rows[keep], objects[keep], iou[keep]))
        start = stop
    empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(*(np.concatenate(column) for column in zip(empty, *parts)))


def paired_iou(detections: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Returns the IoU of each row of two arrays of boxes, float64 [P].

    The float operations and their order are those of `bbIou` in pycocotools' maskApi.c, so that an IoU equal to a
    threshold there is equal to the threshold here.

    Args:
        detections, objects: float64 [P, 4], x, y, width, height.
        crowd: bool [P], where the intersection is divided by the detection's area instead of the union.
    """
    width = (np.minimum(detections[:, 2] + detections[:, 0], objects[:, 2] + objects[:, 0])
             - np.maximum(detections[:, 0], objects[:, 0]))
    height = (np.minimum(detections[:, 3] + detections[:, 1], objects[:, 3] + objects[:, 1])
              - np.maximum(detections[:, 1], objects[:, 1]))
    intersection = np.where((width > 0) & (height > 0), width * height, 0)
    detection_area = detections[:, 2] * detections[:, 3]
    union = np.where(crowd, detection_area, detection_area + objects[:, 2] * objects[:, 3] - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)


def rank_in_group(group: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the rank of each detection within its group by falling score, int64 [K], from 0; ties in row order."""
    order = np.lexsort((-scores, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return rank


def rows_by_class(labels: np.ndarray, scores: np.ndarray, classes: int, counted: np.ndarray | None = None,
                  tie_order: np.ndarray | None = None) -> list[np.ndarray]:
    """Returns the rows of the detections of each class by falling score, a list of C arrays int64.

    Args:
        labels, scores: [K].
        classes: C; class c has label c + 1.
        counted: bool [K], the detections to return; None: all.
        tie_order: [K], detections with equal scores are ordered by this, then by row; None: by row.
    """
    rows = np.arange(len(labels)) if counted is None else np.flatnonzero(counted)
    ties = () if tie_order is None else (tie_order[rows],)
    rows = rows[np.lexsort((*ties, -scores[rows], labels[rows]))]
    bounds = np.searchsorted(labels[rows], np.arange(1, classes + 2))
    return [rows[start:stop] for start, stop in zip(bounds[:-1], bounds[1:])]


def match_greedily(pairs: Pairs, rank: np.ndarray, ignored: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Returns the object that each detection is assigned, int64 [K], -1 for none.

    Detections are assigned by rising rank. Each takes, of the objects that are not taken yet, the one with the highest
    IoU (of equal IoUs the last row). An ignored object is taken only if no other is left. A crowd region can be taken
    any number of times.

    Args:
        pairs: the admissible pairs.
        rank: int64 [K], unique among the detections that compete for an object.
        ignored, crowd: bool [N].
    """
    taken, assigned = np.zeros(len(ignored), bool), np.full(len(rank), -1, np.int64)
    order = np.lexsort((-pairs.object, -pairs.iou, ignored[pairs.object], pairs.detection, rank[pairs.detection]))
    rows, objects = pairs.detection[order], pairs.object[order]
    bounds = [*np.flatnonzero(np.diff(rank[rows], prepend=-1)), len(rows)]
    for start, stop in zip(bounds[:-1], bounds[1:]):
        free = start + np.flatnonzero(~taken[objects[start:stop]] | crowd[objects[start:stop]])
        best = free[np.diff(rows[free], prepend=-1) != 0]  # the first free pair of each detection
        assigned[rows[best]] = objects[best]
        taken[objects[best]] = True
    return assigned


def match_coco(detections: Detections, dataset: Dataset, pairs: Pairs, ignored: np.ndarray,
               iou_threshold: float = 0.5) -> Match:
    """Matches by COCO's rule (pycocotools' `COCOeval.evaluateImg`).

    Detections of a class in an image are assigned greedily by falling score; those beyond MAX_DETECTIONS are ignored,
    and so are those assigned to an ignored object.

    Args:
        pairs: at least all pairs with an IoU of `iou_threshold` or more, made with `crowd_iou=True`.
        ignored: bool [N], objects that need not be found.
    """
    group = image_indices(detections, dataset) * (len(dataset.classes) + 1) + detections.labels
    rank = rank_in_group(group, detections.scores)
    counted = rank < MAX_DETECTIONS
    same_class = detections.labels[pairs.detection] == dataset.labels[pairs.object]
    assigned = match_greedily(pairs.select(same_class & (pairs.iou >= min(iou_threshold, 1 - 1e-10))), rank, ignored,
                              (dataset.flags & CROWD) > 0)
    on_ignored = (assigned >= 0) & ignored[assigned] if len(ignored) else np.zeros(len(assigned), bool)
    return Match((assigned >= 0) & ~on_ignored & counted, on_ignored | ~counted, assigned)


def match_voc(detections: Detections, dataset: Dataset, pairs: Pairs, ignored: np.ndarray,
              min_iou: float = ABOVE_HALF) -> Match:
    """Matches by PASCAL VOC's rule (VOCevaldet.m).

    Each detection is assigned to the object of its class with the highest IoU, which must be `min_iou` or more. Of the
    detections assigned to one object, the one with the highest score is a true positive and the others are false
    positives. Detections assigned to an ignored object are ignored.

    Args:
        pairs: at least all pairs with an IoU of `min_iou` or more, made with `crowd_iou=False`.
        ignored: bool [N], objects that need not be found.
    """
    same_class = detections.labels[pairs.detection] == dataset.labels[pairs.object]
    iou, target = best_overlaps(pairs.select(same_class & (pairs.iou >= min_iou)), len(detections))
    assigned = iou > 0
    on_ignored = assigned & ignored[target] if len(ignored) else np.zeros(len(assigned), bool)
    rows = np.flatnonzero(assigned & ~on_ignored)
    true_positive = np.zeros(len(detections), bool)
    true_positive[rows[rank_in_group(target[rows], detections.scores[rows]) == 0]] = True
    return Match(true_positive, on_ignored, np.where(true_positive | on_ignored, target, -1))


def best_overlaps(pairs: Pairs, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the highest IoU of each detection and the object it belongs to: float64 [K] and int64 [K].

    Of equal IoUs the first object is returned. A detection without a pair has IoU 0 and object -1.

    Args:
        count: K, the number of detections.
    """
    order = np.lexsort((pairs.object, -pairs.iou, pairs.detection))
    first = order[np.diff(pairs.detection[order], prepend=-1) != 0]
    iou, target = np.zeros(count), np.full(count, -1, np.int64)
    iou[pairs.detection[first]], target[pairs.detection[first]] = pairs.iou[first], pairs.object[first]
    return iou, target


def ignored_object_mask(dataset: Dataset) -> np.ndarray:
    """Returns where an object is a crowd region or a difficult object, bool [N]."""
    return (dataset.flags & (CROWD | DIFFICULT)) > 0


def count_objects(dataset: Dataset, ignored: np.ndarray) -> np.ndarray:
    """Returns the number of objects of each class that are not `ignored` (bool [N]), int64 [C]."""
    return np.bincount(dataset.labels[~ignored], minlength=len(dataset.classes) + 1)[1:]
