"""The YAML file that describes a YOLO data set: splits and names of the classes; or else a list of the names alone."""

import itertools
import os
import re
from dataclasses import dataclass, field

from detector.config.yaml_files import read_yaml
from detector.data.formats.split_names import SPLIT_NAMES
from detector.data.text_files import list_names, read_text
from detector.errors import BadInput, shorten

YAML_FILES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "classes.names", "train/classes.txt",
              "labels/train/classes.txt", "train/labels/classes.txt")  # beside the label files, as labelImg writes it
MAX_CLASSES = 10**6


@dataclass(frozen=True)
class DataFile:
    """The content of data.yaml; empty where there is none."""

    path: str = ""
    splits: dict[str, list[str]] = field(default_factory=dict)  # folders of images, or lists of them, as written
    base: str = ""                      # `path:`, the folder that these are relative to
    names: tuple[str, ...] | None = None
    name_list: str = ""                 # the file that `names:` refers to
    keypoints: int = 0                  # numbers of a line behind its box, by `kpt_shape:`
    unnamed: frozenset[int] = frozenset()  # numbers of classes that `names:` leaves out, as in {0: cat, 5: dog}
    warnings: tuple[str, ...] = ()      # about `names:` and `nc:`


def find_split(root: str, split: str) -> tuple[DataFile, str]:
    """Returns the data file of a split, and its name there: `val` of `other.yaml/val`, which is in other.yaml."""
    name, _, key = split.rpartition("/")
    return (data_file(root, name), key) if name.lower().endswith((".yaml", ".yml")) else (data_file(root), split)


def data_file(root: str, name: str = "") -> DataFile:
    """Returns the content of a YAML file at the root, of this name or else the one that describes the data set.

    Raises:
        BadInput: the file is no YAML, or its names or splits cannot be used.
    """
    path = os.path.join(root, name) if name else yaml_file(root)
    if not path:
        return DataFile()
    content = _parse(path)
    splits = {key: _texts(content[key], path, key) for key in itertools.chain(*SPLIT_NAMES.values())
              if content.get(key)}
    shape = content.get("kpt_shape")
    numbers = [_whole_number(number) or 0 for number in shape] if isinstance(shape, list) else []
    base, names = content.get("path"), content.get("names")
    name_list = os.path.join(os.path.dirname(path), names) if isinstance(names, str) and names.strip() else ""
    name_list = name_list if os.path.isfile(name_list) else ""
    has_names = bool(content.get("names")) or not name_file(root)
    class_names = _class_names(content, path, name_list) if has_names else None
    return DataFile(path, {key: entries for key, entries in splits.items() if entries},
                    base if isinstance(base, str) else "", class_names, name_list,
                    numbers[0] * numbers[1] if len(numbers) == 2 else 0, _unnamed(names, class_names),
                    _class_warnings(content, path, class_names))


def _unnamed(names: object, class_names: tuple[str, ...] | None) -> frozenset[int]:
    """Returns the numbers that a mapping of numbers to names leaves out, below its largest one."""
    stated = {_whole_number(number) for number in names} if isinstance(names, dict) and names else None
    return frozenset(range(len(class_names or ()))) - stated if stated else frozenset()


def _class_warnings(content: dict, path: str, class_names: tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns a sentence where `nc:` contradicts `names:`, or stands without it."""
    number = _whole_number(content.get("nc"))
    if class_names is None or number is None:
        return ()
    if not content.get("names"):
        return (f"no class names: {path} states nc: {number} without names:; the classes are called class 0, class 1, "
                "... Add names:",)
    return (f"{path} states nc: {number}, but names: has {len(class_names)}: names: counts. Correct nc:, or add the "
            "missing names",) if number != len(class_names) else ()


def yaml_file(root: str) -> str:
    """Returns data.yaml, or else the YAML file at the root that alone describes data best; empty: there is none."""
    names = [name for name in list_names(root) if name.lower().endswith((".yaml", ".yml"))]
    for name in YAML_FILES:
        similar = [other for other in names if other.lower() == name]
        if similar:
            return os.path.join(root, name if name in similar else similar[0])
    ranks = {name: _describes_data(os.path.join(root, name)) for name in names}
    best = [name for name, rank in ranks.items() if rank and rank == max(ranks.values())]
    return os.path.join(root, best[0]) if len(best) == 1 else ""


def _describes_data(path: str) -> int:
    """Returns how much of a data file a file has: 3 for splits and names, 1 for `nc:` alone, as a model has; else 0."""
    try:
        keys = {*re.findall(r"(?m)^(train|val|names|nc)\s*:", read_text(path))}
    except BadInput:
        return 0
    return 3 if "names" in keys and keys & {"train", "val"} else 2 if keys - {"nc"} else len(keys)


def _parse(path: str) -> dict:
    text = read_text(path, "data file")
    try:
        content = read_yaml(text)
    except Exception as error:  # an error of the YAML parser, or of Python for text that is nested too deeply
        raise BadInput(f"broken YAML in {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: keys such as train:, val: and names: are expected")
    return content


def _texts(value: object, path: str, key: str) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    if any(not isinstance(entry, str) for entry in entries):
        raise BadInput(f"{path}: {key}: is the folder of the images, or the list of them, or a list of these")
    return [entry.strip() for entry in entries if entry.strip()]


def _whole_number(value: object) -> int | None:
    """Returns a number from 0 to MAX_CLASSES, which may be a text; None for another value."""
    if isinstance(value, str) and value.isdecimal() and len(value) <= len(str(MAX_CLASSES)):
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_CLASSES else None


def _class_names(content: dict, path: str, name_list: str) -> tuple[str, ...] | None:
    """Returns the names that `names:` states as list, as {number: name}, in one line or as a file; else by `nc:`."""
    names = content.get("names")
    if isinstance(names, str) and names.strip():
        names = read_names(name_list) if name_list else [name.strip() for name in names.split(",")]
    if isinstance(names, dict):
        numbers = [number for number in map(_whole_number, names) if number is not None]
        if len(numbers) < len(names):
            raise BadInput(f"{path}: the keys of names: are the numbers of the classes, from 0")
        by_number = dict(zip(numbers, names.values()))
        names = [by_number.get(number, f"class {number}") for number in range(max(by_number, default=-1) + 1)]
    if not names:
        names = [f"class {number}" for number in range(_whole_number(content.get("nc")) or 0)]
    if not names:
        return None
    if any(not isinstance(name, str) for name in names):
        raise BadInput(f"{path}: names: is a list of texts, or a mapping such as {{0: cat, 1: dog}}")
    return unique_names(names, path)


def unique_names(names: list[str], path: str) -> tuple[str, ...]:
    """Returns class names without surrounding white space. Raises BadInput for a name that occurs twice or is empty."""
    names = [name.strip() for name in names]
    wrong = [name for name in dict.fromkeys(names) if names.count(name) > 1 or not name]
    if wrong:
        raise BadInput(f"{path}: each class needs a name of its own; empty or twice: "
                       + shorten([repr(name) for name in wrong]))
    return tuple(names)


def read_names(path: str) -> list[str]:
    """Returns the lines of a list of class names. Raises BadInput for an empty line before the last name."""
    lines = [line.strip() for line in read_text(path, "list").replace("\r\r\n", "\n").rstrip().splitlines()]
    if "" in lines:
        number = lines.index("")
        raise BadInput(f"{path}, line {number + 1} is empty: each line names a class, whose number is that of the line "
                       f"from 0. Write the name of class {number}, or remove the line if there is no such class")
    return lines


def listed_names(root: str) -> tuple[str, ...] | None:
    """Returns the class names of the list that `name_file` finds; None: there is none. Raises BadInput as above."""
    path = name_file(root)
    return unique_names(read_names(path), path) if path else None


def name_file(root: str) -> str:
    """Returns the text file that lists the class names, one on each line; empty: there is none."""
    paths = [os.path.join(root, name) for name in NAME_FILES]
    paths += [os.path.join(root, name) for name in list_names(root) if name.endswith(".names")]
    return next((path for path in paths if os.path.isfile(path)), "")
