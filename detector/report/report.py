"""Writes report.html: the results of an evaluation with the analysis of its errors, or predictions alone.

The page's scripts compute the numbers that its sliders change; this module computes all others, over all images.
C classes; S images are shown.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.data.image_io import read_image
from detector.errors import BadInput
from detector.metrics.analysis import SIZE_METRICS, Analysis
from detector.metrics.coco_params import AREA_RANGES
from detector.metrics.label_review import find_doubtful_labels
from detector.metrics.tide import ERRORS, IGNORED, MISSED, TRUE_POSITIVE
from detector.report.image_budget import UINT16_MAX, JpegBudget, pack_columns, select_images_to_show, to_base64
from detector.report.labels_to_review import MAX_LABELS, page_rows, write_table
from detector.report.page.build import write_page
from detector.structures import Dataset, Detections

MAX_CONFUSIONS = 3000  # pairs of classes on the page, the most frequent ones
LABELS_FILE = "labels_to_review.csv"
READER_THREADS = 8     # that decode images
MAX_NAME_LENGTH = 120  # letters of an image's name on the page
# The page's names of ERRORS, in the same order: identifiers in its scripts, styles and addresses.
ERROR_KINDS = ("correct", "ignored", "localization", "classification", "both", "duplicate", "background", "missed")


@dataclass(frozen=True)
class PageInfo:
    """Title and settings of a report."""

    title: str
    facts: tuple[str, ...]     # one line each, below the title
    command: str               # that wrote the page
    nms_thresh: float          # of the detections; the page's slider can only lower it
    match_rule: str = "coco"   # "coco" or "voc": how detections are matched to objects
    score: float = 0.5         # of predictions: where the page's score slider stands at first


def write_evaluation_report(path: Path, info: PageInfo, dataset: Dataset, detections: Detections, analysis: Analysis,
                            metrics: dict[str, float]) -> str:
    """Writes the report of an evaluation, and beside it a table of the labels that are most likely wrong.

    Args:
        metrics: shown at the top, by the evaluation's own names.

    Returns:
        A sentence for the terminal: path, what is shown, size of the file.
    """
    order = select_images_to_show(dataset, analysis.image_weight)
    budget = JpegBudget(len(order))
    with ThreadPoolExecutor(READER_THREADS) as pool:  # decoding releases the interpreter lock
        for start in range(0, len(order), READER_THREADS):
            for pixels in pool.map(lambda index: None if budget.is_full else read_pixels(dataset, index),
                                   order[start:start + READER_THREADS]):
                budget.add(pixels)
    labels = find_doubtful_labels(dataset, detections, MAX_LABELS)
    write_table(path.with_name(LABELS_FILE), labels, dataset, detections)
    data = image_data(dataset, detections, analysis, order, budget) | analysis_data(dataset, analysis, metrics) | {
        "labels": page_rows(labels, dataset, detections, order), "labels_table": LABELS_FILE}
    return write(path, info, data)


def write_prediction_report(path: Path, info: PageInfo, dataset: Dataset, detections: Detections,
                            budget: JpegBudget) -> str:
    """Writes the report of predictions without ground truth; returns a sentence like write_evaluation_report.

    Args:
        dataset: the images, without objects.
        budget: holds a JPEG of each image, in the order of `dataset`.
    """
    return write(path, info, image_data(dataset, detections, None, select_images_to_show(dataset, None), budget))


def write(path: Path, info: PageInfo, data: dict) -> str:
    write_page(path, "report", info.title, {
        "title": info.title, "facts": info.facts, "command": info.command, "nms_thresh": info.nms_thresh,
        "match_rule": info.match_rule, "score": info.score, "error_kinds": ERROR_KINDS, **data})
    return f"{path}: {data['shown']}; {path.stat().st_size / 1e6:.1f} MB"


def read_pixels(dataset: Dataset, index: int) -> np.ndarray | None:
    """Returns an image as uint8 [H, W, 3]; None if it cannot be read, which evaluation has already reported."""
    try:
        return read_image(dataset.path(index), tuple(dataset.sizes[index])).permute(1, 2, 0).numpy()
    except BadInput:
        return None


def image_data(dataset: Dataset, detections: Detections, analysis: Analysis | None, order: np.ndarray,
               budget: JpegBudget) -> dict:
    """Returns the page's data about the images in `order`, int64 [S], and their boxes."""
    columns, min_score = pack_columns(dataset, detections, analysis, order)
    names = [Path(dataset.path(index)).name[:MAX_NAME_LENGTH] for index in order]
    return {"images": {"names": names, "jpegs": budget.jpegs[:len(order)], **columns}, "classes": dataset.classes,
            "min_score": min_score, "num_images": len(dataset), "has_ground_truth": analysis is not None,
            "shown": describe_shown(len(dataset), len(order), budget, min_score, has_errors=analysis is not None)}


def describe_shown(total: int, listed: int, budget: JpegBudget, min_score: float, has_errors: bool) -> str:
    """Returns which images and detections the page shows, and how, in words.

    Args:
        has_errors: the errors are known, and the images with most of them come first.
    """
    selection = f"{listed} of {total} images, those with the most errors" if has_errors else (
        f"the first {listed} of {total} images")
    parts = [f"all {total} images" if listed == total else selection]
    if budget.num_small:
        parts.append(f"{budget.num_large} as large images, {budget.num_small} as small ones")
    if listed > budget.num_large + budget.num_small:
        parts.append(f"{listed - budget.num_large - budget.num_small} as boxes without an image")
    if min_score:
        parts.append(f"detections with a score of {min_score:.3f} or more")
    return ", ".join(parts)


def analysis_data(dataset: Dataset, analysis: Analysis, metrics: dict[str, float]) -> dict:
    """Returns the page's data about the whole data set: metrics, errors, curves, classes and confusions."""
    true, predicted = np.nonzero(analysis.confusion)
    counts = analysis.confusion[true, predicted]
    most_frequent = np.argsort(-counts, kind="stable")[:MAX_CONFUSIONS]
    return {
        "metrics": {name: round4(value) for name, value in metrics.items()},
        "per_class": class_rows(analysis),
        "sizes": size_rows(dataset, analysis, metrics),
        "cost": {kind: round4(analysis.cost[name]) for kind, name in zip(ERROR_KINDS, ERRORS)
                 if name in analysis.cost},
        "ap50": round4(analysis.ap50),
        "counts": dict(zip(ERROR_KINDS, analysis.image_errors.sum(axis=0).tolist())),
        "best_score": round(analysis.best_score * UINT16_MAX) / UINT16_MAX, "f1": round4(analysis.f1),
        "mean_precision": [round4(value) for value in analysis.mean_precision],
        "precision": to_base64(np.round(analysis.precision.clip(min=0) * UINT16_MAX), np.uint16),
        "confusion": [[int(true[i]), int(predicted[i]), int(counts[i])] for i in most_frequent],
        "calibration": {"count": analysis.bin_count.tolist(), "score": [round4(v) for v in analysis.bin_score],
                        "precision": [round4(v) for v in analysis.bin_precision],
                        "error": round4(analysis.calibration_error)}}


def class_rows(analysis: Analysis) -> list[dict]:
    """Returns a row for each class: its metrics, and precision and recall at the best score; -1 where undefined."""
    correct = np.diag(analysis.confusion)[1:]
    predicted, true = analysis.confusion.sum(axis=0)[1:], analysis.confusion.sum(axis=1)[1:]
    return [{"name": name, **{key: round4(value) for key, value in analysis.per_class[name].items()},
             "precision": ratio(correct[c], predicted[c]), "recall": ratio(correct[c], true[c])}
            for c, name in enumerate(analysis.classes)]


def size_rows(dataset: Dataset, analysis: Analysis, metrics: dict[str, float]) -> list[dict]:
    """Returns a row for small, medium and large objects; -1 where undefined.

    AP is that of `metrics`, or else the mean over the classes with such objects. "recall" is at IoU 0.5 with detections
    of any score; "missed" is the fraction of objects of the type MISSED (metrics/tide.py).
    """
    counted = analysis.object_error != IGNORED
    detected = analysis.object_error == TRUE_POSITIVE
    missed = analysis.object_error == MISSED
    rows = []
    for key, name in SIZE_METRICS.items():
        low, high = AREA_RANGES[name]
        of_size = counted & (dataset.areas >= low) & ((dataset.areas < high) | (name == "large"))
        class_aps = [values[key] for values in analysis.per_class.values() if values.get(key, -1) >= 0]
        ap = metrics.get(key, float(np.mean(class_aps)) if class_aps else -1.0)
        rows.append({"name": name, "objects": int(of_size.sum()), "AP": round4(ap),
                     "AR": round4(metrics.get(f"AR{key[-1]}", -1.0)),
                     "recall": ratio((detected & of_size).sum(), of_size.sum()),
                     "missed": ratio((missed & of_size).sum(), of_size.sum())})
    return rows


def ratio(part: int, total: int) -> float:
    return round4(part / total) if total else -1.0


def round4(value: float) -> float:
    """Returns a float with four decimals; -1, which stands for undefined values, for one that is not finite."""
    return round(float(value), 4) if math.isfinite(value) else -1.0
