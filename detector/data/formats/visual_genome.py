"""Visual Genome 1.0, 1.2 and 1.4 with the vocabulary, splits and XML files of bottom-up-attention.

The root contains train.txt, val.txt and test.txt of bottom-up-attention (a line is `VG_100K/1.jpg xml/1.xml`), the
photographs in VG_100K and VG_100K_2, and the boxes: either xml/ (as bottom-up-attention writes it) or objects.json and
image_data.json (as Visual Genome publishes them). A split is VERSION/NAME, such as 2500/train: VERSION is a folder with
objects_vocab.txt, whose lines are classes: a name and its synonyms, separated by commas.
"""

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from detector import structures
from detector.data.formats.file_index import FileIndex, is_there
from detector.data.formats.visual_genome_json import image_id_of, iter_json_list, objects_of, size_of
from detector.data.formats.voc_xml import read_xml
from detector.data.image_sizes import read_missing_sizes
from detector.data.image_walk import IMAGE_EXTENSIONS
from detector.data.text_files import read_lines
from detector.errors import BadInput, combine_mistakes, count_of, shorten
from detector.run.files import write_whole
from detector.structures import Dataset, build_dataset

# Name of a split -> the list that contains it, and how many of its first lines; None: all. (lib/datasets/factory.py)
SPLITS = {"train": ("train", None), "val": ("val", None), "test": ("test", None), "minitrain": ("train", 1000),
          "smalltrain": ("train", 20000), "minival": ("val", 100), "smallval": ("val", 2000)}
PHOTOGRAPH_FOLDERS = ("VG_100K", "VG_100K_2", "images")  # where a photograph may be, whatever its list says


def sources(root: str, split: str, images: str = "") -> list[str]:
    """Returns the files that `read` reads, except missing ones."""
    version, name = _parse_split(split)
    files = [_list_file(root, name), _vocabulary_file(root, version)]
    lines = _lines(root, name)
    xml = ["objects.json", "image_data.json"] if _is_original(root) else [xml for _, xml in lines]
    return files + [path for path in (os.path.join(root, file) for file in xml) if is_there(path)]


def read(root: str, split: str, images: str = "") -> Dataset:
    """Reads one split; the classes are the whole vocabulary in its order, with or without objects in the split.

    Args:
        images: folder of the photographs, below `root` or absolute; "": by layout.

    Raises:
        BadInput: a file is missing or cannot be used, or the split is unknown.
    """
    version, name = _parse_split(split)
    classes, label = read_vocabulary(_vocabulary_file(root, version))
    lines = _lines(root, name)
    sizes, rows, mistakes, warnings = (_from_json if _is_original(root) else _from_xml)(root, lines, label)
    find = _photograph_finder(root, images)
    photographs = [(find(image), number, size) for (image, _), number, size in zip(lines, _image_ids(lines), sizes)]
    photographs, unsized = read_missing_sizes(root, photographs, f"visual genome {split}", mistakes)
    objects = np.array(rows, np.float64).reshape(-1, 6)
    boxes = objects[:, 2:]
    columns = np.column_stack([objects[:, :2], np.zeros(len(objects)), structures.area(boxes), boxes])
    return build_dataset(f"visual genome {split}", root, classes, list(range(1, len(classes) + 1)), photographs,
                         columns, warnings, unsized)


def _photograph_finder(root: str, images: str) -> Callable[[str], str]:
    """Returns a function from the path in a list to the path of the photograph, which may lie in another folder."""
    index = FileIndex(root, images, IMAGE_EXTENSIONS)

    def find(image: str) -> str:
        name = os.path.basename(image)
        candidates = [image, *(os.path.join(folder, name) for folder in PHOTOGRAPH_FOLDERS), name]
        return next(filter(None, map(index.find_file, candidates)), image)
    return find


def read_vocabulary(path: str) -> tuple[list[str], dict[str, int]]:
    """Returns the classes in the order of the file, and the label (from 1) of each normalized name and synonym."""
    lines = [[name.strip() for name in line.split(",") if name.strip()] for line in read_lines(path, "vocabulary")]
    lines = [names for names in lines if names]
    label: dict[str, int] = {}
    for number, names in enumerate(lines, start=1):
        for name in names:
            label.setdefault(normalize_name(name), number)
    classes = [names[0] for names in lines]
    if not classes:
        raise BadInput(f"{path} contains no class; it needs one on each line")
    twice = sorted(name for name, count in Counter(classes).items() if count > 1)
    if twice:
        raise BadInput(f"{path}: classes that occur twice: {shorten(twice)}. Remove one of the lines")
    return classes, label


def write_vocabulary(root: Path, size: int, target: Path) -> None:
    """Writes the `size` most frequent object names of the training images, most frequent first, ties by name.

    Raises:
        BadInput: objects.json contains fewer names.
    """
    train_ids = {_image_id(image) for image, _ in _lines(str(root), "train")}
    path = str(root / "objects.json")
    counts: Counter[str] = Counter()
    for position, entry in enumerate(iter_json_list(path), start=1):
        if image_id_of(entry, path, position) in train_ids:
            objects, mistakes = objects_of(entry, path, with_boxes=False)
            if mistakes:
                raise combine_mistakes(path, mistakes)
            names = [normalize_name(names[0]) for names, _ in objects if names]
            counts.update(name for name in names if name.isprintable() and name and "," not in name)
    vocabulary = sorted(counts, key=lambda name: (-counts[name], name))[:size]
    if len(vocabulary) < size:
        raise BadInput(f"{root / 'objects.json'} has {len(vocabulary)} names of objects in the training images, {size} "
                       "are needed: is the file complete?")
    write_whole(target, "".join(f"{name}\n" for name in vocabulary))


def normalize_name(name: str) -> str:
    """Returns a name that was typed by hand in lower case, with single spaces and without a full stop at the end."""
    return " ".join(name.lower().split()).removesuffix(".").rstrip()


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
    if not is_there(path):
        versions = sorted(file.parent.name for file in Path(root).glob("*/objects_vocab.txt"))
        hint = f"Versions: {', '.join(versions)}" if versions else \
            "`fleet-rcnn data get visual_genome` writes the one of 2500 names"
        raise BadInput(f"no vocabulary {path}. {hint}")
    return path


def _lines(root: str, name: str) -> list[tuple[str, str]]:
    """Returns the image and the XML file of each line of a split's list, relative to the root."""
    path = _list_file(root, name)
    if not is_there(path):
        raise BadInput(f"no list of images {path}: data.root needs train.txt, val.txt and test.txt of "
                       "bottom-up-attention, data/genome. `fleet-rcnn data get visual_genome` fetches them")
    lines = [line.replace("\\", "/").split() for line in read_lines(path)]
    malformed = [" ".join(line) for line in lines if len(line) != 2 or not _image_id(line[0])]
    if malformed:
        raise BadInput(f"{path}: a line is `VG_100K/1.jpg xml/1.xml`, not {malformed[0]!r}. Write both "
                       "columns, separated by a space; the image's file name is its number")
    if not lines:
        raise BadInput(f"{path} lists no image. Write a line such as `VG_100K/1.jpg xml/1.xml` for each")
    return [(image, xml) for image, xml in lines][:SPLITS[name][1]]


def _image_ids(lines: list[tuple[str, str]]) -> list[int]:
    """Returns the id of each image: Visual Genome's own, but a new one for a line that names an image again."""
    numbers = [_image_id(image) for image, _ in lines]
    ids, known, unused = [], set(), itertools.count(max(numbers) + 1)
    for number in numbers:
        ids.append(next(unused) if number in known else number)
        known.add(number)
    return ids


def _image_id(image: str) -> int:
    """Returns Visual Genome's own number of an image, its file name; 0 for other files."""
    stem = os.path.splitext(os.path.basename(image))[0]
    return int(stem) if re.fullmatch(r"[0-9]{1,18}", stem) else 0


def _is_original(root: str) -> bool:
    """Returns whether `root` holds Visual Genome's own JSON files: it does unless it has a folder xml/."""
    return not os.path.isdir(os.path.join(root, "xml"))


Contents = tuple[list, list, list[str], tuple[str, ...]]


def _from_json(root: str, lines: list[tuple[str, str]], label: dict[str, int]) -> Contents:
    """Returns the size of each image or None, rows (index of the image, label, x1, y1, x2, y2), mistakes, warnings."""
    objects_file, images_file = (os.path.join(root, name) for name in ("objects.json", "image_data.json"))
    for path in (objects_file, images_file):
        if not is_there(path):
            raise BadInput(f"no such annotation file: {path}. data.root needs xml/, or objects.json and "
                           "image_data.json")
    index = defaultdict(list)  # of the lines that name an image
    for i, (image, _) in enumerate(lines):
        index[_image_id(image)].append(i)
    sizes: list[tuple[int, int] | None] = [None] * len(lines)
    for position, entry in enumerate(iter_json_list(images_file), start=1):
        for i in index.get(image_id_of(entry, images_file, position), ()):
            sizes[i] = size_of(entry)
    rows, mistakes, seen = [], [], set()
    for position, entry in enumerate(iter_json_list(objects_file), start=1):
        number = image_id_of(entry, objects_file, position)
        if number not in index or number in seen:
            continue
        seen.add(number)
        objects, malformed = objects_of(entry, objects_file)
        mistakes += malformed
        for names, box in objects:
            name = next((name for name in map(normalize_name, names) if name in label), None)
            if name is not None:
                rows += [(i, label[name], *box) for i in index[number]]
    return sizes, rows, mistakes, _missing_warning(len(index) - len(seen), "is", "are", "not in objects.json")


def _from_xml(root: str, lines: list[tuple[str, str]], label: dict[str, int]) -> Contents:
    """As `_from_json`, from xml/, which has no file for an image without an object of any class."""
    sizes, rows, mistakes, missing = [], [], [], 0
    for index, (_, xml) in enumerate(lines):
        path = os.path.join(root, xml)
        sizes.append(None)
        if not is_there(path):
            missing += 1
            continue
        try:
            annotation = read_xml(path)
        except BadInput as error:
            mistakes.append(str(error))
            continue
        sizes[index] = annotation.size
        rows += [(index, label[normalize_name(name)], *corners) for name, _, *corners in annotation.objects
                 if normalize_name(name) in label]
    return sizes, rows, mistakes, _missing_warning(missing, "has", "have", "no file in xml/")


def _missing_warning(count: int, singular: str, plural: str, reason: str) -> tuple[str, ...]:
    return (count_of(count, f"image {singular} {reason}; it counts as an image without objects",
                     f"images {plural} {reason}; they count as images without objects"),) if count else ()
