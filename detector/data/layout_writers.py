"""Writes the annotations of a data set in another layout: WRITERS.

Images are written elsewhere (convert.py); these functions write everything else, so that the readers of formats/ give
the same boxes to a hundredth of a pixel.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np

from detector.data.formats.split_names import same_splits
from detector.errors import BadInput, shorten
from detector.structures import CROWD, DIFFICULT, Dataset, to_xywh

DECIMALS = 4          # of a coordinate in pixels
FRACTION_DECIMALS = 10  # of a fraction of width or height
NOT_IN_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # (XML 1.0, section 2.2)
NOT_IN_YAML = re.compile("[\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # as they are; json.dumps escapes the others
RESERVED = ("annotations", "images", "labels", "input", "target", "jpegimages", "imagesets", "all")


@dataclass(frozen=True)
class Split:
    """A split to be written. `files`: the name of each image in its target folder."""

    name: str
    dataset: Dataset
    files: list[str]


@dataclass(frozen=True)
class Writer:
    """How to write one layout.

    write: (folder, splits) -> None; the splits have the same classes.
    images: the folder of a split's images, a pattern with its name.
    flags: of CROWD and DIFFICULT, those that the layout can hold.
    has_sizes: the layout states the size of each image; the others are read as large as the image files are.
    has_classes: the layout lists all classes in their order; in the others, classes are those that occur, by name.
    """

    write: Callable[[str, list[Split]], None]
    images: str
    flags: int
    has_sizes: bool
    has_classes: bool


def write_coco(folder: str, splits: list[Split]) -> None:
    """Writes annotations/instances_SPLIT.json; ids of images and categories are kept where they are usual ones."""
    for split in splits:
        data = split.dataset
        ids = data.category_ids.tolist()
        if ids != sorted(set(ids)) or min(ids, default=1) < 1:  # categories are read in the order of their ids
            ids = list(range(1, len(ids) + 1))
        images = [{"id": int(image), "file_name": name, "width": int(width), "height": int(height)}
                  for image, name, (height, width) in zip(data.image_ids, split.files, data.sizes)]
        boxes = to_xywh(data.boxes).round(DECIMALS).tolist()
        owners = data.image_ids[data.image_of_box()].tolist()
        annotations = [{"id": number, "image_id": owner, "category_id": ids[label - 1], "bbox": box,
                        "area": round(area, DECIMALS), "iscrowd": flags & CROWD}
                       for number, (owner, label, box, area, flags) in enumerate(
                           zip(owners, data.labels.tolist(), boxes, data.areas.tolist(), data.flags.tolist()), start=1)]
        _write(folder, f"annotations/instances_{split.name}.json", json.dumps(
            {"images": images, "annotations": annotations,
             "categories": [{"id": number, "name": name} for number, name in zip(ids, data.classes)]}))


def write_voc(folder: str, splits: list[Split]) -> None:
    """Writes ImageSets/Main/SPLIT.txt and Annotations/*.xml with 1-based inclusive corners; crowd becomes difficult.

    Raises:
        BadInput: a class has a name that XML cannot hold.
    """
    wrong = [repr(name) for name in splits[0].dataset.classes if NOT_IN_XML.search(name)]
    if wrong:
        raise BadInput(f"class names that XML cannot hold: {shorten(wrong)}. Rename them, or convert --to coco")
    for split in splits:
        stems = [os.path.splitext(name)[0] for name in split.files]
        _write(folder, f"ImageSets/Main/{split.name}.txt", "".join(f"{stem}\n" for stem in stems))
        for index, stem in enumerate(stems):
            _write(folder, f"Annotations/{stem}.xml", _voc_xml(split, index))


def _voc_xml(split: Split, index: int) -> str:
    data = split.dataset
    height, width = data.sizes[index].tolist()
    lines = ["<?xml version=\"1.0\" encoding=\"utf-8\"?>", "<annotation>",
             f"  <filename>{escape(split.files[index])}</filename>",
             f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>"]
    rows = data.rows(index)
    for box, label, flags in zip(data.boxes[rows].tolist(), data.labels[rows].tolist(), data.flags[rows].tolist()):
        # Readers subtract 1 from corners of 1 or more; a corner outside the image is written as it is.
        corners = [value + 1 if value >= 0 else value for value in box[:2]] + box[2:]
        tags = "".join(f"<{tag}>{format_number(value)}</{tag}>"
                       for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners))
        lines.append(f"  <object><name>{escape(data.classes[label - 1])}</name><difficult>{int(flags > 0)}</difficult>"
                     f"<bndbox>{tags}</bndbox></object>")
    return "\n".join([*lines, "</annotation>", ""])


def write_yolo(folder: str, splits: list[Split]) -> None:
    """Writes data.yaml and labels/SPLIT/*.txt, a file also for each image without objects."""
    keys: dict[str, str] = {}  # the three that other programs know; further splits are read by their folders
    for name in (split.name for split in splits):
        key = same_splits(name)[0] if name in same_splits(name) else name
        if key in ("train", "val", "test"):
            keys.setdefault(key, name)
    lines = [f"{key}: {yaml_text(f'images/{name}')}" for key, name in keys.items()]
    classes = splits[0].dataset.classes
    names = [f"  {number}: {yaml_text(name)}" for number, name in enumerate(classes)]
    lines += [f"nc: {len(classes)}", "names:" if names else "names: []", *names, ""]
    _write(folder, "data.yaml", "\n".join(lines))
    for split in splits:
        data = split.dataset
        for index, name in enumerate(split.files):
            rows, (height, width) = data.rows(index), data.sizes[index]
            boxes = data.boxes[rows].astype(np.float64) / np.array([width, height, width, height], np.float64)
            centers = np.concatenate([boxes[:, :2] + boxes[:, 2:], 2 * (boxes[:, 2:] - boxes[:, :2])], axis=1) / 2
            text = "".join(f"{label - 1} {' '.join(format_number(value, FRACTION_DECIMALS) for value in box)}\n"
                           for label, box in zip(data.labels[rows].tolist(), centers.tolist()))
            _write(folder, f"labels/{split.name}/{os.path.splitext(name)[0]}.txt", text)


def write_per_image_json(folder: str, splits: list[Split]) -> None:
    """Writes SPLIT/labels/*.json."""
    for split in splits:
        data = split.dataset
        for index, name in enumerate(split.files):
            rows = data.rows(index)
            content = {"labels": [data.classes[label - 1] for label in data.labels[rows].tolist()],
                       "boxes": data.boxes[rows].astype(np.float64).round(DECIMALS).tolist()}
            _write(folder, f"{split.name}/labels/{os.path.splitext(name)[0]}.json", json.dumps(content))


def yaml_text(text: str) -> str:
    """Returns a text in double quotes, as YAML reads it."""
    return NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def format_number(value: float, decimals: int = DECIMALS) -> str:
    """Returns a number without an exponent and without zeros at its end."""
    text = f"{value:.{decimals}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _write(folder: str, name: str, text: str) -> None:
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


WRITERS: dict[str, Writer] = {
    "coco": Writer(write_coco, "{}", CROWD, has_sizes=True, has_classes=True),
    "voc": Writer(write_voc, "JPEGImages", DIFFICULT, has_sizes=True, has_classes=False),
    "yolo": Writer(write_yolo, "images/{}", 0, has_sizes=False, has_classes=True),
    "per_image_json": Writer(write_per_image_json, "{}/images", 0, has_sizes=False, has_classes=False),
}
