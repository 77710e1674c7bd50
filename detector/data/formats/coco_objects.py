"""Annotations of a COCO file: to rows for structures.build_dataset, with the mistakes among them."""

import math
import reprlib
from array import array
from collections.abc import Callable

import numpy as np

from detector.data.formats.coco_entries import add_mistake
from detector.data.formats.coco_ids import IdTable
from detector.data.formats.coordinates import box_around_rotated
from detector.data.formats.segmentation_boxes import segmentation_box
from detector.errors import count_of
from detector.structures import CROWD

MAX_FLOAT32 = float(np.finfo(np.float32).max)
TRUE_TEXTS, FALSE_TEXTS = ("true", "yes", "1", "1.0"), ("", "false", "no", "0", "0.0", "none", "null")


def read_objects(annotations: list, images: IdTable, categories: IdTable, mistakes: list[str],
                 unlisted: list[str]) -> np.ndarray:
    """Returns the rows for build_dataset, float64 [N, 8]; the label is the position of the category, from 1.

    Args:
        images, categories: position of each id.
        mistakes: a sentence is added for malformed annotations.
        unlisted: annotations of images and categories that the file does not list are added; they are left out.
    """
    image_index, category_index = images.by_integer, categories.by_integer
    numbers = array("d")
    malformed = []
    for number, annotation in enumerate(annotations):
        try:
            box = annotation["bbox"]
            if type(box) is not list:  # the characters of a text are no numbers
                raise TypeError
            x, y, width, height = map(float, box)
            image_id, category_id = annotation["image_id"], annotation["category_id"]
            image, category = image_index.get(image_id), category_index.get(category_id)
            image = images.find(image_id) if image is None else image
            category = categories.find(category_id) if category is None else category
            crowd = annotation.get("iscrowd")
            flags = CROWD if crowd == 1 or crowd and is_true(crowd) else 0
            area = annotation.get("area")
            area = area if type(area) is float else to_number(area)
            attributes = annotation.get("attributes")
            rotation = attributes.get("rotation") if type(attributes) is dict else None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            malformed.append(describe_malformed(annotation, number))
            continue
        if image is None:
            unlisted.append(f"{annotation_name(annotation, number)} is of image {reprlib.repr(image_id)}")
        elif category is None:
            unlisted.append(f"{annotation_name(annotation, number)} is of category {reprlib.repr(category_id)}")
        else:
            corners = [x, y, x + width, y + height]
            corners = box_around_rotated(corners, rotation) if rotation else corners
            numbers.extend((image, category + 1, flags, area, *corners))
    crowd = "; iscrowd is 0 or 1, or left out" if any(" has iscrowd " in text for text in malformed) else ""
    add_mistake(malformed, f"each needs image_id, category_id and bbox = [x, y, width, height]{crowd}", mistakes)
    return finish_rows(np.array(numbers, np.float64).reshape(-1, 8))


def ignore_warning(annotations: list) -> str:
    """Returns a warning about annotations with "ignore": 1, which pycocotools does not heed either; else ""."""
    count = sum(isinstance(entry, dict) and entry.get("ignore") in (1, True, "1") for entry in annotations)
    if not count:
        return ""
    subject = count_of(count, "annotation has ignore=1 and counts as an ordinary object",
                       "annotations have ignore=1 and count as ordinary objects")
    return f"{subject}, as in pycocotools. To leave them out of training, set iscrowd to 1 in the file"


def corner_warning(rows: np.ndarray, sizes: np.ndarray) -> str:
    """Returns a warning where most boxes were probably written as corners [x1, y1, x2, y2]; else an empty text.

    Read as [x, y, width, height], more than half of the boxes reach beyond the right or lower edge of their image, and
    as corners these would lie in it.

    Args:
        rows: as of `read_objects`.
        sizes: height and width of each image, [images, 2].
    """
    limits = sizes[rows[:, 0].astype(np.int64)][:, ::-1]
    first, last = rows[:, 4:6], rows[:, 6:8]
    with np.errstate(invalid="ignore"):
        written = last - first  # the third and fourth number
        is_beyond = (last > limits + 1).any(axis=1)
        fits = (first >= 0).all(axis=1) & (written > first).all(axis=1) & (written <= limits + 1).all(axis=1)
    count = int((is_beyond & fits).sum())
    if 2 * count <= len(rows):
        return ""
    return (f"{count} of {len(rows)} boxes reach beyond the right or lower edge of their image, and would lie in it as "
            "corners: they look like corners [x1, y1, x2, y2], but COCO's bbox is [x, y, width, height]. If so, write "
            "[x1, y1, x2 - x1, y2 - y1]")


def finish_rows(rows: np.ndarray) -> np.ndarray:
    """Returns the rows with the area of the box where there is none, and infinity for numbers beyond float32."""
    with np.errstate(invalid="ignore", over="ignore"):
        sides = np.clip(rows[:, 6:8] - rows[:, 4:6], 0, None)
        rows[:, 3] = np.where(np.isfinite(rows[:, 3]), rows[:, 3], sides[:, 0] * sides[:, 1])
        rows[:, 3:] = np.where(np.abs(rows[:, 3:]) > MAX_FLOAT32, np.copysign(np.inf, rows[:, 3:]), rows[:, 3:])
    return rows


def to_number(value: object) -> float:
    """Returns an area as a number; nan for a value that is none."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def is_true(value: object) -> bool:
    """Returns whether iscrowd is set. Raises ValueError for a value that is neither true nor false."""
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return value != 0
    text = str(value).strip().lower()
    if text not in TRUE_TEXTS + FALSE_TEXTS:
        raise ValueError
    return text in TRUE_TEXTS


def add_missing_boxes(annotations: list, read_segmentations: Callable[[], list]) -> None:
    """Gives annotations without a box the box of their segmentation, in place, where that is possible.

    Args:
        read_segmentations: returns the same annotations with their segmentations.
    """
    boxless = [number for number, annotation in enumerate(annotations)
               if isinstance(annotation, dict) and not annotation.get("bbox")]
    if boxless:
        complete = read_segmentations()
        for number in boxless:
            annotations[number]["bbox"] = segmentation_box(complete[number].get("segmentation"))


def describe_malformed(annotation: object, number: int) -> str:
    """Returns what is wrong with an annotation, in a few words."""
    name = annotation_name(annotation, number)
    if not isinstance(annotation, dict):
        return f"{name} is not a JSON object"
    for key in ("image_id", "category_id"):
        if key not in annotation:
            return f"{name} has no {key}"
        if not isinstance(annotation[key], (int, float, str)):
            return f"{name} has {key} {reprlib.repr(annotation[key])}"
    if not annotation.get("bbox"):
        return f"{name} has no bbox, and no segmentation that spans one"
    if not is_box(annotation["bbox"]):
        return f"{name} has bbox {reprlib.repr(annotation['bbox'])}"
    return f"{name} has iscrowd {reprlib.repr(annotation.get('iscrowd'))}"


def is_box(box: object) -> bool:
    """Returns whether a bbox is a list of four numbers, which may be texts."""
    try:
        return isinstance(box, list) and len([float(value) for value in box]) == 4
    except (TypeError, ValueError, OverflowError):
        return False


def annotation_name(annotation: object, number: int) -> str:
    """Returns how messages name an annotation: by its id, or by its position in the file."""
    identifier = annotation.get("id") if isinstance(annotation, dict) else None
    return f"annotation number {number}" if identifier is None else f"annotation {reprlib.repr(identifier)}"
