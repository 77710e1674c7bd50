"""Explains an evaluation: the outcome of each detection and object, what each error type costs, curves, calibration.

Shapes: I images, N objects, K detections, C classes. Rows of detections are those of the Detections, rows of objects
those of the Dataset. The IoU threshold is 0.5 throughout. Error types and their costs are TIDE's (see metrics/tide.py,
which describes each type).
"""

from dataclasses import dataclass, replace
from typing import Callable

import numpy as np

from detector.metrics import coco_kernel
from detector.metrics.coco import coco_metrics
from detector.metrics.coco_params import AREA_RANGES, RECALL_THRESHOLDS
from detector.metrics.limit import hidden_objects
from detector.metrics.matching import (
    ABOVE_HALF,
    Match,
    Pairs,
    count_objects,
    ignored_object_mask,
    image_indices,
    match_coco,
    match_voc,
    overlapping_pairs,
)
from detector.metrics.operating_point import best_threshold, calibration, errors_at_threshold
from detector.metrics.tide import (
    BACKGROUND_IOU,
    APInput,
    ap_per_class,
    classify_errors,
    error_costs,
    split_by_class,
    without_objects,
)
from detector.metrics.voc import area_ap, precision_recall, voc_metrics
from detector.structures import Dataset, Detections

SIZE_METRICS = {"APs": "small", "APm": "medium", "APl": "large"}  # the metric of each of AREA_RANGES


@dataclass(frozen=True)
class Analysis:
    """The analysis of one evaluation. As in the metrics, -1 stands where there is no object to be found."""

    classes: tuple[str, ...]                # [C]
    metrics: dict[str, float]               # the metrics of the whole data set: COCO's twelve, or VOC's
    per_class: dict[str, dict[str, float]]  # AP, AP50, AP75, APs, APm, APl (VOC: AP, AP_11point, APs, APm, APl),
                                            # and the numbers of objects and detections
    # Curves at IoU 0.5, at the recalls 0, 0.01 ... 1
    precision: np.ndarray         # float32 [C, 101], highest precision at this recall or more
    scores: np.ndarray            # float32 [C, 101], the score at which the recall is reached; 0 where it never is
    mean_precision: np.ndarray    # float32 [101], mean over the classes that have objects
    # Of each detection, whatever its score. A type depends only on detections with higher scores, so it stays the same
    # when a score threshold removes others.
    detection_error: np.ndarray   # uint8 [K], TRUE_POSITIVE ... BACKGROUND
    detection_object: np.ndarray  # int64 [K], row of the object it is assigned to or has its error on; -1: none
    detection_iou: np.ndarray     # float32 [K], IoU with that object; 0 without one
    # Of each object
    object_error: np.ndarray      # uint8 [N], TRUE_POSITIVE (found), IGNORED, MISSED, or LOCALISATION or CLASS: not
                                  # found, but a detection has this error on it
    object_detection: np.ndarray  # int64 [N], row of the detection assigned to it; -1: none
    # AP at IoU 0.5, and the gain in it if all errors of one type were fixed
    ap50: float
    cost: dict[str, float]        # keys: localization, class, both, duplicate, background, missed; and tide.LIMIT if
                                  # COCO's limit on detections hides objects
    # At the score threshold with the highest F1 over all classes
    best_score: float             # the threshold
    f1: float
    confusion: np.ndarray         # int64 [C + 1, C + 1], rows: true label, columns: predicted label; 0 is background
    image_errors: np.ndarray      # int32 [I, 8], how often each of ERRORS occurs in an image, missed objects included
    image_weight: np.ndarray      # float32 [I], sum of the scores of its false positives, plus 1 for each missed one
    # Calibration, in ten bins of scores of width 0.1
    bin_count: np.ndarray         # int64 [10], detections that are not ignored
    bin_score: np.ndarray         # float32 [10], their mean score; 0 in an empty bin
    bin_precision: np.ndarray     # float32 [10], the fraction of true positives; 0 in an empty bin
    calibration_error: float      # expected calibration error: |bin_score - bin_precision|, weighted by bin_count


@dataclass(frozen=True)
class MatchingRule:
    """How a metric matches detections to objects."""

    match: Callable[[Detections, Dataset, Pairs, np.ndarray], Match]
    ap: Callable[[np.ndarray, int], float]  # AP of a class: true positives by falling score, number of objects
    min_iou: float                          # IoU that a true positive needs
    crowd_iou: bool                         # COCO's overlap with crowd regions, see overlapping_pairs


def interpolate_precision(true_positive: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision at RECALL_THRESHOLDS as pycocotools' `COCOeval.accumulate` computes it.

    Args:
        true_positive: bool [K], by falling score.
        objects: number of objects, above 0.

    Returns:
        float64 [101], the highest precision at this recall or more, 0 where the recall is never reached; and int64
        [101], the index of the detection at which the recall is reached, K where it never is.
    """
    hits = np.cumsum(true_positive)
    precision = hits / (np.arange(1, len(true_positive) + 1) + np.spacing(1))
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    reached_at = np.searchsorted(hits / objects, RECALL_THRESHOLDS, side="left")
    return envelope[reached_at], reached_at


def coco_class_ap(true_positive: np.ndarray, objects: int) -> float:
    """Returns COCO's AP of a class at one IoU: the mean precision at 101 recalls."""
    return float(interpolate_precision(true_positive, objects)[0].mean())


def voc_class_ap(true_positive: np.ndarray, objects: int) -> float:
    """Returns VOC's AP of a class: the area below its precision-recall curve."""
    return area_ap(*precision_recall(true_positive, objects))


VOC_RULE = MatchingRule(match_voc, voc_class_ap, ABOVE_HALF, crowd_iou=False)
RULES = {"coco": MatchingRule(match_coco, coco_class_ap, 0.5, crowd_iou=True), "voc": VOC_RULE,
         "visual_genome": VOC_RULE}


def analyse(detections: Detections, dataset: Dataset, metric: str = "coco",
            ground_truth: coco_kernel.IndexedGroundTruth | None = None) -> Analysis:
    """Returns the analysis of `detections`.

    Args:
        metric: coco, voc or visual_genome, whose rule decides what a true positive is. The last two have VOC's rule.
        ground_truth: coco_kernel.index_ground_truth(dataset), if it exists already; saves time with metric coco.
    """
    rule = RULES[metric]
    ignored, image = ignored_object_mask(dataset), image_indices(detections, dataset)
    pairs = overlapping_pairs(detections, dataset, BACKGROUND_IOU, rule.crowd_iou)
    match = rule.match(detections, dataset, pairs, ignored)
    hidden = hidden_objects(dataset, match, ignored) if metric == "coco" else np.zeros(len(ignored), bool)
    errors = classify_errors(detections, dataset, pairs, match, ignored, hidden, rule.min_iou)
    num_objects = count_objects(dataset, ignored)
    inputs = APInput(detections.labels, detections.scores, np.argsort(np.argsort(dataset.image_ids))[image],
                     match.true_positive, ~match.ignored, num_objects)
    metrics, per_class = (coco_metrics(detections, dataset, ground_truth) if metric == "coco"
                          else voc_metrics_by_size(detections, dataset, pairs, inputs))
    num_detections = np.bincount(detections.labels, minlength=len(dataset.classes) + 1)[1:]
    for c, name in enumerate(dataset.classes):
        per_class[name] |= {"objects": int(num_objects[c]), "detections": int(num_detections[c])}
    precision, scores = class_curves(inputs)
    ap50, cost = error_costs(inputs, errors, dataset.labels, hidden, rule.ap)
    best_score, f1 = best_threshold(without_objects(inputs, dataset.labels[hidden]))
    return Analysis(
        classes=dataset.classes, metrics=metrics, per_class=per_class, precision=precision, scores=scores,
        mean_precision=precision[num_objects > 0].mean(axis=0) if num_objects.any() else np.full(101, -1, np.float32),
        detection_error=errors.detection_error, detection_object=errors.detection_object,
        detection_iou=errors.detection_iou.astype(np.float32), object_error=errors.object_error,
        object_detection=errors.object_detection, ap50=ap50, cost=cost, best_score=best_score, f1=f1,
        **errors_at_threshold(best_score, detections, dataset, image, pairs, errors, rule.min_iou),
        **calibration(inputs))


def class_curves(inputs: APInput) -> tuple[np.ndarray, np.ndarray]:
    """Returns Analysis.precision and Analysis.scores."""
    shape = len(inputs.num_objects), len(RECALL_THRESHOLDS)
    precision, scores = np.full(shape, -1, np.float32), np.zeros(shape, np.float32)
    for c, (true_positive, class_scores) in enumerate(split_by_class(inputs)):
        if inputs.num_objects[c]:
            precision[c], reached_at = interpolate_precision(true_positive, inputs.num_objects[c])
            scores[c] = np.append(class_scores, 0)[reached_at]
    return precision, scores


def voc_metrics_by_size(detections: Detections, dataset: Dataset, pairs: Pairs,
                        inputs: APInput) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Returns VOC's metrics, and in those of each class also APs, APm and APl.

    As in COCO, objects of another size are ignored, and so are false positives of another size.
    """
    metrics, per_class = voc_metrics(detections, dataset)
    ignored = ignored_object_mask(dataset)
    sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
    area = sides[:, 0] * sides[:, 1]
    for key, size in SIZE_METRICS.items():
        low, high = AREA_RANGES[size]
        other_size = ignored | (dataset.areas < low) | (dataset.areas > high)
        match = match_voc(detections, dataset, pairs, other_size)
        outside = ~match.true_positive & ((area < low) | (area > high))
        aps = ap_per_class(replace(inputs, true_positive=match.true_positive, counted=~match.ignored & ~outside,
                                   num_objects=count_objects(dataset, other_size)), voc_class_ap)
        for name, ap in zip(dataset.classes, aps):
            per_class[name][key] = float(ap)
    return metrics, per_class


def describe_best_score(analysis: Analysis) -> str:
    if analysis.f1 > 0:
        return f"F1 is highest, {analysis.f1:.3f}, at score threshold {analysis.best_score:.2f}"
    return "No detection is correct, so that no score threshold is the best one"


def describe_errors(analysis: Analysis) -> str:
    """Returns two lines of text: what each error type costs, and the score threshold with the highest F1."""
    costs = ", ".join(f"{kind} {cost:.3f}" for kind, cost in sorted(analysis.cost.items(), key=lambda item: -item[1]))
    return (f"AP at IoU 0.5 is {analysis.ap50:.3f}; fixing all errors of one type would gain: {costs}\n"
            f"{describe_best_score(analysis)}; scores differ from the "
            f"precision of detections with such scores by {analysis.calibration_error:.3f} on average")
