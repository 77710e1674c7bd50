"""One JSON file an image: {"labels": ["head", ...], "boxes": [[x1, y1, x2, y2], ...]}, with the image's file name.

Images are in `input` or `images`, JSON files in `target`, `labels` or `annotations`, at the root or below a folder
named like the split. A split is such a folder, or the stem of a text file at the root that lists stems, or `all`, or a
range such as `0:16` in the order of the names.
"""

import json
import os
import re

import numpy as np

from detector.data.image_io import IMAGE_EXTENSIONS, image_size
from detector.errors import BadInput, combine_mistakes
from detector.structures import Dataset, build_dataset

IMAGE_FOLDERS = ("input", "images")
JSON_FOLDERS = ("target", "labels", "annotations")
MAX_EXAMPLES = 5  # in an error message


def sources(root: str, split: str) -> list[str]:
    """Returns the files that annotations and image sizes come from."""
    return [os.path.join(root, path) for pair in _pairs(root, split) for path in pair]


def read(root: str, split: str) -> Dataset:
    """Reads one split; the classes are those that occur, in alphabetical order.

    Raises:
        BadInput: lists the files that cannot be used.
    """
    images, objects, mistakes = [], [], []
    for index, (image, annotation) in enumerate(_pairs(root, split)):
        try:
            images.append((image, index + 1, *image_size(os.path.join(root, image))))
            objects += [(index, name, box) for name, box in _read_json(os.path.join(root, annotation))]
        except BadInput as error:
            mistakes.append(str(error))
    if mistakes:
        raise combine_mistakes(f"per_image_json {split}", mistakes)
    classes = sorted({name for _, name, _ in objects})
    label = {name: c for c, name in enumerate(classes, start=1)}
    rows = [(index, label[name], 0, max(box[2] - box[0], 0) * max(box[3] - box[1], 0), *box)
            for index, name, box in objects]
    return build_dataset(f"per_image_json {split}", root, classes, list(range(1, len(classes) + 1)), images,
                         np.array(rows))


def _pairs(root: str, split: str) -> list[tuple[str, str]]:
    """Returns the image and the JSON file of each example, relative to root, sorted by name."""
    split_folder = split if os.path.isdir(os.path.join(root, split)) else ""
    images = _files_by_stem(root, split_folder, IMAGE_FOLDERS, IMAGE_EXTENSIONS)
    annotations = _files_by_stem(root, split_folder, JSON_FOLDERS, (".json",))
    unpaired = sorted(set(annotations) - set(images))
    if unpaired:
        raise BadInput(f"no image for {', '.join(annotations[stem] for stem in unpaired[:MAX_EXAMPLES])} in {root}: "
                       "an image and its JSON file have the same name")
    stems = sorted(annotations)
    split_list = os.path.join(root, f"{split}.txt")
    if re.fullmatch(r"\d*:\d*", split):
        first, last = split.split(":")
        stems = stems[int(first or 0):int(last or len(stems))]
    elif os.path.isfile(split_list):
        stems = _listed_stems(split_list, annotations, root)
    elif not split_folder and split != "all":
        raise BadInput(f"no split {split!r} in {root}: neither a folder nor {split}.txt; "
                       f"`all` and ranges such as 0:{max(1, len(stems) * 4 // 5)} are splits too")
    return [(images[stem], annotations[stem]) for stem in stems]


def _listed_stems(split_list: str, annotations: dict[str, str], root: str) -> list[str]:
    with open(split_list, encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip()]
    stems = [line if line in annotations else os.path.splitext(line)[0] for line in lines]
    unknown = [stem for stem in stems if stem not in annotations]
    if unknown:
        raise BadInput(f"{split_list} names {', '.join(unknown[:MAX_EXAMPLES])}, for which there is no JSON file in "
                       f"{root}")
    return stems


def _files_by_stem(root: str, split_folder: str, folders: tuple[str, ...],
                   extensions: tuple[str, ...]) -> dict[str, str]:
    for folder in folders:
        path = os.path.join(root, split_folder, folder)
        if os.path.isdir(path):
            return {os.path.splitext(name)[0]: os.path.join(split_folder, folder, name)
                    for name in sorted(os.listdir(path)) if name.lower().endswith(extensions)}
    raise BadInput(f"no folder {' or '.join(folders)} in {os.path.join(root, split_folder)}: set data.root to the "
                   "folder that contains the images and the JSON files")


def _read_json(path: str) -> list[tuple[str, list[float]]]:
    """Returns the class name and box of each object."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        names = [str(name) for name in content["labels"]]
        boxes = [[float(value) for value in box] for box in content["boxes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f'{path}: expected {{"labels": [...], "boxes": [[x1, y1, x2, y2], ...]}} '
                       f"({type(error).__name__}: {error})") from error
    if len(names) != len(boxes) or any(len(box) != 4 for box in boxes):
        raise BadInput(f"{path}: {len(names)} labels for {len(boxes)} boxes; each box needs a label and four numbers")
    return list(zip(names, boxes))
