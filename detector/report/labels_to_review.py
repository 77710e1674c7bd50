"""The labels that are most likely wrong, for the report and as a table in CSV."""

import csv
import io
from pathlib import Path

import numpy as np

from detector.metrics.label_review import DoubtfulLabel
from detector.run.files import write_whole
from detector.structures import Dataset, Detections

MAX_LABELS = 300   # in the table
MAX_ON_PAGE = 100
COLUMNS = ("image", "kind", "doubt", "annotated_class", "annotated_box", "detected_class", "detected_box", "score")


def page_rows(labels: list[DoubtfulLabel], dataset: Dataset, detections: Detections, order: np.ndarray) -> list[dict]:
    """Returns the page's data about the first MAX_ON_PAGE labels whose image is on the page.

    Args:
        order: int64 [S], the images on the page; a row tells the position of its image in it.
    """
    position = {int(index): number for number, index in enumerate(order)}
    rows = []
    for label in labels:
        if label.image in position and len(rows) < MAX_ON_PAGE:
            rows.append({
                "kind": label.kind, "doubt": round(label.doubt, 4), "number": position[label.image],
                "object": None if label.object < 0 else
                box_row(dataset.boxes[label.object], dataset.labels[label.object]),
                "detection": None if label.detection < 0 else
                {**box_row(detections.boxes[label.detection], detections.labels[label.detection]),
                 "score": round(float(detections.scores[label.detection]), 4)}})
    return rows


def box_row(box: np.ndarray, label: int) -> dict:
    return {"at": np.round(box.astype(float), 1).tolist(), "label": int(label)}


def write_table(path: Path, labels: list[DoubtfulLabel], dataset: Dataset, detections: Detections) -> None:
    """Writes the labels as CSV, a line each; boxes are x1 y1 x2 y2 in pixels."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for label in labels:
        annotated = detected = ["", ""]
        score = ""
        if label.object >= 0:
            annotated = [dataset.classes[dataset.labels[label.object] - 1], box_text(dataset.boxes[label.object])]
        if label.detection >= 0:
            detected = [dataset.classes[detections.labels[label.detection] - 1],
                        box_text(detections.boxes[label.detection])]
            score = f"{detections.scores[label.detection]:.4f}"
        table.writerow([dataset.path(label.image), label.kind, f"{label.doubt:.4f}", *annotated, *detected, score])
    write_whole(path, text.getvalue())


def box_text(box: np.ndarray) -> str:
    return " ".join(f"{coordinate:.1f}" for coordinate in box)
