"""Precision-recall curves and the confusion matrix of an analysis, for TensorBoard."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from detector.metrics.analysis import Analysis
from detector.metrics.tide import IGNORED, TRUE_POSITIVE
from detector.structures import Detections
from detector.visualization.validation_images import EncodedImage, encode_png

MAX_CLASSES = 100  # with more classes, neither curves nor the matrix are made
THRESHOLDS = np.linspace(0, 1, 127)  # score thresholds; 127 is TensorBoard's default number
TEXT, GRID, FULL_COLOR = (20, 24, 32), (215, 219, 226), (23, 92, 180)  # FULL_COLOR: of a cell with fraction 1

PrCurve = tuple[str, np.ndarray]  # class name, and the result of `count_at_thresholds`


def pr_curves(analysis: Analysis, detections: Detections) -> list[PrCurve]:
    """Returns the precision-recall curve at IoU 0.5 of each class with objects; none for more than MAX_CLASSES."""
    if len(analysis.classes) > MAX_CLASSES:
        return []
    num_objects = [analysis.per_class[name]["objects"] for name in analysis.classes]
    return [(name, count_at_thresholds(detections, analysis.detection_error, label, count))
            for label, (name, count) in enumerate(zip(analysis.classes, num_objects), 1) if count]


def confusion_images(analysis: Analysis) -> list[EncodedImage]:
    """Returns the confusion matrix at the score with the best F1 as one image; none for more than MAX_CLASSES."""
    if len(analysis.classes) > MAX_CLASSES:
        return []
    return [encode_png("analysis/confusion", draw_confusion_matrix(analysis.confusion, analysis.classes))]


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


def draw_confusion_matrix(confusion: np.ndarray, classes: tuple[str, ...]) -> Image.Image:
    """Draws a confusion matrix, normalized by row.

    Args:
        confusion: int64 [C + 1, C + 1], rows: true class, columns: predicted class; index 0 is background. The image
            shows background last: its row holds false detections, its column missed objects.
    """
    names = [*classes, "background"]
    counts = np.roll(confusion, -1, axis=(0, 1)).astype(np.float64)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = int(np.clip(900 // len(names), 9, 56))
    font = ImageFont.load_default(int(np.clip(cell * 0.6, 9, 13)))
    margin = 12 + int(max(font.getlength(name) for name in names))
    size = margin + cell * len(names) + 8
    image = Image.new("RGB", (size, size), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for row, name in enumerate(names):
        y = margin + row * cell
        draw.text((margin - 6, y + cell / 2), name, fill=TEXT, font=font, anchor="rm")
        column_title = Image.new("RGB", (margin - 6, cell), (255, 255, 255))
        ImageDraw.Draw(column_title).text((0, cell / 2), name, fill=TEXT, font=font, anchor="lm")
        image.paste(column_title.rotate(90, expand=True), (y, 0))
        for column in range(len(names)):
            fraction, x = fractions[row, column], margin + column * cell
            color = tuple(int(255 + (full - 255) * fraction) for full in FULL_COLOR)
            draw.rectangle([x, y, x + cell, y + cell], fill=color, outline=GRID)
            if cell >= 32 and counts[row, column]:
                draw.text((x + cell / 2, y + cell / 2), f"{fraction:.2f}", font=font, anchor="mm",
                          fill=(255, 255, 255) if fraction > 0.5 else TEXT)
    return image
