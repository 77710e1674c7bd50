"""One JSON for each image: {"labels": ["head", ...], "boxes": [[x1, y1, x2, y2], ...]}, paired by file name.

Images are in `input` or `images`, JSON files in `target`, `labels` or `annotations`, at the root or below a folder
named like the split. A split is such a folder; or the stem of a text file at the root that lists stems; or `all`;
or a range such as `0:16` in the order of the names.
"""

import json
import os
import re

import numpy as np

from detector.data.image_io import ENDINGS, image_size
from detector.errors import BadInput, listed
from detector.structures import Dataset, build_dataset

IMAGES = ("input", "images")
TARGETS = ("target", "labels", "annotations")


def sources(root: str, split: str) -> list[str]:
    """The files that the annotations and sizes come from."""
    return [os.path.join(root, path) for pair in _pairs(root, split) for path in pair]


def read(root: str, split: str) -> Dataset:
    """One split; its classes are those found, in alphabetical order. Raises BadInput that lists faulty files."""
    images, objects, mistakes = [], [], []
    for index, (image, target) in enumerate(_pairs(root, split)):
        try:
            images.append((image, index + 1, *image_size(os.path.join(root, image))))
            objects += [(index, label, box) for label, box in _read_json(os.path.join(root, target))]
        except BadInput as error:
            mistakes.append(str(error))
    if mistakes:
        raise listed(f"per_image_json {split}", mistakes)
    classes = sorted({label for _, label, _ in objects})
    number = {label: c for c, label in enumerate(classes, start=1)}
    rows = [(index, number[label], 0, max(box[2] - box[0], 0) * max(box[3] - box[1], 0), *box)
            for index, label, box in objects]
    return build_dataset(f"per_image_json {split}", root, classes, list(range(1, len(classes) + 1)), images, np.array(rows))


def _pairs(root: str, split: str) -> list[tuple[str, str]]:
    """Image and JSON of each example, relative to root, in the order of their names."""
    inside = split if os.path.isdir(os.path.join(root, split)) else ""
    images = _by_stem(root, inside, IMAGES, ENDINGS)
    targets = _by_stem(root, inside, TARGETS, (".json",))
    alone = sorted(set(targets) - set(images))
    if alone:
        raise BadInput(f"no image for {', '.join(targets[stem] for stem in alone[:5])} in {root}: "
                       "an image and its JSON have the same name")
    stems = sorted(targets)
    listing = os.path.join(root, f"{split}.txt")
    if re.fullmatch(r"\d*:\d*", split):
        first, last = split.split(":")
        stems = stems[int(first or 0):int(last or len(stems))]
    elif os.path.isfile(listing):
        with open(listing, encoding="utf-8") as file:
            lines = [line.strip() for line in file if line.strip()]
        wanted = [line if line in targets else os.path.splitext(line)[0] for line in lines]
        strangers = [stem for stem in wanted if stem not in targets]
        if strangers:
            raise BadInput(f"{listing} names {', '.join(strangers[:5])}, for which there is no JSON in {root}")
        stems = wanted
    elif not inside and split != "all":
        raise BadInput(f"no split {split!r} in {root}: neither a folder nor {split}.txt; "
                       f"`all` and ranges such as 0:{max(1, len(stems) * 4 // 5)} are splits too")
    return [(images[stem], targets[stem]) for stem in stems]


def _by_stem(root: str, inside: str, folders: tuple[str, ...], endings: tuple[str, ...]) -> dict[str, str]:
    for folder in folders:
        path = os.path.join(root, inside, folder)
        if os.path.isdir(path):
            return {os.path.splitext(name)[0]: os.path.join(inside, folder, name)
                    for name in sorted(os.listdir(path)) if name.lower().endswith(endings)}
    raise BadInput(f"no folder {' or '.join(folders)} in {os.path.join(root, inside)}: set data.root to the folder "
                   "that holds the images and the JSON files")


def _read_json(path: str) -> list[tuple[str, list[float]]]:
    try:
        with open(path, encoding="utf-8") as file:
            said = json.load(file)
        labels, boxes = [str(label) for label in said["labels"]], [[float(v) for v in box] for box in said["boxes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f'{path}: {{"labels": [...], "boxes": [[x1, y1, x2, y2], ...]}} expected '
                       f"({type(error).__name__}: {error})") from error
    if len(labels) != len(boxes) or any(len(box) != 4 for box in boxes):
        raise BadInput(f"{path}: {len(labels)} labels for {len(boxes)} boxes; as many are needed, four numbers a box")
    return list(zip(labels, boxes))
