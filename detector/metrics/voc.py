"""PASCAL VOC's average precision. (VOC 2007 and 2012 development kits, section 3.4 and VOCevaldet.m)

The boxes of this package have exclusive corners x2, y2, so `x2 - x1` equals the kit's `xmax - xmin + 1` of inclusive
corners.
"""

from typing import Iterator

import numpy as np

from detector.config.schema import METRICS
from detector.metrics.matching import (
    ABOVE_HALF,
    count_objects,
    ignored_object_mask,
    match_voc,
    overlapping_pairs,
    rows_by_class,
)
from detector.structures import Dataset, Detections


def voc_metrics(detections: Detections, dataset: Dataset, min_iou: float = ABOVE_HALF
                ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Returns AP (area, VOC since 2010) and AP_11point (VOC 2007), for the data set and for each class.

    The value of the data set is the mean over the classes that have objects which are neither difficult nor crowd
    regions. Other classes have -1, and so has the data set if there is no such class.

    Args:
        min_iou: the lowest IoU at which a detection finds an object; VOC's is the one above 0.5.
    """
    per_class = {name: {"AP": area_ap(recall, precision) if objects else -1.0,
                        "AP_11point": eleven_point_ap(recall, precision) if objects else -1.0}
                 for name, (recall, precision, objects)
                 in zip(dataset.classes, precision_recall_by_class(detections, dataset, min_iou))}
    known = [values for values in per_class.values() if values["AP"] >= 0]
    return {key: float(np.mean([values[key] for values in known])) if known else -1.0
            for key in METRICS["voc"]}, per_class


def precision_recall_by_class(detections: Detections, dataset: Dataset, min_iou: float = ABOVE_HALF
                              ) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yields for each class the recall and precision after each detection, and the number of objects to be found.

    Difficult objects and crowd regions need not be found, and detections assigned to them are left out.
    """
    ignored = ignored_object_mask(dataset)
    pairs = overlapping_pairs(detections, dataset, min_iou, crowd_iou=False)
    match = match_voc(detections, dataset, pairs, ignored, min_iou)
    rows = rows_by_class(detections.labels, detections.scores, len(dataset.classes), ~match.ignored)
    for of_class, objects in zip(rows, count_objects(dataset, ignored)):
        yield (*precision_recall(match.true_positive[of_class], objects), int(objects))


def precision_recall(true_positive: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns recall and precision after each detection, float64 [K].

    Args:
        true_positive: bool [K], by falling score.
        objects: number of objects to be found.
    """
    hits = np.cumsum(true_positive)
    return hits / max(objects, 1), hits / np.arange(1, len(true_positive) + 1)


def area_ap(recall: np.ndarray, precision: np.ndarray) -> float:
    """Returns the area below the curve, after precision is replaced by the highest precision at this recall or more."""
    recall = np.concatenate([[0], recall, [1]])
    precision = np.maximum.accumulate(np.concatenate([[0], precision, [0]])[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(((recall[steps + 1] - recall[steps]) * precision[steps + 1]).sum())


def eleven_point_ap(recall: np.ndarray, precision: np.ndarray) -> float:
    """Returns the mean over the recalls 0, 0.1, ... 1 of the highest precision at this recall or more."""
    return float(np.mean([precision[recall >= k / 10].max(initial=0) for k in range(11)]))
