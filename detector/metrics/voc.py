"""PASCAL VOC's average precision at one IoU. (VOC 2007 and 2012 development kits, section 3.4 and VOCevaldet.m)

Boxes here are x2-exclusive, so their widths equal the kit's `xmax - xmin + 1` of inclusive corners.
"""

from typing import Iterator

import numpy as np

from detector.config.schema import METRICS
from detector.metrics.matching import ABOVE_HALF, ignored_objects, match_voc, overlapping
from detector.structures import Dataset, Detections


def voc_metrics(detections: Detections, dataset: Dataset) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Means over the classes that have objects: AP (area, since 2010) and AP_11point (before); and both for each class.

    A class without a countable object is -1 and outside the mean.
    """
    per_class = {name: {"AP": area_ap(recall, precision) if count else -1.0,
                        "AP_11point": eleven_point_ap(recall, precision) if count else -1.0}
                 for name, (recall, precision, count) in zip(dataset.classes, curves(detections, dataset))}
    known = [values for values in per_class.values() if values["AP"] >= 0]
    return {key: float(np.mean([values[key] for values in known])) if known else -1.0
            for key in METRICS["voc"]}, per_class


def curves(detections: Detections, dataset: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Recall and precision after each detection, and the number of countable objects, class by class. What goes to a
    difficult object or a crowd is neither right nor wrong."""
    ignored = ignored_objects(dataset)
    match = match_voc(detections, dataset, overlapping(detections, dataset, ABOVE_HALF, crowds=False), ignored)
    rows = np.flatnonzero(~match.ignored)
    rows = rows[np.lexsort((-detections.scores[rows], detections.labels[rows]))]
    bounds = np.searchsorted(detections.labels[rows], np.arange(1, len(dataset.classes) + 2))
    counts = np.bincount(dataset.labels[~ignored], minlength=len(dataset.classes) + 1)
    for label in range(1, len(dataset.classes) + 1):
        yield (*curve(match.right[rows[bounds[label - 1]:bounds[label]]], counts[label]), int(counts[label]))


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
