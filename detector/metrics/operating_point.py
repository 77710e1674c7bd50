"""A detector at one score threshold, the one where F1 is best: confusion, errors in each image; and its calibration."""

import numpy as np

from detector.metrics.matching import Pairs, greedy, rank_within
from detector.metrics.tide import ERRORS, IGNORED, MISSED, RIGHT, Tally, Verdicts
from detector.structures import CROWD, Dataset, Detections

BINS = 10


def best_threshold(tally: Tally) -> tuple[float, float]:
    """The score at or above which F1 over all classes is best, and that F1; 1 and 0 where nothing is right."""
    rows = np.flatnonzero(tally.counted)
    rows = rows[np.argsort(-tally.scores[rows], kind="stable")]
    f1 = 2 * np.cumsum(tally.right[rows]) / (np.arange(1, len(rows) + 1) + tally.positives.sum())
    f1[:-1][tally.scores[rows[1:]] == tally.scores[rows[:-1]]] = 0  # a threshold takes all of the same score
    best = int(f1.argmax()) if len(f1) else 0
    return (float(tally.scores[rows[best]]), float(f1[best])) if len(f1) and f1[best] > 0 else (1.0, 0.0)


def at_threshold(score: float, detections: Detections, dataset: Dataset, image: np.ndarray, pairs: Pairs,
                 verdicts: Verdicts, least: float) -> dict[str, np.ndarray]:
    """Analysis.confusion, image_errors and image_weight: of detections with this score or more. image: int64 [K]."""
    shown = detections.scores >= score
    counted = shown & (verdicts.error != IGNORED)
    wrong = counted & (verdicts.error != RIGHT)
    sought = verdicts.object_error != IGNORED
    found = (verdicts.found_by >= 0) & shown[verdicts.found_by] if len(detections) else np.zeros(len(sought), bool)
    lost = sought & ~found

    # A wrong detection is a confusion with an object that was not found, if it covers one; each object is taken once.
    taken = confused_with(detections, dataset, image, pairs.where(
        wrong[pairs.detection] & lost[pairs.object] & (pairs.iou >= least)
        & (detections.labels[pairs.detection] != dataset.labels[pairs.object])))
    size = len(dataset.classes) + 1
    confusion = np.zeros((size, size), np.int64)
    np.add.at(confusion, (dataset.labels[found], dataset.labels[found]), 1)
    truth = np.where(taken >= 0, dataset.labels[taken] if len(dataset.labels) else 0, 0)
    np.add.at(confusion, (truth[wrong], detections.labels[wrong]), 1)
    left = lost.copy()
    left[taken[taken >= 0]] = False
    np.add.at(confusion, (dataset.labels[left], np.zeros(int(left.sum()), np.int64)), 1)

    errors = np.zeros((len(dataset), len(ERRORS)), np.int32)
    np.add.at(errors, (image[shown], verdicts.error[shown]), 1)
    missing = np.bincount(dataset.image_of_box()[lost], minlength=len(dataset))
    errors[:, MISSED] = missing
    weight = np.bincount(image[wrong], detections.scores[wrong], minlength=len(dataset)) + missing
    return {"confusion": confusion, "image_errors": errors, "image_weight": weight.astype(np.float32)}


def confused_with(detections: Detections, dataset: Dataset, image: np.ndarray, pairs: Pairs) -> np.ndarray:
    """int64 [K]: the object each takes, the better detections of an image first, whatever the classes; -1: none."""
    return greedy(pairs, rank_within(image, detections.scores), np.zeros(len(dataset.boxes), bool),
                  (dataset.flags & CROWD) > 0)


def calibration(tally: Tally) -> dict[str, np.ndarray | float]:
    """Analysis.bin_* and calibration_error. (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2)"""
    scores, right = tally.scores[tally.counted].astype(np.float64), tally.right[tally.counted]
    number = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    count = np.bincount(number, minlength=BINS)
    score, share = (np.bincount(number, values, minlength=BINS) / np.maximum(count, 1) for values in (scores, right))
    error = float((count * np.abs(score - share)).sum() / max(count.sum(), 1))
    return {"bin_count": count, "bin_score": score.astype(np.float32), "bin_right": share.astype(np.float32),
            "calibration_error": error}
