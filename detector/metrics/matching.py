"""Which detection finds which object, for all images at once. Two rules: COCO's and PASCAL VOC's.

N objects, K detections, P pairs of a detection and an object that overlap. Nothing here loops over images or boxes, but
over the ranks of detections within an image, because a better detection takes its object from a worse one.
"""

from dataclasses import dataclass

import numpy as np

from detector.structures import CROWD, DIFFICULT, Dataset, Detections, to_xywh

MOST = 100           # detections of one class in one image that count, the best ones; as COCO has it
CHUNK = 2_000_000    # pairs whose overlap is computed at once; bounds the memory
ABOVE_HALF = float(np.nextafter(0.5, 1))  # VOC asks for more than one half


@dataclass(frozen=True)
class Pairs:
    """A detection and an object of the same image each, whatever their classes."""

    detection: np.ndarray  # int64 [P], row of the Detections
    object: np.ndarray     # int64 [P], row of the Dataset
    iou: np.ndarray        # float64 [P]

    def where(self, mask: np.ndarray) -> "Pairs":
        return Pairs(self.detection[mask], self.object[mask], self.iou[mask])


@dataclass(frozen=True)
class Match:
    """What became of each detection; neither right nor ignored is wrong."""

    right: np.ndarray    # bool [K]
    ignored: np.ndarray  # bool [K]
    object: np.ndarray   # int64 [K], row of the object it found or was ignored for; -1: none


def image_of(detections: Detections, dataset: Dataset) -> np.ndarray:
    """int64 [K]: index of the image that each detection is in."""
    order = np.argsort(dataset.image_ids)
    places = np.searchsorted(dataset.image_ids[order], detections.image_ids).clip(max=len(order) - 1)
    assert np.array_equal(dataset.image_ids[order[places]], detections.image_ids), "detections of a strange image"
    return order[places]


def overlapping(detections: Detections, dataset: Dataset, least: float, crowds: bool) -> Pairs:
    """All pairs whose overlap is `least` or more, in the order of detections, then objects.

    With `crowds`, the overlap with a crowd region is the share of the detection that lies in it, as COCO has it.
    """
    image = image_of(detections, dataset)
    count, first = dataset.boxes_per_image()[image], dataset.offsets[image]
    crowd, found, known = ((dataset.flags & CROWD) > 0) & crowds, to_xywh(detections.boxes), to_xywh(dataset.boxes)
    ends, parts, start = np.cumsum(count), [], 0
    while start < len(detections):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + CHUNK, side="right")), start + 1)
        sizes = count[start:stop]
        rows = np.repeat(np.arange(start, stop), sizes)
        objects = np.repeat(first[start:stop] - ends[start:stop] + sizes, sizes) + np.arange(done, ends[stop - 1])
        iou = overlap(found[rows], known[objects], crowd[objects])
        keep = iou >= least
        parts.append((rows[keep], objects[keep], iou[keep]))
        start = stop
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(*(np.concatenate(column) for column in zip(none, *parts)))


def overlap(a: np.ndarray, b: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU of boxes x, y, width, height, row by row, float64 [P]; with the operations of pycocotools' bbIou, in their
    order, so that a pair at a threshold falls to the same side."""
    width = np.minimum(a[:, 2] + a[:, 0], b[:, 2] + b[:, 0]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3] + a[:, 1], b[:, 3] + b[:, 1]) - np.maximum(a[:, 1], b[:, 1])
    both = np.where((width > 0) & (height > 0), width * height, 0)
    area = a[:, 2] * a[:, 3]
    union = np.where(crowd, area, area + b[:, 2] * b[:, 3] - both)
    return np.divide(both, union, out=np.zeros_like(both), where=both > 0)


def rank_within(group: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """int64 [K]: 0 for the best of its group; equal scores in the order of the rows."""
    order = np.lexsort((-scores, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return rank


def greedy(pairs: Pairs, rank: np.ndarray, ignored: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """int64 [K]: the object that each detection takes, -1 for none. By rising rank, each takes of the objects left the
    one it overlaps most, the last of equals; ignored ones only where no other is left. A crowd is never used up."""
    taken, result = np.zeros(len(ignored), bool), np.full(len(rank), -1, np.int64)
    order = np.lexsort((-pairs.object, -pairs.iou, ignored[pairs.object], pairs.detection, rank[pairs.detection]))
    rows, objects = pairs.detection[order], pairs.object[order]
    bounds = [*np.flatnonzero(np.diff(rank[rows], prepend=-1)), len(rows)]
    for start, stop in zip(bounds[:-1], bounds[1:]):
        free = start + np.flatnonzero(~taken[objects[start:stop]] | crowd[objects[start:stop]])
        chosen = free[np.diff(rows[free], prepend=-1) != 0]  # the first of each detection
        result[rows[chosen]] = objects[chosen]
        taken[objects[chosen]] = True
    return result


def match_coco(detections: Detections, dataset: Dataset, pairs: Pairs, ignored: np.ndarray,
               iou: float = 0.5) -> Match:
    """COCO's rule (pycocotools' evaluateImg). ignored: bool [N], objects that need not be found."""
    group = image_of(detections, dataset) * (len(dataset.classes) + 1) + detections.labels
    rank = rank_within(group, detections.scores)
    counted = rank < MOST
    same = (detections.labels[pairs.detection] == dataset.labels[pairs.object]) & counted[pairs.detection]
    taken = greedy(pairs.where(same & (pairs.iou >= min(iou, 1 - 1e-10))), rank, ignored, (dataset.flags & CROWD) > 0)
    hit_ignored = (taken >= 0) & ignored[taken] if len(ignored) else np.zeros(len(taken), bool)
    return Match((taken >= 0) & ~hit_ignored, hit_ignored | ~counted, taken)


def match_voc(detections: Detections, dataset: Dataset, pairs: Pairs, ignored: np.ndarray) -> Match:
    """VOC's rule (VOCevaldet.m): to the object of the class that a detection overlaps most, by more than one half; the
    best of those that go to one object is right."""
    same = pairs.where((detections.labels[pairs.detection] == dataset.labels[pairs.object]) & (pairs.iou >= ABOVE_HALF))
    best, target = nearest(same, len(detections))
    goes = best > 0
    hit_ignored = goes & ignored[target] if len(ignored) else np.zeros(len(goes), bool)
    rows = np.flatnonzero(goes & ~hit_ignored)
    right = np.zeros(len(detections), bool)
    right[rows[rank_within(target[rows], detections.scores[rows]) == 0]] = True
    return Match(right, hit_ignored, np.where(right | hit_ignored, target, -1))


def nearest(pairs: Pairs, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `count` detections: its largest overlap (0 without a pair) and that object's row, the first of
    equals (-1 without a pair)."""
    order = np.lexsort((pairs.object, -pairs.iou, pairs.detection))
    first = order[np.diff(pairs.detection[order], prepend=-1) != 0]
    best, target = np.zeros(count), np.full(count, -1, np.int64)
    best[pairs.detection[first]], target[pairs.detection[first]] = pairs.iou[first], pairs.object[first]
    return best, target


def ignored_objects(dataset: Dataset) -> np.ndarray:
    """bool [N]: crowd regions and difficult objects."""
    return (dataset.flags & (CROWD | DIFFICULT)) > 0
