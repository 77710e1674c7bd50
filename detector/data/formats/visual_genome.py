"""Visual Genome with the vocabulary, splits and XML files of bottom-up-attention.

The root contains train.txt, val.txt and test.txt of bottom-up-attention (a line is `VG_100K/1.jpg xml/1.xml`), the
photographs in VG_100K and VG_100K_2, and the boxes: either xml/ (as bottom-up-attention writes it) or objects.json and
image_data.json (as Visual Genome publishes them). A split is VERSION/NAME, such as 2500/train: VERSION is a folder with
objects_vocab.txt, whose lines are classes: a name and its synonyms, separated by commas.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Iterator

import numpy as np

from detector.data.formats.voc import read_xml
from detector.data.image_io import image_size
from detector.errors import BadInput, combine_mistakes
from detector.structures import Dataset, build_dataset

# Name of a split -> the list that contains it, and how many of its first lines; None: all. (lib/datasets/factory.py)
SPLITS = {"train": ("train", None), "val": ("val", None), "test": ("test", None), "minitrain": ("train", 1000),
          "smalltrain": ("train", 20000), "minival": ("val", 100), "smallval": ("val", 2000)}
BLOCK = 1 << 20   # characters that are read at once
MAX_EXAMPLES = 5  # in an error message


def sources(root: str, split: str) -> list[str]:
    """Returns the files that `read` reads."""
    version, name = _parse_split(split)
    files = [_list_file(root, name), _vocabulary_file(root, version)]
    if _is_original(root):
        return [*files, os.path.join(root, "objects.json"), os.path.join(root, "image_data.json")]
    return files + [path for path in (os.path.join(root, xml) for _, xml in _lines(root, name)) if os.path.isfile(path)]


def read(root: str, split: str) -> Dataset:
    """Reads one split; the classes are the whole vocabulary in its order, with or without objects in the split.

    Raises:
        BadInput: a file is missing or cannot be used, or the split is unknown.
    """
    version, name = _parse_split(split)
    classes, label = read_vocabulary(_vocabulary_file(root, version))
    lines = _lines(root, name)
    images, rows, warnings = (_from_json if _is_original(root) else _from_xml)(root, lines, label)
    objects = np.array(rows, np.float64).reshape(-1, 6)
    areas = (objects[:, 4] - objects[:, 2]).clip(0) * (objects[:, 5] - objects[:, 3]).clip(0)
    columns = np.column_stack([objects[:, :2], np.zeros(len(objects)), areas, objects[:, 2:]])
    return build_dataset(f"visual genome {split}", root, classes, list(range(1, len(classes) + 1)), images, columns,
                         warnings)


def read_vocabulary(path: str) -> tuple[list[str], dict[str, int]]:
    """Returns the classes in the order of the file, and the label (from 1) of each normalized name and synonym."""
    with open(path, encoding="utf-8") as file:
        lines = [[name.strip() for name in line.split(",") if name.strip()] for line in file if line.strip()]
    lines = [names for names in lines if names]
    label: dict[str, int] = {}
    for number, names in enumerate(lines, start=1):
        for name in names:
            label.setdefault(normalize_name(name), number)
    classes = [names[0] for names in lines]
    if not classes:
        raise BadInput(f"{path} contains no class; it needs one on each line")
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise BadInput(f"{path}: classes that occur twice: {', '.join(twice[:MAX_EXAMPLES])}. Remove one of the lines")
    return classes, label


def write_vocabulary(root: Path, size: int, target: Path) -> None:
    """Writes the `size` most frequent object names of the training images, most frequent first, ties by name.

    Raises:
        BadInput: objects.json contains fewer names.
    """
    train_ids = {_image_id(image) for image, _ in _lines(str(root), "train")}
    counts: Counter[str] = Counter()
    for entry in iter_json_list(root / "objects.json"):
        if entry["image_id"] in train_ids:
            names = [normalize_name(annotation["names"][0]) for annotation in entry["objects"] if annotation["names"]]
            counts.update(name for name in names if name and "," not in name)
    vocabulary = sorted(counts, key=lambda name: (-counts[name], name))[:size]
    if len(vocabulary) < size:
        raise BadInput(f"{root / 'objects.json'} has {len(vocabulary)} names of objects in the training images, {size} "
                       "are needed: is the file complete?")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".part")
    temporary.write_text("".join(f"{name}\n" for name in vocabulary), encoding="utf-8")
    os.replace(temporary, target)


def normalize_name(name: str) -> str:
    """Returns a name that was typed by hand in lower case, with single spaces and without a full stop at the end."""
    return " ".join(name.lower().split()).removesuffix(".").rstrip()


def iter_json_list(path: Path) -> Iterator[dict]:
    """Yields the entries of a JSON list one by one; objects.json as a whole would take several GiB of memory."""
    decoder, buffer, position, at_end = json.JSONDecoder(), "", 0, False
    with open(path, encoding="utf-8") as file:
        while True:
            while position < len(buffer) and buffer[position] in " \t\r\n,[":
                position += 1
            try:
                entry, position = decoder.raw_decode(buffer, position)
            except json.JSONDecodeError as error:  # usually because the entry continues beyond the buffer
                rest = buffer[position:]
                if at_end and rest.strip() in ("]", ""):
                    return
                if at_end:
                    raise BadInput(f"{path} is no JSON list, or is truncated: {error}") from error
                block = file.read(BLOCK)
                buffer, position, at_end = rest + block, 0, not block
                continue
            yield entry


def _parse_split(split: str) -> tuple[str, str]:
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
        versions = sorted(file.parent.name for file in Path(root).glob("*/objects_vocab.txt"))
        hint = f"Versions: {', '.join(versions)}" if versions else \
            "`fleet-rcnn data get visual_genome` writes the one of 2500 names"
        raise BadInput(f"no vocabulary {path}. {hint}")
    return path


def _lines(root: str, name: str) -> list[tuple[str, str]]:
    """Returns the image and the XML file of each image of a split, relative to the root."""
    path = _list_file(root, name)
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.split() for line in file if line.strip()]
    except FileNotFoundError as error:
        raise BadInput(f"no list of images {path}: data.root needs train.txt, val.txt and test.txt of "
                       "bottom-up-attention, data/genome. `fleet-rcnn data get visual_genome` fetches them") from error
    malformed = [" ".join(line) for line in lines if len(line) != 2 or not _image_id(line[0])]
    if malformed:
        raise BadInput(f"{path}: a line is `VG_100K/1.jpg xml/1.xml`, not {malformed[0]!r}")
    return [(image, xml) for image, xml in lines][:SPLITS[name][1]]


def _image_id(image: str) -> int:
    """Returns Visual Genome's own number of an image, its file name; 0 for other files."""
    stem = os.path.splitext(os.path.basename(image))[0]
    return int(stem) if stem.isdigit() else 0


def _is_original(root: str) -> bool:
    """Returns whether `root` holds Visual Genome's own JSON files: it does unless it has a folder xml/."""
    return not os.path.isdir(os.path.join(root, "xml"))


def _from_json(root: str, lines: list[tuple[str, str]], label: dict[str, int]) -> tuple[list, list, tuple[str, ...]]:
    """Returns images for build_dataset, rows (index of the image, label, x1, y1, x2, y2), and warnings."""
    for name in ("objects.json", "image_data.json"):
        if not os.path.isfile(os.path.join(root, name)):
            raise BadInput(f"no such annotation file: {os.path.join(root, name)}. data.root needs xml/, or objects.json"
                           " and image_data.json")
    index = {_image_id(image): i for i, (image, _) in enumerate(lines)}
    sizes = {entry["image_id"]: (entry["height"], entry["width"])
             for entry in iter_json_list(Path(root, "image_data.json")) if entry["image_id"] in index}
    images = [(image, _image_id(image), *(sizes.get(_image_id(image)) or image_size(os.path.join(root, image))))
              for image, _ in lines]
    rows, seen = [], set()
    for entry in iter_json_list(Path(root, "objects.json")):
        if entry["image_id"] not in index or entry["image_id"] in seen:
            continue
        seen.add(entry["image_id"])
        for annotation in entry["objects"]:
            name = next((name for name in map(normalize_name, annotation["names"]) if name in label), None)
            if name is not None:
                x, y = annotation["x"], annotation["y"]
                rows.append((index[entry["image_id"]], label[name], x, y, x + annotation["w"], y + annotation["h"]))
    missing = len(index) - len(seen)
    return images, rows, _missing_warning(missing, "are not in objects.json")


def _from_xml(root: str, lines: list[tuple[str, str]], label: dict[str, int]) -> tuple[list, list, tuple[str, ...]]:
    """As `_from_json`, from xml/, which has no file for an image without an object of any class."""
    images, rows, mistakes, missing = [], [], [], 0
    for index, (image, xml) in enumerate(lines):
        path = os.path.join(root, xml)
        try:
            size, objects = read_xml(path) if os.path.isfile(path) else (None, [])
            images.append((image, _image_id(image), *(size or image_size(os.path.join(root, image)))))
        except BadInput as error:
            mistakes.append(str(error))
            continue
        missing += not os.path.isfile(path)
        rows += [(index, label[normalize_name(name)], *corners) for name, _, *corners in objects
                 if normalize_name(name) in label]
    if mistakes:
        raise combine_mistakes("visual genome", mistakes)
    return images, rows, _missing_warning(missing, "have no file in xml/")


def _missing_warning(count: int, reason: str) -> tuple[str, ...]:
    return (f"{count} images {reason}; they count as images without objects",) if count else ()
