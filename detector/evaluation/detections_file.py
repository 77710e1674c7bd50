"""Reads detections of any detector from a file in COCO's results format; each kind of mistake is one clear line."""

import math
import reprlib
from array import array

import numpy as np

from detector.data.formats.coco_ids import IdTable, index_ids
from detector.data.formats.json_text import read_annotations
from detector.data.formats.segmentation_boxes import segmentation_box
from detector.errors import BadInput, combine_mistakes, shorten
from detector.structures import Dataset, Detections, from_xywh

ROWS_IN_ERROR = 5   # rows that an error message names for each kind of mistake
IDS_IN_ERROR = 10   # category ids that an error message lists
MAX_FLOAT32 = float(np.finfo(np.float32).max)


def read_detections(path: str, dataset: Dataset) -> Detections:
    """Reads the detections of an evaluation of this package, which have the ids of the data set.

    Raises:
        BadInput: the file cannot be read or has mistakes; the message lists every kind of mistake with its rows.
    """
    return rows_to_detections(path, read_rows(path), dataset, *tables_of(dataset))[0]


def read_detections_by_id(path: str, dataset: Dataset, image_ids: IdTable, labels: IdTable) -> tuple[Detections, int]:
    """Reads detections whose ids are those of an annotation file, as written there, in a number or a text.

    If they do not fit, the ids of the data set are tried, which this package numbers where the file's are no integers.

    Args:
        image_ids: index of the image of each id in the file.
        labels: label of each category id in the file; 0 for categories that are no class.

    Returns:
        The detections, and the number of detections of categories that are no class, which are left out.

    Raises:
        BadInput: see `read_detections`.
    """
    rows = read_rows(path)
    try:
        return rows_to_detections(path, rows, dataset, image_ids, labels)
    except BadInput:
        try:
            return rows_to_detections(path, rows, dataset, *tables_of(dataset))
        except BadInput:
            pass
        raise  # the mistakes beside the file's own ids


def tables_of(dataset: Dataset) -> tuple[IdTable, IdTable]:
    """Returns the index of each image id, and the label of each category id, of a data set."""
    return (index_ids(dataset.image_ids.tolist(), list(range(len(dataset)))),
            index_ids(dataset.category_ids.tolist(), list(range(1, len(dataset.classes) + 1))))


def read_rows(path: str) -> list:
    """Returns the list that a JSON file holds. Raises BadInput if it holds something else."""
    rows = read_annotations(path, keep_segmentations=True, kind="file of detections")
    if isinstance(rows, dict) and "annotations" in rows:
        raise BadInput(f"{path} is an annotation file, no file of detections. Name the detections first, then the "
                       "annotation file: fleet-rcnn score DETECTIONS ANNOTATIONS")
    if not isinstance(rows, list):
        raise BadInput(f"{path} is not a COCO results file: expected a list of detections, got {type(rows).__name__}")
    return rows


def rows_to_detections(path: str, rows: list, dataset: Dataset, image_ids: IdTable,
                       labels: IdTable) -> tuple[Detections, int]:
    """Returns the detections in the rows of a file; see `read_detections_by_id`."""
    image_index, label_index = image_ids.by_integer, labels.by_integer
    numbers, places, malformed = array("d"), [], []
    for number, row in enumerate(rows):
        try:
            image, label = image_index.get(row["image_id"]), label_index.get(row["category_id"])
            image = image_ids.find(row["image_id"]) if image is None else image
            label = labels.find(row["category_id"]) if label is None else label
            box = row.get("bbox") or segmentation_box(row.get("segmentation"))
            if image is None or label is None or type(box) is not list or len(box) != 4:
                raise ValueError
            values = (image, label, float(row["score"]), *map(float, box))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            malformed.append(number)
            continue
        numbers.extend(values)
        places.append(number)
    columns = np.array(numbers, np.float64).reshape(-1, 7)
    invalid = ~(np.abs(columns[:, 2:]) <= MAX_FLOAT32).all(axis=1) | (columns[:, 5:] < 0).any(axis=1)
    malformed += np.array(places, np.int64)[invalid].tolist()
    if malformed:
        raise describe_malformed(path, rows, sorted(malformed), image_ids, labels)
    columns, of_class = columns[columns[:, 1] > 0], int((columns[:, 1] > 0).sum())
    return Detections(dataset.image_ids[columns[:, 0].astype(np.int64)], from_xywh(columns[:, 3:]),
                      columns[:, 2].astype(np.float32), columns[:, 1].astype(np.int32)), len(rows) - of_class


def describe_malformed(path: str, rows: list, malformed: list[int], image_ids: IdTable, labels: IdTable) -> BadInput:
    """Returns an error that lists every kind of mistake with its first rows."""
    mistakes: dict[str, list[str]] = {}
    for number in malformed:
        text, value = find_mistake(rows[number], image_ids, labels)
        mistakes.setdefault(text, []).append(f"row {number}{value}")
    return combine_mistakes(path, [f"{text}: {shorten(places, ROWS_IN_ERROR)}" for text, places in mistakes.items()])


def find_mistake(row: object, image_ids: IdTable, labels: IdTable) -> tuple[str, str]:
    """Returns (the mistake and its remedy, the wrong value) of a malformed row."""
    if not isinstance(row, dict) or not {"image_id", "category_id", "score"} <= row.keys():
        return "each detection needs image_id, category_id, bbox = [x, y, width, height] and score", ""
    image, category, score = row["image_id"], row["category_id"], row["score"]
    box = row.get("bbox") or segmentation_box(row.get("segmentation"))
    if image_ids.find(image) is None:
        return "image_id is not in the annotation file: these are detections of other images", f" {reprlib.repr(image)}"
    if labels.find(category) is None:
        known = ", ".join(text[:30] for text in list(labels.by_text)[:IDS_IN_ERROR])
        more = ", ..." if len(labels.by_text) > IDS_IN_ERROR else ""
        return (f"category_id is not in the annotation file, which has {known}{more}. Leave such detections out, or "
                "change their ids", f" {reprlib.repr(category)}")
    if not is_number(score):
        return "score is not a finite number: leave such detections out", f" {reprlib.repr(score)}"
    if not box and not row.get("bbox"):
        return "bbox is missing, and there is no segmentation that spans one: give [x, y, width, height]", ""
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return "bbox must be four finite numbers, [x, y, width, height]", f" {reprlib.repr(box)}"
    return "bbox has a negative width or height: it is [x, y, width, height], not two corners", f" {reprlib.repr(box)}"


def is_number(value: object) -> bool:
    """Returns whether a value is a finite number of float32; it may be a text."""
    try:
        return not isinstance(value, (list, dict)) and math.isfinite(float(value)) and abs(float(value)) <= MAX_FLOAT32
    except (TypeError, ValueError, OverflowError):
        return False
