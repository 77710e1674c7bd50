"""PASCAL VOC: Annotations/*.xml, ImageSets/Main/*.txt, JPEGImages/*. (VOC 2012 development kit, sections 4 and 5)

A split is `trainval` if the root itself has these folders, or `VOC2007/trainval` if a folder below the root has them;
`2007/trainval` is short for the latter.
"""

import os
import xml.etree.ElementTree as ElementTree

import numpy as np

from detector import structures
from detector.data.image_io import IMAGE_EXTENSIONS, image_size
from detector.errors import BadInput, combine_mistakes
from detector.structures import DIFFICULT, Dataset, build_dataset

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
MAX_SPLITS_IN_ERROR = 20


def sources(root: str, split: str) -> list[str]:
    """Returns the files that `read` reads."""
    folder, stems = _images_of(root, split)
    return [_split_file(root, split)] + [os.path.join(root, folder, "Annotations", f"{stem}.xml") for stem in stems]


def read(root: str, split: str) -> Dataset:
    """Reads one split; the classes are those that occur, in alphabetical order.

    Raises:
        BadInput: lists the annotation files that cannot be used.
    """
    folder, stems = _images_of(root, split)
    images, objects, names, mistakes = [], [], [], []
    file_names = _file_names(os.path.join(root, folder, "JPEGImages"))
    for index, stem in enumerate(stems):
        try:
            path = os.path.join(folder, "JPEGImages", file_names.get(stem, f"{stem}.jpg"))
            size, rows = read_xml(os.path.join(root, folder, "Annotations", f"{stem}.xml"))
            images.append((path, index + 1, *(size or image_size(os.path.join(root, path)))))
        except BadInput as error:
            mistakes.append(str(error))
            continue
        objects += [(index, *row) for row in rows]
        names += [row[0] for row in rows]
    if mistakes:
        raise combine_mistakes(f"voc {split}", mistakes)
    classes = sorted(set(names))
    boxes = structures.from_voc(np.array([row[3:] for row in objects], np.float64))
    label = {name: c for c, name in enumerate(classes, start=1)}
    columns = np.array([(row[0], label[row[1]], row[2], 0) for row in objects], np.float64).reshape(-1, 4)
    columns[:, 3] = structures.area(boxes)
    return build_dataset(f"voc {split}", root, classes, list(range(1, len(classes) + 1)), images,
                         np.concatenate([columns, boxes], axis=1))


def _split_file(root: str, split: str) -> str:
    year, slash, name = split.rpartition("/")
    folders = [year, f"VOC{year}"] if slash else ["", "VOC2007", "VOC2012"]
    for folder in folders:
        path = os.path.join(root, folder, "ImageSets", "Main", f"{name}.txt")
        if os.path.isfile(path):
            return path
    lists = os.path.join(root, folders[0], "ImageSets", "Main")
    names = split_names(lists)
    hint = f"Splits: {', '.join(names[:MAX_SPLITS_IN_ERROR])}" if names else \
        "data.root holds Annotations, ImageSets/Main, JPEGImages, or folders such as VOC2007 with these"
    raise BadInput(f"no VOC split {split!r}: no such file as {os.path.join(lists, name)}.txt. {hint}")


def _images_of(root: str, split: str) -> tuple[str, list[str]]:
    """Returns the folder of Annotations and JPEGImages, relative to root, and the stems of the split's files."""
    path = _split_file(root, split)
    return os.path.relpath(os.path.join(os.path.dirname(path), "..", ".."), root).removeprefix("."), read_stems(path)


def split_names(folder: str) -> list[str]:
    """Returns the names of the text files in a folder, sorted; a missing folder has none."""
    return sorted(name[:-4] for name in os.listdir(folder) if name.endswith(".txt")) if os.path.isdir(folder) else []


def read_stems(path: str) -> list[str]:
    """Returns the file stems that a split file lists.

    A list of a single class, such as aeroplane_train.txt, has 1, 0 or -1 after each stem; images with -1 do not show
    the class and are left out. Other numbers are ignored.
    """
    with open(path, encoding="utf-8") as file:
        lines = [line.split() for line in file if line.strip()]
    return [columns[0] for columns in lines if len(columns) == 1 or columns[1] != "-1"]


def _file_names(folder: str) -> dict[str, str]:
    """Returns stem -> file name for the images whose name does not end in .jpg."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return {os.path.splitext(name)[0]: name for name in names
            if not name.endswith(".jpg") and name.lower().endswith(IMAGE_EXTENSIONS)}


def read_xml(path: str) -> tuple[tuple[int, int] | None, list[tuple]]:
    """Reads one annotation file.

    Returns:
        size: height and width, or None if the file does not state them.
        objects: (name, flags, xmin, ymin, xmax, ymax) of each object.

    Raises:
        BadInput: the file is missing, is no XML, or has an object without a name or box.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise BadInput(f"no such annotation file: {path}") from error
    except ElementTree.ParseError as error:
        raise BadInput(f"{path} is no XML: {error}") from error
    try:
        height, width = int(root.findtext("size/height") or 0), int(root.findtext("size/width") or 0)
        objects = []
        for entry in root.iter("object"):
            corners = [float(entry.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
            flags = DIFFICULT if (entry.findtext("difficult") or "0").strip() == "1" else 0
            name = entry.findtext("name").strip()
            if not name:
                raise ValueError("empty name")
            objects.append((name, flags, *corners))
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path}: each object needs a name and a bndbox of numbers xmin, ymin, xmax, ymax") from error
    return ((height, width) if height and width else None), objects
