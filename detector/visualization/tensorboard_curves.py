"""What TensorBoard shows of an analysis: precision against recall of every class, and what is taken for what."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from detector.metrics.analysis import IGNORED, RIGHT, Analysis
from detector.structures import Detections
from detector.visualization.validation_images import Picture, as_picture

MOST_CLASSES = 100  # with more, curves and cells are too many to look at
THRESHOLDS = np.linspace(0, 1, 127)  # scores; TensorBoard's own number
INK, GRID, FULL = (20, 24, 32), (215, 219, 226), (23, 92, 180)


PrCurve = tuple[str, np.ndarray]  # the name of a class, and what `counts` gives


def precision_recall(analysis: Analysis, detections: Detections) -> list[PrCurve]:
    """At IoU 0.5, of every class that has objects; none beyond MOST_CLASSES."""
    if len(analysis.classes) > MOST_CLASSES:
        return []
    objects = [(label, name, analysis.per_class[name]["objects"]) for label, name in enumerate(analysis.classes, 1)]
    return [(name, counts(detections, analysis.detection_error, label, there))
            for label, name, there in objects if there]


def confusion(analysis: Analysis) -> list[Picture]:
    """The confusion matrix at the score where F1 is best; none beyond MOST_CLASSES."""
    if len(analysis.classes) > MOST_CLASSES:
        return []
    return [as_picture("analysis/confusion", confusion_picture(analysis.confusion, analysis.classes))]


def counts(detections: Detections, error: np.ndarray, label: int, objects: int) -> np.ndarray:
    """float64 [6, T]: right, wrong, 0, missed, precision and recall of the detections of a class with at least each of
    THRESHOLDS; without any, precision is 1."""
    own = (detections.labels == label) & (error != IGNORED)
    found = np.sort(detections.scores[own])
    right = np.sort(detections.scores[own & (error == RIGHT)])
    every, hits = (len(scores) - np.searchsorted(scores, THRESHOLDS.astype(scores.dtype)) for scores in (found, right))
    precision = np.divide(hits, every, out=np.ones(len(THRESHOLDS)), where=every > 0)
    return np.stack([hits, every - hits, np.zeros(len(hits)), objects - hits, precision, hits / objects])


def confusion_picture(confusion: np.ndarray, classes: tuple[str, ...]) -> Image.Image:
    """Rows: what an object is; columns: what it was taken for; each row in shares of its sum. Background is last: in
    its row what was found where nothing is, in its column what was not found."""
    names = [*classes, "nothing"]
    table = np.roll(confusion, -1, axis=(0, 1)).astype(np.float64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    cell = int(np.clip(900 // len(names), 9, 56))
    font = ImageFont.load_default(int(np.clip(cell * 0.6, 9, 13)))
    margin = 12 + int(max(font.getlength(name) for name in names))
    side = margin + cell * len(names) + 8
    picture = Image.new("RGB", (side, side), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    for row, name in enumerate(names):
        y = margin + row * cell
        draw.text((margin - 6, y + cell / 2), name, fill=INK, font=font, anchor="rm")
        upright = Image.new("RGB", (margin - 6, cell), (255, 255, 255))
        ImageDraw.Draw(upright).text((0, cell / 2), name, fill=INK, font=font, anchor="lm")
        picture.paste(upright.rotate(90, expand=True), (y, 0))
        for column in range(len(names)):
            share, x = shares[row, column], margin + column * cell
            colour = tuple(int(255 + (full - 255) * share) for full in FULL)
            draw.rectangle([x, y, x + cell, y + cell], fill=colour, outline=GRID)
            if cell >= 32 and table[row, column]:
                draw.text((x + cell / 2, y + cell / 2), f"{share:.2f}", font=font, anchor="mm",
                          fill=(255, 255, 255) if share > 0.5 else INK)
    return picture
