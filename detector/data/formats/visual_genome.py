"""Visual Genome: which names are classes, which images make up a split, and their boxes.

Below the root lie train.txt, val.txt and test.txt of bottom-up-attention (a line is `VG_100K/1.jpg xml/1.xml`), the
photographs in VG_100K and VG_100K_2, and either xml/ (as bottom-up-attention writes it) or objects.json and
image_data.json as Visual Genome publishes them. A split is VERSION/NAME, such as 2500/train: VERSION is a folder with
objects_vocab.txt, a class on each line, its name first, then its synonyms, between commas.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Iterator

import numpy as np

from detector.data.formats.voc import read_xml
from detector.data.image_io import image_size
from detector.errors import BadInput, listed
from detector.structures import Dataset, build_dataset

# name of a split -> the list it is cut from, and how many of its first lines; None: all (lib/datasets/factory.py)
SPLITS = {"train": ("train", None), "val": ("val", None), "test": ("test", None), "minitrain": ("train", 1000),
          "smalltrain": ("train", 20000), "minival": ("val", 100), "smallval": ("val", 2000)}
BLOCK = 1 << 20  # characters


def sources(root: str, split: str) -> list[str]:
    """The files that the annotations come from."""
    version, name = _parts(split)
    files = [_list_file(root, name), _vocabulary_file(root, version)]
    if _json_layout(root):
        return [*files, os.path.join(root, "objects.json"), os.path.join(root, "image_data.json")]
    return files + [path for path in (os.path.join(root, xml) for _, xml in _lines(root, name)) if os.path.isfile(path)]


def read(root: str, split: str) -> Dataset:
    """One split; its classes are all of the vocabulary, in its order, whether the split shows them or not."""
    version, name = _parts(split)
    classes, label = read_vocabulary(_vocabulary_file(root, version))
    lines = _lines(root, name)
    images, rows, faults = (_from_json if _json_layout(root) else _from_xml)(root, lines, label)
    objects = np.array(rows, np.float64).reshape(-1, 6)
    areas = (objects[:, 4] - objects[:, 2]).clip(0) * (objects[:, 5] - objects[:, 3]).clip(0)
    table = np.column_stack([objects[:, :2], np.zeros(len(objects)), areas, objects[:, 2:]])
    return build_dataset(f"visual genome {split}", root, classes, list(range(1, len(classes) + 1)), images, table, faults)


def read_vocabulary(path: str) -> tuple[list[str], dict[str, int]]:
    """The classes in the order of the file, and the label of each name and synonym."""
    with open(path, encoding="utf-8") as file:
        lines = [[word.strip() for word in line.split(",") if word.strip()] for line in file if line.strip()]
    lines = [words for words in lines if words]
    label: dict[str, int] = {}
    for number, words in enumerate(lines, start=1):
        for word in words:
            label.setdefault(clean(word), number)
    names = [words[0] for words in lines]
    if not names or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise BadInput(f"{path}: " + (f"said twice: {', '.join(twice[:5])}" if names else "no class in it"))
    return names, label


def write_vocabulary(root: Path, size: int, target: Path) -> None:
    """The `size` most frequent object names of the training images, the more frequent first, ties by name."""
    wanted = {_image_id(image) for image, _ in _lines(str(root), "train")}
    counts: Counter[str] = Counter()
    for entry in entries(root / "objects.json"):
        if entry["image_id"] in wanted:
            counts.update(name for name in (clean(said["names"][0]) for said in entry["objects"] if said["names"])
                          if name and "," not in name)
    chosen = sorted(counts, key=lambda name: (-counts[name], name))[:size]
    if len(chosen) < size:
        raise BadInput(f"{root / 'objects.json'} names {len(chosen)} kinds of objects in the training images, "
                       f"{size} are wanted: is it the whole file?")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(target.name + ".part")
    beside.write_text("".join(f"{name}\n" for name in chosen), encoding="utf-8")
    os.replace(beside, target)


def clean(name: str) -> str:
    """Names were typed by hand: lower case, single spaces, no full stop at the end."""
    return " ".join(name.lower().split()).removesuffix(".").rstrip()


def entries(path: Path) -> Iterator[dict]:
    """The objects of a JSON list one by one: the whole of objects.json at once would take several GiB."""
    decoder, buffer, place, end = json.JSONDecoder(), "", 0, False
    with open(path, encoding="utf-8") as file:
        while True:
            while place < len(buffer) and buffer[place] in " \t\r\n,[":
                place += 1
            try:
                entry, place = decoder.raw_decode(buffer, place)
            except json.JSONDecodeError as error:  # most often because the entry goes on behind the buffer
                rest = buffer[place:]
                if end and rest.strip() in ("]", ""):
                    return
                if end:
                    raise BadInput(f"{path} is no JSON list, or is cut short: {error}") from error
                more = file.read(BLOCK)
                buffer, place, end = rest + more, 0, not more
                continue
            yield entry


def _parts(split: str) -> tuple[str, str]:
    version, slash, name = split.rpartition("/")
    if not slash or name not in SPLITS:
        raise BadInput(f"no Visual Genome split {split!r}: it is VERSION/NAME, such as 2500/train; NAME is one of "
                       + ", ".join(SPLITS) + ", VERSION a folder below data.root with objects_vocab.txt")
    return version, name


def _list_file(root: str, name: str) -> str:
    return os.path.join(root, f"{SPLITS[name][0]}.txt")


def _vocabulary_file(root: str, version: str) -> str:
    path = os.path.join(root, version, "objects_vocab.txt")
    if not os.path.isfile(path):
        there = sorted(found.parent.name for found in Path(root).glob("*/objects_vocab.txt"))
        raise BadInput(f"no vocabulary {path}" + (f"; there are: {', '.join(there)}" if there else
                       ". `fleet-rcnn data get visual_genome` writes the one of 2500 names"))
    return path


def _lines(root: str, name: str) -> list[tuple[str, str]]:
    """(image, xml) of each image of a split, relative to the root."""
    path = _list_file(root, name)
    try:
        with open(path, encoding="utf-8") as file:
            words = [line.split() for line in file if line.strip()]
    except FileNotFoundError as error:
        raise BadInput(f"no list of images {path}: data.root holds train.txt, val.txt and test.txt of "
                       "bottom-up-attention, data/genome. `fleet-rcnn data get visual_genome` fetches them") from error
    faulty = [" ".join(line) for line in words if len(line) != 2 or not _image_id(line[0])]
    if faulty:
        raise BadInput(f"{path}: a line is `VG_100K/1.jpg xml/1.xml`, not {faulty[0]!r}")
    return [(image, xml) for image, xml in words][:SPLITS[name][1]]


def _image_id(image: str) -> int:
    """Visual Genome's own number of an image; 0 for a file that has none."""
    stem = os.path.splitext(os.path.basename(image))[0]
    return int(stem) if stem.isdigit() else 0


def _json_layout(root: str) -> bool:
    return not os.path.isdir(os.path.join(root, "xml"))


def _from_json(root: str, lines: list[tuple[str, str]], label: dict[str, int]) -> tuple[list, list, tuple[str, ...]]:
    """Images for records.assemble; rows of index, label, x1, y1, x2, y2; and what was met."""
    for name in ("objects.json", "image_data.json"):
        if not os.path.isfile(os.path.join(root, name)):
            raise BadInput(f"no such annotation file: {os.path.join(root, name)}. data.root holds xml/, or objects.json"
                           " and image_data.json")
    index = {_image_id(image): i for i, (image, _) in enumerate(lines)}
    sizes = {entry["image_id"]: (entry["height"], entry["width"]) for entry in entries(Path(root, "image_data.json"))
             if entry["image_id"] in index}
    images = [(image, _image_id(image), *(sizes.get(_image_id(image)) or image_size(os.path.join(root, image))))
              for image, _ in lines]
    rows, seen = [], set()
    for entry in entries(Path(root, "objects.json")):
        if entry["image_id"] not in index or entry["image_id"] in seen:
            continue
        seen.add(entry["image_id"])
        for said in entry["objects"]:
            name = next((clean(name) for name in said["names"] if clean(name) in label), None)
            if name is not None:
                rows.append((index[entry["image_id"]], label[name], said["x"], said["y"], said["x"] + said["w"],
                             said["y"] + said["h"]))
    missing = len(index) - len(seen)
    return images, rows, (f"{missing} images are not in objects.json; they count as images without objects",) * bool(
        missing)


def _from_xml(root: str, lines: list[tuple[str, str]], label: dict[str, int]) -> tuple[list, list, tuple[str, ...]]:
    """The same from xml/, which has no file for an image without an object of any class."""
    images, rows, mistakes, missing = [], [], [], 0
    for number, (image, xml) in enumerate(lines):
        path = os.path.join(root, xml)
        try:
            size, found = read_xml(path) if os.path.isfile(path) else (None, [])
            images.append((image, _image_id(image), *(size or image_size(os.path.join(root, image)))))
        except BadInput as error:
            mistakes.append(str(error))
            continue
        missing += not os.path.isfile(path)
        rows += [(number, label[clean(name)], *corners) for name, _, *corners in found if clean(name) in label]
    if mistakes:
        raise listed("visual genome", mistakes)
    return images, rows, (f"{missing} images have no file in xml/; they count as images without objects",) * bool(
        missing)
