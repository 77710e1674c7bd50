"""PASCAL VOC trees: Annotations/*.xml, ImageSets/Main/*.txt, JPEGImages/*. (VOC 2012 development kit, sections 4-5)

A split is `trainval` for a tree at the root itself, or `VOC2007/trainval` for one below it; `2007/trainval` is short
for that.
"""

import os
import xml.etree.ElementTree as xml

import numpy as np

from detector import structures
from detector.data.image_io import ENDINGS, image_size
from detector.errors import BadInput, listed
from detector.structures import DIFFICULT, Dataset, build_dataset

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")


def sources(root: str, split: str) -> list[str]:
    """The files that the annotations come from."""
    tree, stems = _images_of(root, split)
    return [_split_file(root, split)] + [os.path.join(root, tree, "Annotations", f"{stem}.xml") for stem in stems]


def read(root: str, split: str) -> Dataset:
    """One split; its classes are those found, in alphabetical order. Raises BadInput that lists faulty files."""
    tree, stems = _images_of(root, split)
    images, objects, names, mistakes = [], [], [], []
    endings = _endings(os.path.join(root, tree, "JPEGImages"))
    for index, stem in enumerate(stems):
        try:
            path = os.path.join(tree, "JPEGImages", endings.get(stem, f"{stem}.jpg"))
            size, found = read_xml(os.path.join(root, tree, "Annotations", f"{stem}.xml"))
            images.append((path, index + 1, *(size or image_size(os.path.join(root, path)))))
        except BadInput as error:
            mistakes.append(str(error))
            continue
        objects += [(index, *row) for row in found]
        names += [row[0] for row in found]
    if mistakes:
        raise listed(f"voc {split}", mistakes)
    classes = sorted(set(names))
    corners = structures.from_voc(np.array([row[3:] for row in objects], np.float64))
    label = {name: c for c, name in enumerate(classes, start=1)}
    rows = np.array([(row[0], label[row[1]], row[2], 0) for row in objects], np.float64).reshape(-1, 4)
    rows[:, 3] = structures.area(corners)
    return build_dataset(f"voc {split}", root, classes, list(range(1, len(classes) + 1)), images,
                    np.concatenate([rows, corners], axis=1))


def _split_file(root: str, split: str) -> str:
    year, slash, name = split.rpartition("/")
    trees = [year, f"VOC{year}"] if slash else ["", "VOC2007", "VOC2012"]
    for tree in trees:
        path = os.path.join(root, tree, "ImageSets", "Main", f"{name}.txt")
        if os.path.isfile(path):
            return path
    folder = os.path.join(root, trees[0], "ImageSets", "Main")
    there = lists_in(folder)
    raise BadInput(f"no VOC split {split!r}: no such file as {os.path.join(folder, name)}.txt. "
                   + (f"There are: {', '.join(there[:20])}" if there else
                      "data.root holds Annotations, ImageSets/Main, JPEGImages, or folders such as VOC2007 with these"))


def _images_of(root: str, split: str) -> tuple[str, list[str]]:
    """The tree, relative to root, and the stems of the split's files."""
    path = _split_file(root, split)
    return os.path.relpath(os.path.join(os.path.dirname(path), "..", ".."), root).removeprefix("."), read_stems(path)


def lists_in(folder: str) -> list[str]:
    """The names of the splits that have a list there."""
    return sorted(name[:-4] for name in os.listdir(folder) if name.endswith(".txt")) if os.path.isdir(folder) else []


def read_stems(path: str) -> list[str]:
    """The images of a list. One of a single class, such as aeroplane_train.txt, carries 1, 0 or -1 behind each stem: -1
    is "not in this image". Others may carry a number."""
    with open(path, encoding="utf-8") as file:
        lines = [line.split() for line in file if line.strip()]
    return [words[0] for words in lines if len(words) == 1 or words[1] != "-1"]


def _endings(folder: str) -> dict[str, str]:
    """Stem -> file name, for images that are no .jpg."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return {os.path.splitext(n)[0]: n for n in names if not n.endswith(".jpg") and n.lower().endswith(ENDINGS)}


def read_xml(path: str) -> tuple[tuple[int, int] | None, list[tuple]]:
    """Height and width (None where the file does not say), and (name, flags, xmin, ymin, xmax, ymax) of each object."""
    try:
        root = xml.parse(path).getroot()
    except FileNotFoundError as error:
        raise BadInput(f"no such annotation file: {path}") from error
    except xml.ParseError as error:
        raise BadInput(f"{path} is no XML: {error}") from error
    try:
        height, width = int(root.findtext("size/height") or 0), int(root.findtext("size/width") or 0)
        found = []
        for entry in root.iter("object"):
            corners = [float(entry.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
            flags = DIFFICULT if (entry.findtext("difficult") or "0").strip() == "1" else 0
            name = entry.findtext("name").strip()
            if not name:
                raise ValueError("empty name")
            found.append((name, flags, *corners))
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path}: each object needs a name and a bndbox of numbers xmin, ymin, xmax, ymax") from error
    return ((height, width) if height and width else None), found
