"""What kind of error each wrong detection is, and how much AP each kind costs.

TIDE's kinds, order of tests and oracles (Bolya et al. 2020, sections 2.2 and 2.3, and its errors/main_errors.py): one
kind is mended at a time, and what AP at IoU 0.5 gains is what it costs. N objects, K detections, C classes.
"""

from dataclasses import dataclass, replace
from typing import Callable

import numpy as np

from detector.metrics.matching import Match, Pairs, nearest
from detector.structures import Dataset, Detections

NEAR = 0.1  # TIDE's background threshold: what overlaps nothing by this much has nothing to do with any object

# What a detection or an object is. The first two are no errors; MISSED is of objects alone.
RIGHT, IGNORED, LOCALISATION, CLASS, BOTH, DUPLICATE, BACKGROUND, MISSED = range(8)
ERRORS = ("right", "ignored", "localisation", "class", "both", "duplicate", "background", "missed")


@dataclass(frozen=True)
class Verdicts:
    """Of each detection and each object; fields as those of analysis.Analysis with the same beginning."""

    error: np.ndarray         # uint8 [K]
    target: np.ndarray        # int64 [K]
    iou: np.ndarray           # float64 [K]
    object_error: np.ndarray  # uint8 [N]
    found_by: np.ndarray      # int64 [N]


def judge(detections: Detections, dataset: Dataset, pairs: Pairs, match: Match, ignored: np.ndarray,
          least: float) -> Verdicts:
    """pairs: all with an overlap of NEAR or more; least: the overlap that the rule of `match` asks for."""
    usable = pairs.where(~ignored[pairs.object])
    same_class = detections.labels[usable.detection] == dataset.labels[usable.object]
    same, same_object = nearest(usable.where(same_class), len(detections))
    other, other_object = nearest(usable.where(~same_class), len(detections))
    wrong = ~match.right & ~match.ignored
    tests = [(match.right, RIGHT, match.object), (match.ignored, IGNORED, match.object),
             ((same >= NEAR) & (same < least), LOCALISATION, same_object), (other >= least, CLASS, other_object),
             (same >= least, DUPLICATE, same_object), (other >= NEAR, BOTH, other_object)]
    conditions = [condition for condition, _, _ in tests]
    error = np.select(conditions, [np.uint8(kind) for _, kind, _ in tests], np.uint8(BACKGROUND))
    target = np.select(conditions, [objects for _, _, objects in tests], -1)
    iou = np.select(conditions, [matched_iou(pairs, match), matched_iou(pairs, match), same, other, same, other], 0.0)

    found_by = np.full(len(dataset.boxes), -1, np.int64)
    found_by[match.object[match.right]] = np.flatnonzero(match.right)
    object_error = np.full(len(dataset.boxes), MISSED, np.uint8)
    for kind in (CLASS, LOCALISATION):
        object_error[target[wrong & (error == kind)]] = kind
    object_error[found_by >= 0] = RIGHT
    object_error[ignored] = IGNORED
    return Verdicts(error, target, iou, object_error, found_by)


def matched_iou(pairs: Pairs, match: Match) -> np.ndarray:
    """float64 [K]: overlap with match.object, 0 without one."""
    iou, of = np.zeros(len(match.object)), match.object[pairs.detection] == pairs.object
    iou[pairs.detection[of]] = pairs.iou[of]
    return iou


@dataclass(frozen=True)
class Tally:
    """What an AP is made of."""

    labels: np.ndarray     # int [K]
    scores: np.ndarray     # float32 [K]
    places: np.ndarray     # int64 [K], the image's place in the order of ids: equal scores are taken in this order
    right: np.ndarray      # bool [K]
    counted: np.ndarray    # bool [K], false for what is ignored
    positives: np.ndarray  # int64 [C], objects to be found


def class_aps(tally: Tally, ap: Callable[[np.ndarray, int], float]) -> np.ndarray:
    """float64 [C]: `ap` of the verdicts (bool, by falling score) and the objects of each class; -1 without objects."""
    return np.array([ap(right, positives) if positives else -1.0
                     for (right, _), positives in zip(by_class(tally), tally.positives)])


def by_class(tally: Tally) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each class: verdicts (bool) and scores of what counts, by falling score."""
    rows = np.flatnonzero(tally.counted)
    rows = rows[np.lexsort((tally.places[rows], -tally.scores[rows], tally.labels[rows]))]
    bounds = np.searchsorted(tally.labels[rows], np.arange(1, len(tally.positives) + 2))
    return [(tally.right[rows[start:stop]], tally.scores[rows[start:stop]])
            for start, stop in zip(bounds[:-1], bounds[1:])]


def costs(tally: Tally, verdicts: Verdicts, object_labels: np.ndarray,
          ap: Callable[[np.ndarray, int], float]) -> tuple[float, dict[str, float]]:
    """Mean AP, and what each kind of error takes from it, by name."""
    known = tally.positives > 0
    if not known.any():
        return -1.0, dict.fromkeys(ERRORS[LOCALISATION:], 0.0)

    def mean_ap(mended: Tally) -> float:
        return float(class_aps(mended, ap)[known].clip(min=0).mean())  # a class whose objects were all missed stays 0
    now, gained = mean_ap(tally), {}
    for kind in (LOCALISATION, CLASS, BOTH, DUPLICATE, BACKGROUND, MISSED):
        gained[ERRORS[kind]] = mean_ap(mend(tally, verdicts, object_labels, kind)) - now
    return now, gained


def mend(tally: Tally, verdicts: Verdicts, object_labels: np.ndarray, kind: int) -> Tally:
    """As if there were no errors of this kind.

    The best detection that errs in place or class about an object becomes right, if nothing else found the object; the
    others, and duplicates and the like, are taken away; missed objects are not asked for.
    """
    if kind == MISSED:
        missed = object_labels[verdicts.object_error == MISSED]
        return replace(tally, positives=tally.positives - np.bincount(missed, minlength=len(tally.positives) + 1)[1:])
    wrong = verdicts.error == kind
    if kind not in (LOCALISATION, CLASS):
        return replace(tally, counted=tally.counted & ~wrong)
    rows = np.flatnonzero(wrong)
    rows = rows[verdicts.found_by[verdicts.target[rows]] < 0]
    rows = rows[np.lexsort((tally.places[rows], -tally.scores[rows], verdicts.target[rows]))]
    rows = rows[np.diff(verdicts.target[rows], prepend=-1) != 0]  # the best for each object
    better = np.zeros(len(wrong), bool)
    better[rows] = True
    labels = tally.labels.copy()
    labels[rows] = object_labels[verdicts.target[rows]]
    return replace(tally, labels=labels, right=tally.right | better, counted=tally.counted & (~wrong | better))
