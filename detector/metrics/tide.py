"""Assigns an error type to each detection and each object, and computes how much AP every error type costs.

The error types, the order in which they are tested and their fixes ("oracles") are those of TIDE (Bolya et al. 2020,
"TIDE: A General Toolbox for Identifying Object Detection Errors", sections 2.2 and 2.3, and tidecv's
errors/main_errors.py). The cost of a type is the AP at IoU 0.5 that would be gained if all errors of this type, and of
no other, were fixed.

Shapes: N objects (rows of the Dataset), K detections (rows of the Detections), C classes.
"""

from dataclasses import dataclass, replace
from typing import Callable

import numpy as np

from detector.metrics.matching import Match, Pairs, best_overlaps, rows_by_class
from detector.structures import Dataset, Detections

BACKGROUND_IOU = 0.1  # TIDE's t_b: a detection whose IoU with every object is below this is on the background

# The types of a detection or an object. The first two are no errors; MISSED is a type of objects only.
#   TRUE_POSITIVE  detection: assigned to an object of its class; object: found
#   IGNORED        detection: assigned to a crowd region or a difficult object, or beyond the best 100 of its class and
#                  image; object: crowd region or difficult, or hidden by that limit (see limit.py)
#   LOCALISATION   right class, IoU from 0.1 to the threshold
#   CLASS          wrong class, IoU of the threshold or more
#   BOTH           wrong class, IoU from 0.1 to the threshold
#   DUPLICATE      right class, IoU of the threshold or more, but the object was assigned to a better detection
#   BACKGROUND     IoU below 0.1 with every object
#   MISSED         object: not found, and no detection has a localization or class error on it
TRUE_POSITIVE, IGNORED, LOCALISATION, CLASS, BOTH, DUPLICATE, BACKGROUND, MISSED = range(8)
ERRORS = ("right", "ignored", "localization", "class", "both", "duplicate", "background", "missed")  # names in reports
LIMIT = "limit of detections"  # the cost of hidden objects


@dataclass(frozen=True)
class ErrorTypes:
    """The type of each detection and each object; the fields are those of analysis.Analysis with the same names."""

    detection_error: np.ndarray   # uint8 [K]
    detection_object: np.ndarray  # int64 [K]
    detection_iou: np.ndarray     # float64 [K]
    object_error: np.ndarray      # uint8 [N]
    object_detection: np.ndarray  # int64 [N]


def classify_errors(detections: Detections, dataset: Dataset, pairs: Pairs, match: Match, ignored: np.ndarray,
                    hidden: np.ndarray, min_iou: float) -> ErrorTypes:
    """Returns the type of each detection and each object.

    Args:
        pairs: all pairs with an IoU of BACKGROUND_IOU or more.
        match: the assignment of detections to objects.
        ignored: bool [N], objects that need not be found.
        hidden: bool [N], objects that cannot be found because of COCO's limit on detections.
        min_iou: the IoU that a true positive needs by the rule of `match`.
    """
    usable = pairs.select(~ignored[pairs.object])
    same_class = detections.labels[usable.detection] == dataset.labels[usable.object]
    same_iou, same_object = best_overlaps(usable.select(same_class), len(detections))
    other_iou, other_object = best_overlaps(usable.select(~same_class), len(detections))
    matched_iou = iou_with_match(pairs, match)
    tests = [  # condition, type, object, IoU; the first condition that holds decides
        (match.true_positive, TRUE_POSITIVE, match.object, matched_iou),
        (match.ignored, IGNORED, match.object, matched_iou),
        ((same_iou >= BACKGROUND_IOU) & (same_iou < min_iou), LOCALISATION, same_object, same_iou),
        (other_iou >= min_iou, CLASS, other_object, other_iou),
        (same_iou >= min_iou, DUPLICATE, same_object, same_iou),
        (other_iou >= BACKGROUND_IOU, BOTH, other_object, other_iou)]
    conditions = [condition for condition, _, _, _ in tests]
    error = np.select(conditions, [np.uint8(kind) for _, kind, _, _ in tests], np.uint8(BACKGROUND))
    target = np.select(conditions, [objects for _, _, objects, _ in tests], -1)
    iou = np.select(conditions, [ious for _, _, _, ious in tests], 0.0)

    object_detection = np.full(len(dataset.boxes), -1, np.int64)
    object_detection[match.object[match.true_positive]] = np.flatnonzero(match.true_positive)
    object_error = np.full(len(dataset.boxes), MISSED, np.uint8)
    wrong = ~match.true_positive & ~match.ignored
    for kind in (CLASS, LOCALISATION):
        object_error[target[wrong & (error == kind)]] = kind
    object_error[object_detection >= 0] = TRUE_POSITIVE
    object_error[ignored | hidden] = IGNORED
    return ErrorTypes(error, target, iou, object_error, object_detection)


def iou_with_match(pairs: Pairs, match: Match) -> np.ndarray:
    """Returns the IoU of each detection with the object it is assigned to, float64 [K]; 0 without one."""
    iou, assigned = np.zeros(len(match.object)), match.object[pairs.detection] == pairs.object
    iou[pairs.detection[assigned]] = pairs.iou[assigned]
    return iou


@dataclass(frozen=True)
class APInput:
    """All that AP is computed from."""

    labels: np.ndarray         # int [K]
    scores: np.ndarray         # float32 [K]
    image_order: np.ndarray    # int64 [K], position of the image by rising id; orders detections with equal scores
    true_positive: np.ndarray  # bool [K]
    counted: np.ndarray        # bool [K], False: ignored
    num_objects: np.ndarray    # int64 [C], objects to be found


def ap_per_class(inputs: APInput, ap: Callable[[np.ndarray, int], float]) -> np.ndarray:
    """Returns AP of each class, float64 [C]; -1 for a class without objects.

    Args:
        ap: computes AP from the true positives of a class (bool, by falling score) and its number of objects.
    """
    return np.array([ap(true_positive, objects) if objects else -1.0
                     for (true_positive, _), objects in zip(split_by_class(inputs), inputs.num_objects)])


def split_by_class(inputs: APInput) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns for each class `true_positive` and `scores` of its counted detections, by falling score."""
    rows = rows_by_class(inputs.labels, inputs.scores, len(inputs.num_objects), inputs.counted, inputs.image_order)
    return [(inputs.true_positive[of_class], inputs.scores[of_class]) for of_class in rows]


def error_costs(inputs: APInput, errors: ErrorTypes, object_labels: np.ndarray, hidden: np.ndarray,
                ap: Callable[[np.ndarray, int], float]) -> tuple[float, dict[str, float]]:
    """Returns mean AP over the classes with objects, and the AP that fixing each error type would gain, by its name.

    With hidden objects, LIMIT is what AP would gain if they need not be found. Without objects, mean AP is -1 and every
    cost 0.

    Args:
        object_labels: int [N], labels of the objects.
        hidden: bool [N], objects that cannot be found because of COCO's limit on detections.
        ap: see `ap_per_class`.
    """
    known = inputs.num_objects > 0
    if not known.any():
        return -1.0, dict.fromkeys(ERRORS[LOCALISATION:], 0.0)

    def mean_ap(fixed: APInput) -> float:
        # clip: a class whose objects were all missed has no objects left when MISSED is fixed; its AP stays 0
        return float(ap_per_class(fixed, ap)[known].clip(min=0).mean())
    unchanged = mean_ap(inputs)
    costs = {ERRORS[kind]: mean_ap(without_errors(inputs, errors, object_labels, kind)) - unchanged
             for kind in (LOCALISATION, CLASS, BOTH, DUPLICATE, BACKGROUND, MISSED)}
    if hidden.any():
        costs[LIMIT] = mean_ap(without_objects(inputs, object_labels[hidden])) - unchanged
    return unchanged, costs


def without_objects(inputs: APInput, labels: np.ndarray) -> APInput:
    """Returns the inputs of AP as if the objects with these labels need not be found."""
    counts = np.bincount(labels, minlength=len(inputs.num_objects) + 1)[1:]
    return replace(inputs, num_objects=inputs.num_objects - counts)


def without_errors(inputs: APInput, errors: ErrorTypes, object_labels: np.ndarray, kind: int) -> APInput:
    """Returns the inputs of AP as if there were no errors of this type (TIDE's oracle of the type).

    MISSED: missed objects no longer have to be found. BOTH, DUPLICATE, BACKGROUND: the detections are removed.
    LOCALISATION, CLASS: for each object that was not found, the detection with the highest score that has this error on
    it becomes a true positive of the object's class; the other detections with this error are removed.
    """
    if kind == MISSED:
        return without_objects(inputs, object_labels[errors.object_error == MISSED])
    wrong = errors.detection_error == kind
    if kind not in (LOCALISATION, CLASS):
        return replace(inputs, counted=inputs.counted & ~wrong)
    rows, target = np.flatnonzero(wrong), errors.detection_object
    rows = rows[errors.object_detection[target[rows]] < 0]
    rows = rows[np.lexsort((inputs.image_order[rows], -inputs.scores[rows], target[rows]))]
    rows = rows[np.diff(target[rows], prepend=-1) != 0]  # the highest score of each object
    fixed = np.zeros(len(wrong), bool)
    fixed[rows] = True
    labels = inputs.labels.copy()
    labels[rows] = object_labels[target[rows]]
    return replace(inputs, labels=labels, true_positive=inputs.true_positive | fixed,
                   counted=inputs.counted & (~wrong | fixed))
