"""A detector at one score threshold, the one with the highest F1: confusion matrix, errors of each image; calibration.

Shapes: I images, N objects (rows of the Dataset), K detections (rows of the Detections), C classes.
"""

import numpy as np

from detector.metrics.matching import Pairs, match_greedily, rank_in_group
from detector.metrics.tide import ERRORS, IGNORED, MISSED, TRUE_POSITIVE, APInput, ErrorTypes
from detector.structures import CROWD, Dataset, Detections

BINS = 10  # of scores, for calibration


def best_threshold(inputs: APInput) -> tuple[float, float]:
    """Returns the score threshold with the highest F1 over all classes, and this F1; (1, 0) without a true positive.

    A detection passes a threshold if its score is equal or higher.
    """
    rows = np.flatnonzero(inputs.counted)
    rows = rows[np.argsort(-inputs.scores[rows], kind="stable")]
    f1 = 2 * np.cumsum(inputs.true_positive[rows]) / (np.arange(1, len(rows) + 1) + inputs.num_objects.sum())
    f1[:-1][inputs.scores[rows[1:]] == inputs.scores[rows[:-1]]] = 0  # equal scores pass a threshold at once
    best = int(f1.argmax()) if len(f1) else 0
    return (float(inputs.scores[rows[best]]), float(f1[best])) if len(f1) and f1[best] > 0 else (1.0, 0.0)


def errors_at_threshold(threshold: float, detections: Detections, dataset: Dataset, image: np.ndarray, pairs: Pairs,
                        errors: ErrorTypes, min_iou: float) -> dict[str, np.ndarray]:
    """Returns Analysis.confusion, image_errors and image_weight of the detections with this score or more.

    Args:
        image: int64 [K], index of the image of each detection.
        pairs: at least all pairs with an IoU of `min_iou` or more.
        min_iou: the IoU from which on a false positive counts as confused with an object of another class.
    """
    shown = detections.scores >= threshold
    counted = shown & (errors.detection_error != IGNORED)
    wrong = counted & (errors.detection_error != TRUE_POSITIVE)
    sought = errors.object_error != IGNORED
    if len(detections):
        detected = (errors.object_detection >= 0) & shown[errors.object_detection]
    else:
        detected = np.zeros(len(sought), bool)
    missed = sought & ~detected
    # A false positive is confused with an object of another class that was not found; each object is assigned once.
    confused_object = assign_confusions(detections, dataset, image, pairs.select(
        wrong[pairs.detection] & missed[pairs.object] & (pairs.iou >= min_iou)
        & (detections.labels[pairs.detection] != dataset.labels[pairs.object])))
    missing = np.bincount(dataset.image_of_box()[missed], minlength=len(dataset))
    image_errors = np.zeros((len(dataset), len(ERRORS)), np.int32)
    np.add.at(image_errors, (image[shown], errors.detection_error[shown]), 1)
    image_errors[:, MISSED] = missing
    weight = np.bincount(image[wrong], detections.scores[wrong], minlength=len(dataset)) + missing
    return {"confusion": confusion_matrix(detections, dataset, detected, missed, wrong, confused_object),
            "image_errors": image_errors, "image_weight": weight.astype(np.float32)}


def confusion_matrix(detections: Detections, dataset: Dataset, detected: np.ndarray, missed: np.ndarray,
                     wrong: np.ndarray, confused_object: np.ndarray) -> np.ndarray:
    """Returns the confusion matrix, int64 [C + 1, C + 1]; rows: true label, columns: predicted; 0 is background.

    Args:
        detected, missed: bool [N], of the objects.
        wrong: bool [K], false positives.
        confused_object: int64 [K], the object that a false positive is confused with; -1: background.
    """
    confusion = np.zeros((len(dataset.classes) + 1, len(dataset.classes) + 1), np.int64)
    np.add.at(confusion, (dataset.labels[detected], dataset.labels[detected]), 1)
    true_label = np.where(confused_object >= 0, dataset.labels[confused_object] if len(dataset.labels) else 0, 0)
    np.add.at(confusion, (true_label[wrong], detections.labels[wrong]), 1)
    background = missed.copy()  # objects that no detection is confused with
    background[confused_object[confused_object >= 0]] = False
    np.add.at(confusion, (dataset.labels[background], np.zeros(int(background.sum()), np.int64)), 1)
    return confusion


def assign_confusions(detections: Detections, dataset: Dataset, image: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Returns the object that each detection is confused with, int64 [K], -1: none; by falling score in each image."""
    return match_greedily(pairs, rank_in_group(image, detections.scores), np.zeros(len(dataset.boxes), bool),
                          (dataset.flags & CROWD) > 0)


def calibration(inputs: APInput) -> dict[str, np.ndarray | float]:
    """Returns Analysis.bin_count, bin_score, bin_precision and calibration_error of the counted detections.

    The expected calibration error is that of Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2.
    """
    scores, true_positive = inputs.scores[inputs.counted].astype(np.float64), inputs.true_positive[inputs.counted]
    bin_index = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    count = np.bincount(bin_index, minlength=BINS)
    score, precision = (np.bincount(bin_index, values, minlength=BINS) / np.maximum(count, 1)
                        for values in (scores, true_positive))
    error = float((count * np.abs(score - precision)).sum() / max(count.sum(), 1))
    return {"bin_count": count, "bin_score": score.astype(np.float32), "bin_precision": precision.astype(np.float32),
            "calibration_error": error}
