"""The report: one page, report.html, with what an evaluation found and why, or with predictions alone.

C classes, S images shown. The page computes what its sliders change; everything else is computed here, over all images.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.data.image_io import read_image
from detector.errors import BadInput
from detector.metrics.analysis import ERRORS, IGNORED, MISSED, RIGHT, SIZES, Analysis
from detector.report.image_budget import FULL, JpegBudget, chosen, columns, packed
from detector.report.page.build import write_page
from detector.structures import Dataset, Detections

CONFUSIONS = 3000  # pairs of classes on the page, the most frequent
READERS = 8       # images that are decoded side by side
NAME = 120         # letters of an image's name on the page


@dataclass(frozen=True)
class About:
    """What the page says of itself."""

    title: str
    facts: tuple[str, ...]  # a line each
    made: str               # the command that made it
    nms_iou: float          # overlap up to which detections of a class may stand side by side
    rule: str = "coco"      # or voc: what decides that a detection is right


def report_evaluation(path: Path, about: About, dataset: Dataset, detections: Detections, analysis: Analysis,
                      metrics: dict[str, float]) -> str:
    """Writes the page and gives a sentence about it. metrics: the headline, by the evaluation's own names."""
    order = chosen(dataset, analysis.image_weight)
    film = JpegBudget(len(order))
    with ThreadPoolExecutor(READERS) as pool:  # decoding lets other threads run
        for start in range(0, len(order), READERS):
            for pixels in pool.map(lambda index: None if film.full else pixels_of(dataset, index),
                                   order[start:start + READERS]):
                film.add(pixels)
    data = pictures(dataset, detections, analysis, order, film) | numbers(dataset, analysis, metrics)
    return write(path, about, data)


def report_predictions(path: Path, about: About, dataset: Dataset, detections: Detections, film: JpegBudget) -> str:
    """The same without ground truth; film: a picture for each image of `dataset`, which has no objects."""
    return write(path, about, pictures(dataset, detections, None, chosen(dataset, None), film))


def write(path: Path, about: About, data: dict) -> str:
    write_page(path, "report", about.title, {
        "title": about.title, "facts": about.facts, "made": about.made, "nms_iou": about.nms_iou, "rule": about.rule,
        "errors": ERRORS, **data})
    return f"{path}: {data['shown']}; {path.stat().st_size / 1e6:.1f} MB"


def pixels_of(dataset: Dataset, index: int) -> np.ndarray | None:
    """uint8 [H, W, 3], or None for an image that cannot be read: it was counted when it was predicted."""
    try:
        return read_image(dataset.path(index), tuple(dataset.sizes[index])).permute(1, 2, 0).numpy()
    except BadInput:
        return None


def pictures(dataset: Dataset, detections: Detections, analysis: Analysis | None, order: np.ndarray,
             film: JpegBudget) -> dict:
    """The images and what is in them."""
    data, least = columns(dataset, detections, analysis, order)
    jpegs = film.jpegs[:len(order)]
    names = [Path(dataset.path(index)).name[:NAME] for index in order]
    return {"images": {"names": names, "jpegs": jpegs, **data}, "classes": dataset.classes, "least_score": least,
            "shown": shown(len(dataset), len(order), film, least), "analysed": analysis is not None}


def shown(images: int, listed: int, film: JpegBudget, least: float) -> str:
    parts = [f"all {images} images" if listed == images else f"{listed} of {images} images, those with the most errors"]
    if film.small:
        parts.append(f"{film.large} with large pictures, {film.small} with small ones")
    if listed > film.large + film.small:
        parts.append(f"{listed - film.large - film.small} as boxes without a picture")
    if least:
        parts.append(f"detections from score {least:.3f} on")
    return ", ".join(parts)


def numbers(dataset: Dataset, analysis: Analysis, metrics: dict[str, float]) -> dict:
    """Everything of the page that is not a picture."""
    true, predicted = np.nonzero(analysis.confusion)
    often = analysis.confusion[true, predicted]
    first = np.argsort(-often, kind="stable")[:CONFUSIONS]
    return {
        "metrics": {name: short(value) for name, value in metrics.items()},
        "per_class": per_class(analysis),
        "sizes": by_size(dataset, analysis, metrics),
        "cost": {name: short(value) for name, value in analysis.cost.items()}, "ap50": short(analysis.ap50),
        "counts": dict(zip(ERRORS, analysis.image_errors.sum(axis=0).tolist())),
        "best_score": round(analysis.best_score * FULL) / FULL, "f1": short(analysis.f1),
        "mean_precision": [short(value) for value in analysis.mean_precision],
        "precision": packed(np.round(analysis.precision.clip(min=0) * FULL), np.uint16),
        "confusion": [[int(true[i]), int(predicted[i]), int(often[i])] for i in first],
        "calibration": {"count": analysis.bin_count.tolist(), "score": [short(v) for v in analysis.bin_score],
                        "right": [short(v) for v in analysis.bin_right], "error": short(analysis.calibration_error)}}


def per_class(analysis: Analysis) -> list[dict]:
    """A row for each class: its numbers, and precision and recall at the best score; -1 where there is nothing."""
    right = np.diag(analysis.confusion)[1:]
    predicted, true = analysis.confusion.sum(axis=0)[1:], analysis.confusion.sum(axis=1)[1:]
    return [{"name": name, **{key: short(value) for key, value in analysis.per_class[name].items()},
             "precision": share(right[c], predicted[c]), "recall": share(right[c], true[c])}
            for c, name in enumerate(analysis.classes)]


def by_size(dataset: Dataset, analysis: Analysis, metrics: dict[str, float]) -> list[dict]:
    """A row for each size; AP as the metric has it, or else the mean over the classes with such objects."""
    sought = analysis.object_error != IGNORED
    found = analysis.object_error == RIGHT
    lost = analysis.object_error == MISSED
    rows = []
    for (key, (low, high)), name in zip(SIZES.items(), ("small", "medium", "large")):
        here = sought & (dataset.areas >= low) & ((dataset.areas < high) | (name == "large"))
        known = [values[key] for values in analysis.per_class.values() if values.get(key, -1) >= 0]
        ap = metrics.get(key, float(np.mean(known)) if known else -1.0)
        rows.append({"name": name, "objects": int(here.sum()), "AP": short(ap),
                     "AR": short(metrics.get(f"AR{key[-1]}", -1.0)), "found": share((found & here).sum(), here.sum()),
                     "missed": share((lost & here).sum(), here.sum())})
    return rows


def share(part: int, whole: int) -> float:
    return short(part / whole) if whole else -1.0


def short(value: float) -> float:
    return round(float(value), 4)
