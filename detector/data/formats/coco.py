"""COCO JSON: one file for a split, with images, annotations and categories. (cocodataset.org, "Data format")"""

import json
import os
from dataclasses import replace

import numpy as np

from detector.data.formats.json_text import collector_paused, parse
from detector.data.image_io import image_size
from detector.errors import BadInput, listed
from detector.structures import CROWD, Dataset, build_dataset

FILES = ("annotations/instances_{}.json", "annotations/{}.json", "{}.json", "{}/_annotations.coco.json", "{}")
FOLDERS = ("{}", "images/{}", "images", "")
# Splits of COCO 2014's validation images (Girshick 2015), which lie where those do.
FOLDER_OF = {"minival2014": "val2014", "valminusminival2014": "val2014"}
SHOWN = 5  # examples of one kind of mistake in an error


def sources(root: str, split: str) -> list[str]:
    """The files that the annotations come from."""
    return [annotation_file(root, split)]


def annotation_file(root: str, split: str) -> str:
    tried = [os.path.join(root, pattern.format(split)) for pattern in FILES]
    for path in tried:
        if os.path.isfile(path):
            return path
    raise BadInput(f"no annotations of split {split!r}: no such file as " + ", ".join(tried)
                   + ". Set data.root, and data.train or data.val to a split name or a JSON file below it")


def read(root: str, split: str) -> Dataset:
    """One split. Raises BadInput that lists what is wrong in the file, with ids and remedies."""
    path = annotation_file(root, split)
    try:
        with open(path, "rb") as file:
            said = parse(file.read())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no JSON: {error}") from error
    missing = [key for key in ("images", "annotations", "categories")
               if not isinstance(said, dict) or not isinstance(said.get(key), list)]
    if missing:
        raise BadInput(f"{path} is no COCO annotation file: it has no list named {' and '.join(missing)}")
    mistakes: list[str] = []
    categories = _by_id(said["categories"], "category", "name", mistakes)
    images = _by_id(said["images"], "image", "file_name", mistakes)
    names = [str(category["name"]) for category in categories.values()]
    _tell([f"category name {name} occurs twice" for name in dict.fromkeys(names) if names.count(name) > 1],
          "classes are told apart by their names", mistakes)
    with collector_paused():
        objects = _objects(said["annotations"], images, categories, mistakes)
    if mistakes:
        raise listed(path, mistakes)
    folder = _image_folder(root, split, path, images)
    rows = [(os.path.join(folder, image["file_name"]), key, *_size(root, folder, image))
            for key, image in images.items()]
    unsized = sum(not _annotated_size(image) for image in images.values())
    faults = (f"{unsized} images have no annotated size; it was read from the images, at every start",) * bool(unsized)
    dataset = build_dataset(f"coco {split}", root, names, list(categories), rows, objects, faults)
    return replace(dataset, cacheable=not unsized)


def _by_id(entries: list, what: str, needed: str, mistakes: list[str]) -> dict[int, dict]:
    """Entries by their id, in the order of the ids, so that class order does not depend on the file's."""
    found: dict[int, dict] = {}
    wrong = []
    for position, entry in enumerate(entries):
        key = _integer(entry.get("id")) if isinstance(entry, dict) else None
        if key is None:
            wrong.append(f"{what} number {position} has id {entry.get('id')!r}" if isinstance(entry, dict)
                         else f"{what} number {position} is no object")
        elif key in found:
            wrong.append(f"{what} id {key} occurs twice")
        elif entry.get(needed) in (None, ""):
            wrong.append(f"{what} {key} has no {needed}")
        else:
            found[key] = entry
    _tell(wrong, f"each {what} needs an integer id of its own and a {needed}", mistakes)
    return dict(sorted(found.items())) if what == "category" else found


def _objects(annotations: list, images: dict, categories: dict, mistakes: list[str]) -> np.ndarray:
    """Rows for records.assemble: float64 [N, 8]"""
    index = {key: i for i, key in enumerate(images)}
    label = {key: c for c, key in enumerate(categories, start=1)}
    rows, strangers, malformed = [], [], []
    for position, note in enumerate(annotations):
        try:
            x, y, width, height = map(float, note["bbox"])
            crowd = CROWD if int(note.get("iscrowd") or 0) else 0
            image, category = _integer(note["image_id"]), _integer(note["category_id"])
        except (KeyError, TypeError, ValueError, AttributeError):
            name = note.get("id", f"number {position}") if isinstance(note, dict) else f"number {position}"
            malformed.append(f"annotation {name}")
            continue
        if image not in index or category not in label:
            what = f"image {note['image_id']!r}" if image not in index else f"category {note['category_id']!r}"
            strangers.append(f"annotation {note.get('id', f'number {position}')} is of {what}")
            continue
        area = note.get("area")
        area = float(area) if isinstance(area, (int, float)) else max(width, 0) * max(height, 0)
        rows.append((index[image], label[category], crowd, area, x, y, x + width, y + height))
    _tell(malformed, "each needs image_id, category_id and bbox = [x, y, width, height]", mistakes)
    _tell(strangers, "which the file does not list; add it, or remove the annotation", mistakes)
    return np.array(rows, np.float64).reshape(-1, 8)


def _tell(wrong: list[str], remedy: str, mistakes: list[str]) -> None:
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        mistakes.append("; ".join(wrong[:SHOWN]) + more + f": {remedy}")


def _integer(value: object) -> int | None:
    """The id; texts of digits, as some tools write them, count as the number."""
    if type(value) is int:  # not bool
        return value
    return int(value) if isinstance(value, str) and value.strip().lstrip("-").isdigit() else None


def _image_folder(root: str, split: str, annotations: str, images: dict[int, dict]) -> str:
    """The folder, relative to root, in which the first images are. Without a hit: the most usual one."""
    beside = os.path.relpath(os.path.dirname(annotations), root)
    names = [image["file_name"] for _, image in zip(range(10), images.values())]
    tried = [pattern.format(FOLDER_OF.get(split, split)) for pattern in FOLDERS
             if not split.endswith(".json") or "{}" not in pattern]
    for folder in [*tried, os.path.splitext(os.path.basename(split))[0].removeprefix("instances_"), beside]:
        if any(os.path.isfile(os.path.join(root, folder, name)) for name in names):
            return "" if folder == "." else folder
    return tried[0]


def _size(root: str, folder: str, image: dict) -> tuple[int, int]:
    """Height and width as annotated; from the image's header where the annotation does not say."""
    return _annotated_size(image) or image_size(os.path.join(root, folder, image["file_name"]))


def _annotated_size(image: dict) -> tuple[int, int] | None:
    height, width = _integer(image.get("height")), _integer(image.get("width"))
    return (height, width) if height and width else None
