"""Precision-recall curves and the confusion matrix of an analysis, for TensorBoard."""

import numpy as np

from detector.metrics.analysis import Analysis
from detector.metrics.tide import IGNORED, TRUE_POSITIVE
from detector.structures import Detections
from detector.visualization.curves_file import curves_of
from detector.visualization.plot_curves import draw_confusion
from detector.visualization.plots import DPI, SIZE, draw_png
from detector.visualization.validation_images import EncodedImage

MAX_CLASSES = 100  # with more classes, no curves are made
THRESHOLDS = np.linspace(0, 1, 127)  # score thresholds; 127 is TensorBoard's default number
CONFUSION_SIZES = {6: (4.4, 3.4), 10: (5.6, 4.2)}  # classes: width and height in inches; SIZE for more

PrCurve = tuple[str, np.ndarray]  # class name, and the result of `count_at_thresholds`


def pr_curves(analysis: Analysis, detections: Detections) -> list[PrCurve]:
    """Returns the precision-recall curve at IoU 0.5 of each class with objects; none for more than MAX_CLASSES."""
    if len(analysis.classes) > MAX_CLASSES:
        return []
    num_objects = [analysis.per_class[name]["objects"] for name in analysis.classes]
    return [(name, count_at_thresholds(detections, analysis.detection_error, label, count))
            for label, (name, count) in enumerate(zip(analysis.classes, num_objects), 1) if count]


def confusion_images(analysis: Analysis, step: int) -> list[EncodedImage]:
    """Returns the confusion matrix at the score with the best F1 as one image; see draw_confusion.

    The fewer classes, the smaller the image: TensorBoard reduces it to about 350 pixels.
    """
    curves = curves_of(step, analysis)
    size = next((size for classes, size in CONFUSION_SIZES.items() if len(analysis.classes) <= classes), SIZE)
    png = draw_png(lambda figure: draw_confusion(figure, curves), size)
    return [EncodedImage("plots/confusion", png, *(round(side * DPI) for side in size))]


def count_at_thresholds(detections: Detections, error: np.ndarray, label: int, objects: int) -> np.ndarray:
    """Counts the detections of one class with a score of at least each of THRESHOLDS.

    Args:
        error: uint8 [K], error number of each detection (metrics/tide.py).
        objects: number of objects of the class that are not ignored.

    Returns:
        float64 [6, T], in TensorBoard's order: true positives, false positives, true negatives (0), false negatives,
        precision (1 without detections) and recall.
    """
    of_class = (detections.labels == label) & (error != IGNORED)
    scores = np.sort(detections.scores[of_class])
    correct_scores = np.sort(detections.scores[of_class & (error == TRUE_POSITIVE)])
    total, correct = (len(values) - np.searchsorted(values, THRESHOLDS.astype(values.dtype))
                      for values in (scores, correct_scores))
    precision = np.divide(correct, total, out=np.ones(len(THRESHOLDS)), where=total > 0)
    return np.stack([correct, total - correct, np.zeros(len(correct)), objects - correct, precision, correct / objects])
