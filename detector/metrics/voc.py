"""PASCAL VOC's average precision at one IoU. (VOC 2007 and 2012 development kits, section 3.4 and VOCevaldet.m)

Boxes here are x2-exclusive, so their widths equal the kit's `xmax - xmin + 1` of inclusive corners.
"""

import numpy as np

from detector.boxes import intersection_over_union
from detector.config.schema import METRICS
from detector.records import CROWD, DIFFICULT, Dataset, Detections

IOU = 0.5


def voc_metrics(detections: Detections, dataset: Dataset) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Means over the classes that have objects: AP (area, since 2010) and AP_11point (before); and both for each class.

    A class without a countable object is -1 and outside the mean.
    """
    per_class = {}
    for label, name in enumerate(dataset.classes, start=1):
        right, objects = matched(detections, dataset, label)
        recall, precision = curve(right, objects)
        per_class[name] = {"AP": area_ap(recall, precision) if objects else -1.0,
                           "AP_11point": eleven_point_ap(recall, precision) if objects else -1.0}
    known = [values for values in per_class.values() if values["AP"] >= 0]
    return {key: float(np.mean([values[key] for values in known])) if known else -1.0
            for key in METRICS["voc"]}, per_class


def matched(detections: Detections, dataset: Dataset, label: int) -> tuple[np.ndarray, int]:
    """For one class: which of its detections are right (bool, by falling score), and how many objects there are.

    A detection goes to the object it overlaps most, and is right if that overlap is above IOU and the object was not
    found before. What goes to a difficult object or a crowd is left out of the answer.
    """
    rows = np.flatnonzero(detections.labels == label)
    rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
    of_class = np.flatnonzero(dataset.labels == label)
    ignored = (dataset.flags[of_class] & (DIFFICULT | CROWD)) > 0
    images = dataset.image_ids[dataset.image_of_row()[of_class]]
    by_image = {image: np.flatnonzero(images == image) for image in np.unique(images)}
    found = np.zeros(len(of_class), bool)
    right = []
    for row in rows:
        members = by_image.get(detections.image_ids[row], np.zeros(0, np.int64))
        if not len(members):
            right.append(False)
            continue
        overlap = intersection_over_union(detections.boxes[row:row + 1], dataset.boxes[of_class[members]])[0]
        best = members[int(np.argmax(overlap))]
        if overlap.max() > IOU and ignored[best]:
            continue
        right.append(bool(overlap.max() > IOU and not found[best]))
        found[best] |= right[-1]
    return np.array(right, bool), int((~ignored).sum())


def curve(right: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after each detection, float64 [K]."""
    hits = np.cumsum(right)
    return hits / max(objects, 1), hits / np.arange(1, len(right) + 1)


def area_ap(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area below the curve, after precision is made to fall monotonically."""
    recall = np.concatenate([[0], recall, [1]])
    precision = np.maximum.accumulate(np.concatenate([[0], precision, [0]])[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(((recall[steps + 1] - recall[steps]) * precision[steps + 1]).sum())


def eleven_point_ap(recall: np.ndarray, precision: np.ndarray) -> float:
    """The mean of the best precision at recall 0, 0.1, ... 1 or more."""
    return float(np.mean([precision[recall >= k / 10].max(initial=0) for k in range(11)]))
