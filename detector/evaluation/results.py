"""Writes and reads results.json and detections.json. The latter has COCO's results format, from any detector."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np

from detector.errors import BadInput, combine_mistakes
from detector.evaluation.scoring import Evaluation
from detector.metrics.coco import to_coco_results
from detector.run import files
from detector.run.files import write_whole
from detector.structures import Dataset, Detections, from_xywh

ROWS_IN_ERROR = 5       # rows that an error message names for each kind of mistake
IDS_IN_ERROR = 10       # category ids that an error message lists
ROWS_PER_CHUNK = 1000   # detections that are converted to JSON at once; between chunks other threads can run


def write_results(folder: Path, evaluation: Evaluation, detections: Detections, dataset: Dataset) -> None:
    """Writes results.json and detections.json into `folder`."""
    rows = to_coco_results(detections, dataset)
    chunks = (json.dumps(rows[first:first + ROWS_PER_CHUNK])[1:-1] for first in range(0, len(rows), ROWS_PER_CHUNK))
    write_whole(folder / files.DETECTIONS_FILE, f"[{', '.join(chunks)}]")
    write_whole(folder / files.RESULTS_FILE, json.dumps({**asdict(evaluation), "data": dataset.name}, indent=1) + "\n")


def read_detections(path: str, dataset: Dataset) -> Detections:
    """Reads a file in COCO's results format.

    Args:
        dataset: gives the image ids and category ids that may occur, and the label of each category.

    Raises:
        BadInput: the file cannot be read or has mistakes; the message lists every kind of mistake with its rows.
    """
    rows = read_rows(path)
    label_of = {int(category): label for label, category in enumerate(dataset.category_ids, start=1)}
    image_ids, mistakes, valid = set(dataset.image_ids.tolist()), {}, []
    for number, row in enumerate(rows):
        if mistake := find_mistake(row, image_ids, label_of):
            text, value = mistake
            mistakes.setdefault(text, []).append(f"row {number}{value}")
        else:
            valid.append((row["image_id"], label_of[row["category_id"]], row["score"], *row["bbox"]))
    if mistakes:
        raise combine_mistakes(path, [f"{text}: {shorten(places)}" for text, places in mistakes.items()])
    columns = np.array(valid, np.float64).reshape(-1, 7)
    return Detections(np.array([row[0] for row in valid], np.int64), from_xywh(columns[:, 3:]),
                      columns[:, 2].astype(np.float32), columns[:, 1].astype(np.int32))


def read_rows(path: str) -> list:
    """Returns the list that a JSON file holds. Raises BadInput if it holds something else."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # of JSON or of UTF-8
        raise BadInput(f"{path} is not a JSON file: {error}") from error
    if not isinstance(rows, list):
        raise BadInput(f"{path} is not a COCO results file: expected a list of detections, got {type(rows).__name__}")
    return rows


def find_mistake(row: object, image_ids: set[int], label_of: dict[int, int]) -> tuple[str, str] | None:
    """Returns (the mistake and its remedy, the wrong value) of a row; None if the row is valid."""
    if not isinstance(row, dict) or not {"image_id", "category_id", "bbox", "score"} <= row.keys():
        return "each detection needs image_id, category_id, bbox = [x, y, width, height] and score", ""
    image, category, box, score = (row[key] for key in ("image_id", "category_id", "bbox", "score"))
    if not isinstance(image, int) or image not in image_ids:
        return "image_id is not in the annotation file: these are detections of other images", f" {image!r}"
    if not isinstance(category, int) or category not in label_of:
        known = ", ".join(map(str, list(label_of)[:IDS_IN_ERROR]))
        more = ", ..." if len(label_of) > IDS_IN_ERROR else ""
        return f"category_id is not in the annotation file, which has {known}{more}", f" {category!r}"
    if not isinstance(score, (int, float)) or not math.isfinite(score):
        return "score is not a finite number: leave such detections out", f" {score!r}"
    if not isinstance(box, list) or len(box) != 4 or not all(
            isinstance(value, (int, float)) and math.isfinite(value) for value in box):
        return "bbox must be four finite numbers, [x, y, width, height]", f" {box!r}"
    if box[2] < 0 or box[3] < 0:
        return "bbox has a negative width or height: it is [x, y, width, height], not two corners", f" {box!r}"
    return None


def shorten(places: list[str]) -> str:
    """Joins places of a mistake; of many, the first ones and the number of the others."""
    more = f" and {len(places) - ROWS_IN_ERROR} more" if len(places) > ROWS_IN_ERROR else ""
    return ", ".join(places[:ROWS_IN_ERROR]) + more


def evaluated_classes(run: str) -> tuple[str, ...]:
    """Returns the classes of a run's last evaluation in the order of their labels, from results.json.

    Raises:
        BadInput: the file cannot be read.
    """
    try:
        return tuple(json.loads((Path(run) / files.RESULTS_FILE).read_text(encoding="utf-8"))["per_class"])
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{run}/{files.RESULTS_FILE} cannot be read ({error}): evaluate this run again") from error
