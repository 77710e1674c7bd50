"""COCO JSON: one file a split, with images, annotations and categories. (cocodataset.org, "Data format")"""

import json
import os

import numpy as np

from detector.data.formats.json_text import gc_paused, parse_annotations
from detector.data.image_io import image_size
from detector.errors import BadInput, combine_mistakes
from detector.structures import CROWD, Dataset, build_dataset

FILES = ("annotations/instances_{}.json", "annotations/{}.json", "{}.json", "{}/_annotations.coco.json", "{}")
FOLDERS = ("{}", "images/{}", "images", "")
# These splits of COCO 2014's validation images (Girshick 2015) have their images in the folder val2014.
FOLDER_OF = {"minival2014": "val2014", "valminusminival2014": "val2014"}
MAX_EXAMPLES = 5  # of one kind of mistake, in an error message


def sources(root: str, split: str) -> list[str]:
    """Returns the annotation files that `read` reads."""
    return [annotation_file(root, split)]


def annotation_file(root: str, split: str) -> str:
    """Returns the path of the annotation file of a split. Raises BadInput that lists all candidates if none exists."""
    candidates = [os.path.join(root, pattern.format(split)) for pattern in FILES]
    for path in candidates:
        if os.path.isfile(path):
            return path
    raise BadInput(f"no annotations of split {split!r}: no such file as " + ", ".join(candidates)
                   + ". Set data.root, and data.train or data.val to a split name or a JSON file below it")


def read(root: str, split: str) -> Dataset:
    """Reads one split; the classes are its categories, sorted by id.

    Raises:
        BadInput: lists the mistakes in the file, with ids and remedies.
    """
    path = annotation_file(root, split)
    content = _load(path)
    mistakes: list[str] = []
    categories = _by_id(content["categories"], "category", "name", mistakes)
    images = _by_id(content["images"], "image", "file_name", mistakes)
    names = [str(category["name"]) for category in categories.values()]
    _add_mistake([f"category name {name} occurs twice" for name in dict.fromkeys(names) if names.count(name) > 1],
                 "each class needs a name of its own", mistakes)
    with gc_paused():
        objects = _objects(content["annotations"], images, categories, mistakes)
    if mistakes:
        raise combine_mistakes(path, mistakes)
    folder = _image_folder(root, split, path, images)
    rows = [(os.path.join(folder, image["file_name"]), image_id, *_size(root, folder, image))
            for image_id, image in images.items()]
    unsized = [index for index, image in enumerate(images.values()) if not _annotated_size(image)]
    warnings = ()
    if unsized:
        warnings = (f"{len(unsized)} images have no annotated size; it is read from the image files",)
    return build_dataset(f"coco {split}", root, names, list(categories), rows, objects, warnings, unsized)


def _load(path: str) -> dict:
    try:
        with open(path, "rb") as file:
            content = parse_annotations(file.read())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no JSON: {error}") from error
    missing = [key for key in ("images", "annotations", "categories")
               if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise BadInput(f"{path} is no COCO annotation file: it has no list named {' and '.join(missing)}")
    return content


def _by_id(entries: list, kind: str, required: str, mistakes: list[str]) -> dict[int, dict]:
    """Returns images by id in the order of the file, or categories sorted by id, so that the class order does not
    depend on the order in the file."""
    result: dict[int, dict] = {}
    wrong = []
    for position, entry in enumerate(entries):
        key = _integer(entry.get("id")) if isinstance(entry, dict) else None
        if not isinstance(entry, dict):
            wrong.append(f"{kind} number {position} is not a JSON object")
        elif key is None:
            wrong.append(f"{kind} number {position} has id {entry.get('id')!r}")
        elif key in result:
            wrong.append(f"{kind} id {key} occurs twice")
        elif entry.get(required) in (None, ""):
            wrong.append(f"{kind} {key} has no {required}")
        else:
            result[key] = entry
    _add_mistake(wrong, f"each {kind} needs an integer id of its own and a {required}", mistakes)
    return dict(sorted(result.items())) if kind == "category" else result


def _objects(annotations: list, images: dict, categories: dict, mistakes: list[str]) -> np.ndarray:
    """Returns the rows for build_dataset, float64 [N, 8]."""
    index = {key: i for i, key in enumerate(images)}
    label = {key: c for c, key in enumerate(categories, start=1)}
    rows, unlisted, malformed = [], [], []
    for position, annotation in enumerate(annotations):
        try:
            x, y, width, height = map(float, annotation["bbox"])
            flags = CROWD if int(annotation.get("iscrowd") or 0) else 0
            image, category = _integer(annotation["image_id"]), _integer(annotation["category_id"])
        except (KeyError, TypeError, ValueError, AttributeError):
            malformed.append(f"annotation {_annotation_id(annotation, position)}")
            continue
        if image not in index:
            unlisted.append(f"annotation {_annotation_id(annotation, position)} is of image {annotation['image_id']!r}")
        elif category not in label:
            unlisted.append(f"annotation {_annotation_id(annotation, position)} is of category "
                            f"{annotation['category_id']!r}")
        else:
            area = annotation.get("area")
            area = float(area) if isinstance(area, (int, float)) else max(width, 0) * max(height, 0)
            rows.append((index[image], label[category], flags, area, x, y, x + width, y + height))
    _add_mistake(malformed, "each needs image_id, category_id and bbox = [x, y, width, height]", mistakes)
    _add_mistake(unlisted, "the file does not list this image or category; add it, or remove the annotation", mistakes)
    return np.array(rows, np.float64).reshape(-1, 8)


def _annotation_id(annotation: object, position: int) -> object:
    fallback = f"number {position}"
    return annotation.get("id", fallback) if isinstance(annotation, dict) else fallback


def _add_mistake(examples: list[str], remedy: str, mistakes: list[str]) -> None:
    """Adds one mistake with its first examples, if there are any."""
    if examples:
        rest = f" and {len(examples) - MAX_EXAMPLES} more" if len(examples) > MAX_EXAMPLES else ""
        mistakes.append("; ".join(examples[:MAX_EXAMPLES]) + rest + f": {remedy}")


def _integer(value: object) -> int | None:
    """Returns an id as an integer; some tools write ids as text."""
    if type(value) is int:  # not bool
        return value
    return int(value) if isinstance(value, str) and value.strip().lstrip("-").isdigit() else None


def _image_folder(root: str, split: str, annotations: str, images: dict[int, dict]) -> str:
    """Returns the folder, relative to root, that contains one of the first images; the first candidate if none does."""
    annotation_folder = os.path.relpath(os.path.dirname(annotations), root)
    names = [image["file_name"] for _, image in zip(range(10), images.values())]
    candidates = [pattern.format(FOLDER_OF.get(split, split)) for pattern in FOLDERS
                  if not split.endswith(".json") or "{}" not in pattern]
    named_like_file = os.path.splitext(os.path.basename(split))[0].removeprefix("instances_")
    for folder in [*candidates, named_like_file, annotation_folder]:
        if any(os.path.isfile(os.path.join(root, folder, name)) for name in names):
            return "" if folder == "." else folder
    return candidates[0]


def _size(root: str, folder: str, image: dict) -> tuple[int, int]:
    """Returns height and width as annotated, or from the image's header if they are not annotated."""
    return _annotated_size(image) or image_size(os.path.join(root, folder, image["file_name"]))


def _annotated_size(image: dict) -> tuple[int, int] | None:
    height, width = _integer(image.get("height")), _integer(image.get("width"))
    return (height, width) if height and width else None
