"""Finds what belongs to a split of a YOLO data set: images, the label file of each, and the names of the classes."""

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from detector.config.load import read_yaml
from detector.data.formats.listing import forget_folders, list_folder
from detector.data.image_io import IMAGE_EXTENSIONS, image_files
from detector.data.text_files import list_names, read_lines, read_text
from detector.errors import BadInput

YAML_FILES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "classes.names", "train/classes.txt")
# Names of the same split, as other programs write them.
SYNONYMS = {"val": ("valid", "validation"), "valid": ("val", "validation"), "validation": ("val", "valid")}
LABELS_OF = {"images": "labels", "JPEGImages": "labels"}  # folder of the images -> folder of their label files
ALL = "all"         # the split of a data set whose images are not divided
MAX_EXAMPLES = 5    # in an error message


@dataclass(frozen=True)
class DataFile:
    """The content of data.yaml; empty where there is none."""

    path: str = ""
    splits: dict[str, list[str]] = field(default_factory=dict)  # folders of images, or lists of them, as written
    base: str = ""                      # `path:`, the folder that these are relative to
    names: tuple[str, ...] | None = None
    keypoints: int = 0                  # numbers of a line behind its box, by `kpt_shape:`


def data_file(root: str) -> DataFile:
    """Returns the content of the YAML file at the root that describes the data set.

    Raises:
        BadInput: the file is no YAML, or its names or splits cannot be used.
    """
    path = yaml_file(root)
    if not path:
        return DataFile()
    content = _parse(path)
    splits = {key: _texts(content[key], path, key) for key in ("train", "val", "valid", "validation", "test")
              if content.get(key)}
    shape = content.get("kpt_shape")
    numbers = [int(number) for number in shape if str(number).isdigit()] if isinstance(shape, list) else []
    base = content.get("path")
    return DataFile(path, {key: entries for key, entries in splits.items() if entries},
                    base if isinstance(base, str) else "", _class_names(content, path),
                    numbers[0] * numbers[1] if len(numbers) == 2 else 0)


def yaml_file(root: str) -> str:
    """Returns data.yaml, or else the only YAML file at the root that names a training split; empty: there is none."""
    names = [name for name in list_names(root) if name.endswith((".yaml", ".yml"))]
    for name in YAML_FILES:
        if name in names:
            return os.path.join(root, name)
    described = [name for name in names if _describes_data(os.path.join(root, name))]
    return os.path.join(root, described[0]) if len(described) == 1 else ""


def _describes_data(path: str) -> bool:
    try:
        return bool(re.search(r"(?m)^(train|val|names|nc)\s*:", read_text(path)))
    except BadInput:
        return False


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


def _class_names(content: dict, path: str) -> tuple[str, ...] | None:
    """Returns the names that `names:` states as list, as {number: name}, in one line or as a file; else by `nc:`."""
    names, count = content.get("names"), str(content.get("nc") or "")
    if isinstance(names, str) and names.strip():
        beside = os.path.join(os.path.dirname(path), names)
        names = read_lines(beside) if os.path.isfile(beside) else [name.strip() for name in names.split(",")]
    if isinstance(names, dict):
        if any(not str(key).isdigit() or int(key) > 10**6 for key in names):
            raise BadInput(f"{path}: the keys of names: are the numbers of the classes, from 0")
        by_number = {int(key): name for key, name in names.items()}
        names = [by_number.get(number, f"class {number}") for number in range(max(by_number, default=-1) + 1)]
    if not names and count.isdigit() and 0 < int(count) <= 10**6:
        names = [f"class {number}" for number in range(int(count))]
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
                       + ", ".join(repr(name) for name in wrong[:MAX_EXAMPLES]))
    return tuple(names)


def name_file(root: str) -> str:
    """Returns the text file that lists the class names, one on each line; empty: there is none."""
    paths = [os.path.join(root, name) for name in NAME_FILES]
    paths += [os.path.join(root, name) for name in list_names(root) if name.endswith(".names")]
    return next((path for path in paths if os.path.isfile(path)), "")


def split_names(root: str) -> list[str]:
    """Returns the splits of a YOLO data set: keys of data.yaml, lists of images, or folders with images and labels.

    Call `forget_folders` before.
    """
    here, keys = list_folder(root), list(data_file(root).splits)
    lists = [name[:-4] for name in here.files.get(".txt", []) if _lists_labelled_images(root, name)]
    folders = [name for name in here.folders if name not in LABELS_OF and _has_labels(os.path.join(root, name))]
    divided = [name for images, labels in LABELS_OF.items() for name in list_folder(os.path.join(root, images)).folders
               if _has_texts(os.path.join(root, labels, name))]
    if keys:  # and folders that data.yaml does not name
        entries = sum(data_file(root).splits.values(), [])
        known = {os.path.basename(entry.rstrip("/")) for entry in entries}
        return [*keys, *(name for name in divided if name not in known)]
    return lists or [*dict.fromkeys([*folders, *divided])] or ([ALL] if _has_labels(root) else [])


def _has_labels(folder: str) -> bool:
    """Returns whether a folder holds label files beside its images, or in a folder labels/ beside images/."""
    here = list_folder(folder)
    texts = {name[:-4] for name in here.files.get(".txt", [])}
    beside = bool(texts) and any(os.path.splitext(name)[0] in texts for ending in IMAGE_EXTENSIONS
                                 for name in here.files.get(ending, []))
    return beside or (bool(set(here.folders) & set(LABELS_OF)) and _has_texts(os.path.join(folder, "labels")))


def _has_texts(folder: str) -> bool:
    """Returns whether there are text files in a folder, or in one of its folders."""
    return any(".txt" in list_folder(os.path.join(folder, name)).files for name in ("", *list_folder(folder).folders))


def _lists_labelled_images(root: str, name: str) -> bool:
    """Returns whether a text file at the root names images, of which one of the first has a label file."""
    path, labels = os.path.join(root, name), LabelFiles(root, name[:-4])
    try:
        with open(path, "rb") as file:
            start = file.read(4096).decode("utf-8", "replace").splitlines()[:20]
        if not start or not start[0].strip().lower().endswith(IMAGE_EXTENSIONS):
            return False
        return any(labels.find(image) for image in itertools.islice(_listed(path, root), 20))
    except (OSError, BadInput):
        return False


def image_sources(root: str, split: str) -> list[str]:
    """Returns the folders of images and the lists of images that make up a split.

    Raises:
        BadInput: there is no such split, or a folder that data.yaml names for it is missing.
    """
    data = data_file(root)
    for name in (split, *SYNONYMS.get(split, ())):
        if name in data.splits:
            return [_find(root, data, entry, name) for entry in data.splits[name]]
        for candidate in (name, f"{name}.txt", os.path.join("images", name), os.path.join("JPEGImages", name)):
            path = os.path.join(root, candidate)
            if os.path.isdir(path) or path.endswith(".txt") and os.path.isfile(path):
                return [path]
    if split == ALL:
        return [next((path for path in (os.path.join(root, name) for name in LABELS_OF) if os.path.isdir(path)), root)]
    forget_folders()
    splits = split_names(root)
    hint = f"Splits: {', '.join(splits)}" if splits else \
        "data.root holds data.yaml with train: and val:, or images/ and labels/"
    raise BadInput(f"no YOLO split {split!r} in {root}: neither a key of data.yaml nor a folder of images. {hint}")


def _find(root: str, data: DataFile, entry: str, split: str) -> str:
    """Returns the path of a folder or list that data.yaml names.

    Such files often keep paths of another machine, and Roboflow's start with ../ although the folders are beside the
    file: the longest end of the path that exists below the file's folder counts then.
    """
    folder, entry = os.path.dirname(data.path), entry.replace("\\", "/")
    base = os.path.expanduser(data.base.replace("\\", "/"))
    candidates = [os.path.join(base, entry)] if os.path.isabs(base) or os.path.isabs(entry) else []
    candidates += [os.path.join(place, base, entry) for place in (folder, root) if not os.path.isabs(base)]
    candidates += [os.path.join(folder, entry)]
    parts = [part for part in re.sub(r"^[A-Za-z]:", "", entry).split("/") if part not in ("", ".", "..")]
    shortest = 1 if len(parts) == 1 or parts[-1] not in LABELS_OF else 2
    candidates += [os.path.join(folder, *parts[start:]) for start in range(len(parts) - shortest + 1)]
    for path in candidates:
        if os.path.exists(path):
            return os.path.normpath(path)
    raise BadInput(f"{data.path}: {split}: {entry} is neither there nor below {folder}. Correct the path in the file, "
                   f"or name a folder below data.root as data.{'train' if split == 'train' else 'val'}")


def images_of(root: str, split: str, images: str = "") -> list[str]:
    """Returns the paths of a split's images: those below its folders, sorted, or in the order of its lists.

    Args:
        images: `data.images`, a folder that holds the images in place of the one that the layout has.

    Raises:
        BadInput: there is no such split, or no image in it.
    """
    if images:
        return _images_in(os.path.join(root, images), root, split)
    paths = []
    for source in image_sources(root, split):
        if os.path.isfile(source):
            paths += list(_listed(source, root))
            continue
        folder = os.path.join(source, "images")
        folder = folder if os.path.isdir(folder) else source
        paths += [path for path in image_files(folder) if "/." not in path[len(folder):]]  # without hidden files
    return paths


def _images_in(folder: str, root: str, split: str) -> list[str]:
    """Returns the images of a split below `folder`: in a folder of the split's name, or those with a label file."""
    own = os.path.join(folder, split)
    if os.path.isdir(own):
        return image_files(own)
    labels = next((path for path in (os.path.join(root, "labels", split), os.path.join(root, split, "labels"))
                   if os.path.isdir(path)), "")
    stems = {os.path.splitext(name)[0] for name in list_names(labels)} if labels else None
    paths = image_files(folder)
    return [path for path in paths if stems is None or os.path.splitext(os.path.basename(path))[0] in stems]


def _listed(path: str, root: str) -> Iterator[str]:
    """Yields the images that a list names, relative to the list or the root, also by the end of a longer path."""
    folder, missing = os.path.dirname(path), []
    for line in read_lines(path):
        entry = line.strip("\"'").replace("\\", "/")
        parts = [part for part in re.sub(r"^[A-Za-z]:", "", entry).split("/") if part not in ("", ".")]
        candidates = [os.path.join(folder, entry), os.path.join(root, entry)]
        candidates += [os.path.join(place, *parts[start:]) for start in range(len(parts)) for place in (folder, root)]
        image = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
        if image is None:
            missing.append(entry)
        else:
            yield os.path.normpath(image)
    if missing:
        rest = f" and {len(missing) - MAX_EXAMPLES} more" if len(missing) > MAX_EXAMPLES else ""
        raise BadInput(f"{path} lists images that are neither there nor below {folder}: "
                       f"{', '.join(missing[:MAX_EXAMPLES])}{rest}. Add them, or remove these lines")


class LabelFiles:
    """Looks up label files by image; each folder is listed once, which on a network file system is what takes time."""

    def __init__(self, root: str, split: str) -> None:
        self.extra = [os.path.join(root, "labels", split), os.path.join(root, split, "labels"),
                      os.path.join(root, "labels")]
        self.names: dict[str, frozenset[str]] = {}

    def find(self, image: str) -> str:
        """Returns the label file of an image: in labels/ in place of images/, or beside the image; empty: none."""
        folder, name = os.path.split(image)
        stem = os.path.splitext(name)[0]
        for place in self._places(folder):
            if f"{stem}.txt" in self._names(place):
                return os.path.join(place, f"{stem}.txt")
        return ""

    def _places(self, folder: str) -> Iterator[str]:
        parts = folder.split(os.sep)
        for position in range(len(parts) - 1, -1, -1):
            if parts[position] in LABELS_OF:
                yield os.sep.join([*parts[:position], LABELS_OF[parts[position]], *parts[position + 1:]])
                break
        yield folder
        yield from self.extra

    def _names(self, folder: str) -> frozenset[str]:
        if folder not in self.names:
            self.names[folder] = frozenset(list_names(folder)) if os.path.isdir(folder) else frozenset()
        return self.names[folder]
