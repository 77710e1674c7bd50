"""COCO's results format, read back: detections of ours or of any other detector."""

import json
import math
from pathlib import Path

import numpy as np

from detector.errors import BadInput, listed
from detector.structures import Dataset, Detections, from_xywh

SHOWN = 5  # rows that are named for each kind of mistake


def read_results(path: str, dataset: Dataset) -> Detections:
    """Detections whose labels are the data set's. Raises BadInput that lists every kind of mistake, with rows."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # JSON's and UTF-8's alike
        raise BadInput(f"{path} is no JSON: {error}") from error
    if not isinstance(rows, list):
        raise BadInput(f"{path} is no COCO results file: a list of detections is expected, not {type(rows).__name__}")
    label_of = {int(category): label for label, category in enumerate(dataset.category_ids, start=1)}
    images, wrong, kept = set(dataset.image_ids.tolist()), {}, []
    for number, row in enumerate(rows):
        if mistake := mistake_in(row, images, label_of):
            wrong.setdefault(mistake[0], []).append(f"row {number}{mistake[1]}")
        else:
            kept.append((row["image_id"], label_of[row["category_id"]], row["score"], *row["bbox"]))
    if wrong:
        raise listed(path, [f"{what}: " + ", ".join(where[:SHOWN]) + f" and {len(where) - SHOWN} more" *
                            (len(where) > SHOWN) for what, where in wrong.items()])
    table_ = np.array(kept, np.float64).reshape(-1, 7)
    return Detections(np.array([row[0] for row in kept], np.int64), from_xywh(table_[:, 3:]),
                      table_[:, 2].astype(np.float32), table_[:, 1].astype(np.int32))


def mistake_in(row: object, images: set[int], label_of: dict[int, int]) -> tuple[str, str] | None:
    """(what is wrong and what to do, the value) of one detection; None if it is right."""
    if not isinstance(row, dict) or not {"image_id", "category_id", "bbox", "score"} <= row.keys():
        return "each detection needs image_id, category_id, bbox = [x, y, width, height] and score", ""
    image, category, box, score = (row[key] for key in ("image_id", "category_id", "bbox", "score"))
    if not isinstance(image, int) or image not in images:
        return "image_id is not in the annotation file: these are detections of other images", f" {image!r}"
    if not isinstance(category, int) or category not in label_of:
        known = ", ".join(map(str, list(label_of)[:10])) + ", ..." * (len(label_of) > 10)
        return f"category_id is not in the annotation file, which has {known}", f" {category!r}"
    if not isinstance(score, (int, float)) or not math.isfinite(score):
        return "score is no finite number: leave such detections out", f" {score!r}"
    if not isinstance(box, list) or len(box) != 4 or not all(
            isinstance(side, (int, float)) and math.isfinite(side) for side in box):
        return "bbox must be four finite numbers, [x, y, width, height]", f" {box!r}"
    if box[2] < 0 or box[3] < 0:
        return "bbox has a negative width or height: it is [x, y, width, height], not two corners", f" {box!r}"
    return None


def classes_of(run: str) -> tuple[str, ...]:
    """The classes of a run's last evaluation, in the order of their labels."""
    try:
        return tuple(json.loads((Path(run) / "results.json").read_text(encoding="utf-8"))["per_class"])
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{run}/results.json cannot be read ({error}): evaluate this run again") from error
