"""Why a detector scores as it does: what each detection and each object is, and what every kind of error costs.

I images, N objects, K detections, C classes. Rows of detections are those of the Detections, rows of objects those of
the Dataset that were analysed, in their order. Overlap here is always at IoU 0.5; the kinds of error and what they cost
are TIDE's (Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", sections 2.2 and 2.3).
"""

from dataclasses import dataclass, replace
from typing import Callable

import numpy as np

from detector.metrics import coco_kernel
from detector.metrics.coco import coco_metrics
from detector.metrics.matching import (
    ABOVE_HALF,
    Match,
    Pairs,
    ignored_objects,
    image_of,
    match_coco,
    match_voc,
    overlapping,
)
from detector.metrics.operating_point import at_threshold, best_threshold, calibration
from detector.metrics.tide import (
    BACKGROUND,
    BOTH,
    CLASS,
    DUPLICATE,
    ERRORS,
    IGNORED,
    LOCALISATION,
    MISSED,
    NEAR,
    RIGHT,
    Tally,
    by_class,
    class_aps,
    costs,
    judge,
)
from detector.metrics.voc import area_ap, curve, voc_metrics
from detector.structures import Dataset, Detections

# ERRORS, by number: what a detection or an object is. The first two are no errors.
#   RIGHT         found an object that no better detection of the class had found
#   IGNORED       hit a crowd or a difficult object, or is beyond the best 100 of its class and image
#   LOCALISATION  right class, overlap 0.1 to 0.5
#   CLASS         overlap 0.5 or more, with an object of another class
#   BOTH          wrong class, overlap 0.1 to 0.5
#   DUPLICATE     a better detection had found the object
#   BACKGROUND    overlap below 0.1 with every object
#   MISSED        of objects alone: neither found, nor hit by a localisation or class error
__all__ = ["Analysis", "analyse", "ERRORS", "RIGHT", "IGNORED", "LOCALISATION", "CLASS", "BOTH", "DUPLICATE",
           "BACKGROUND", "MISSED"]
RECALL = np.linspace(0, 1, 101)
SIZES = {"APs": (0, 32**2), "APm": (32**2, 96**2), "APl": (96**2, 1e10)}  # pixels, COCO's


@dataclass(frozen=True)
class Analysis:
    """The whole story of one evaluation; -1 stands where there is nothing to be found, as in the metrics."""

    classes: tuple[str, ...]                # [C]
    metrics: dict[str, float]               # the headline numbers: COCO's twelve, or VOC's
    per_class: dict[str, dict[str, float]]  # AP, AP50, AP75, APs, APm, APl (VOC: AP, AP_11point, APs, APm, APl),
                                            # and counts: objects, detections
    # Curves at IoU 0.5, over RECALL = 0, 0.01 ... 1 [101]
    precision: np.ndarray         # float32 [C, 101], best precision at this recall or more
    scores: np.ndarray            # float32 [C, 101], the score where that recall is reached; 0 where it never is
    mean_precision: np.ndarray    # float32 [101], over the classes that have objects
    # Of each detection, whatever its score: only better ones decide, so a threshold on scores changes nothing here
    detection_error: np.ndarray   # uint8 [K], RIGHT ... BACKGROUND
    detection_object: np.ndarray  # int64 [K], row of the object it found or comes nearest to for this error; -1: none
    detection_iou: np.ndarray     # float32 [K], overlap with that object, 0 where there is none
    # Of each object
    object_error: np.ndarray      # uint8 [N], RIGHT (found), IGNORED, MISSED, or LOCALISATION or CLASS: only hit so
    object_detection: np.ndarray  # int64 [N], row of the detection that found it; -1: none
    # What errors cost: AP at IoU 0.5 that would be gained if all of one kind were mended, by name
    ap50: float
    cost: dict[str, float]        # keys: localisation, class, both, duplicate, background, missed
    # At the score where F1 over all classes is best
    best_score: float
    f1: float
    confusion: np.ndarray         # int64 [C + 1, C + 1], rows: true class, columns: predicted; number 0 is background
    image_errors: np.ndarray      # int32 [I, 8], how often each of ERRORS occurs in an image, missed objects included
    image_weight: np.ndarray      # float32 [I], scores of its false detections plus 1 for each object not found
    # Do scores say how often detections are right? Ten bins of width 0.1
    bin_count: np.ndarray         # int64 [10], detections that are not ignored
    bin_score: np.ndarray         # float32 [10], their mean score, 0 in an empty bin
    bin_right: np.ndarray         # float32 [10], the share that is right
    calibration_error: float      # expected calibration error: mean of |bin_score - bin_right|, weighted by bin_count


def analyse(detections: Detections, dataset: Dataset, metric: str = "coco",
            truth: coco_kernel.IndexedGroundTruth | None = None) -> Analysis:
    """metric: whose rule decides what is right; Visual Genome has VOC's. truth: kernel.index(dataset), where it is at
    hand."""
    rule = RULES[metric]
    ignored, image = ignored_objects(dataset), image_of(detections, dataset)
    pairs = overlapping(detections, dataset, NEAR, rule.crowds)
    match = rule.match(detections, dataset, pairs, ignored)
    verdicts = judge(detections, dataset, pairs, match, ignored, rule.least)
    positives = np.bincount(dataset.labels[~ignored], minlength=len(dataset.classes) + 1)[1:]
    tally = Tally(detections.labels, detections.scores, np.argsort(np.argsort(dataset.image_ids))[image], match.right,
                  ~match.ignored, positives)
    metrics, per_class = (coco_metrics(detections, dataset, truth) if metric == "coco"
                          else voc_by_size(detections, dataset, pairs, tally))
    counts = np.bincount(detections.labels, minlength=len(dataset.classes) + 1)[1:]
    for c, name in enumerate(dataset.classes):
        per_class[name] |= {"objects": int(positives[c]), "detections": int(counts[c])}
    precision, scores = curves(tally)
    ap50, cost = costs(tally, verdicts, dataset.labels, rule.ap)
    best_score, f1 = best_threshold(tally)
    return Analysis(
        classes=dataset.classes, metrics=metrics, per_class=per_class, precision=precision, scores=scores,
        mean_precision=precision[positives > 0].mean(axis=0) if positives.any() else np.full(101, -1, np.float32),
        detection_error=verdicts.error, detection_object=verdicts.target,
        detection_iou=verdicts.iou.astype(np.float32), object_error=verdicts.object_error,
        object_detection=verdicts.found_by, ap50=ap50, cost=cost,
        best_score=best_score, f1=f1,
        **at_threshold(best_score, detections, dataset, image, pairs, verdicts, rule.least), **calibration(tally))


@dataclass(frozen=True)
class Rule:
    """How a metric decides."""

    match: Callable[[Detections, Dataset, Pairs, np.ndarray], Match]
    ap: Callable[[np.ndarray, int], float]  # of verdicts by falling score, and the number of objects
    least: float                            # overlap that a right detection needs
    crowds: bool                            # of a crowd, is overlap the share of the detection inside it?


def coco_ap(right: np.ndarray, objects: int) -> float:
    """The mean of the best precision at 101 recalls or more."""
    return float(at_recalls(right, objects)[0].mean())


def at_recalls(right: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of RECALL: best precision at this recall or more, float64 [101], and the number of the detection at
    which the recall is reached, int64 [101]; 0 and len(right) where it never is. As in pycocotools' accumulate."""
    hits = np.cumsum(right)
    precision = hits / (np.arange(1, len(right) + 1) + np.spacing(1))
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    reached = np.searchsorted(hits / objects, RECALL, side="left")
    return best[reached], reached


VOC = Rule(match_voc, lambda right, objects: area_ap(*curve(right, objects)), ABOVE_HALF, False)
RULES = {"coco": Rule(match_coco, coco_ap, 0.5, True), "voc": VOC, "visual_genome": VOC}


def curves(tally: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Analysis.precision and Analysis.scores."""
    precision, scores = (np.full((len(tally.positives), len(RECALL)), value, np.float32) for value in (-1, 0))
    for c, (right, found) in enumerate(by_class(tally)):
        if tally.positives[c]:
            precision[c], reached = at_recalls(right, tally.positives[c])
            scores[c] = np.append(found, 0)[reached]
    return precision, scores


def voc_by_size(detections: Detections, dataset: Dataset, pairs: Pairs,
                tally: Tally) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """VOC's numbers, and for each class AP by size as COCO has it: what is of another size is ignored."""
    metrics, per_class = voc_metrics(detections, dataset)
    rule, ignored = VOC, ignored_objects(dataset)
    sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
    area = sides[:, 0] * sides[:, 1]
    for key, (low, high) in SIZES.items():
        other = ignored | (dataset.areas < low) | (dataset.areas > high)
        match = rule.match(detections, dataset, pairs, other)
        outside = ~match.right & ((area < low) | (area > high))
        positives = np.bincount(dataset.labels[~other], minlength=len(dataset.classes) + 1)[1:]
        aps = class_aps(replace(tally, right=match.right, counted=~match.ignored & ~outside, positives=positives),
                        rule.ap)
        for name, ap in zip(dataset.classes, aps):
            per_class[name][key] = float(ap)
    return metrics, per_class


def describe_errors(analysis: Analysis) -> str:
    """Two lines: what the errors of each kind cost, and the score at which the detector is best."""
    costs = ", ".join(f"{kind} {cost:.3f}" for kind, cost in sorted(analysis.cost.items(), key=lambda item: -item[1]))
    return (f"AP at IoU 0.5 is {analysis.ap50:.3f}; it would gain, if all errors of one kind were mended: {costs}\n"
            f"F1 is highest, {analysis.f1:.3f}, for detections with a score of {analysis.best_score:.2f} or more; "
            f"scores are off by {analysis.calibration_error:.3f} on average")
