"""YOLO: a text file for each image, with a line for each object. (docs.ultralytics.com, "Object Detection Datasets")

A line is `class x y width height`, of which (x, y) is the center, or `class x1 y1 x2 y2 x3 y3 ...`, a polygon; all as
fractions of the image's width and height. Label files are in labels/ in place of images/, or beside the images. A split
is a key of data.yaml, a folder of images, a list of images (NAME.txt), or `all`; `other.yaml/val` is a key of another
file.
"""

import math
import os
import re
from collections import Counter

import numpy as np

from detector import structures
from detector.data.formats.yolo_data_file import DataFile, find_split, listed_names, name_file
from detector.data.formats.yolo_folders import image_sources, images_of
from detector.data.formats.yolo_label_files import LabelFiles
from detector.data.formats.yolo_own_images import folder_names, images_below, lists_and_names
from detector.data.image_sizes import read_missing_sizes
from detector.data.image_walk import USUAL_EXTENSIONS, describe_heic, list_images
from detector.data.text_files import read_text
from detector.errors import BadInput, combine_mistakes, count_of, shorten
from detector.structures import Dataset, build_dataset

# By how much a value may exceed 0 ... 1, the larger of both counts; boxes are cut to their image later.
TOLERANCE = 0.05
TOLERANCE_PIXELS = 2.0  # of width or height, in small images
EXAMPLES = 3              # names in a warning
PREFERRED = (".jpg", ".jpeg")  # of images that differ in their ending alone, and share a label file


def sources(root: str, split: str, images: str = "") -> list[str]:
    """Returns the files that `read` reads, without the images, and the folders whose files it lists."""
    paths, labels = _find_files(root, split, images)
    data, _ = find_split(root, split)
    places = lists_and_names(root, split)[0] if images else image_sources(root, split)
    files = [data.path, data.name_list, name_file(root), *places]
    files += sorted({os.path.dirname(path) for path in paths})
    return [path for path in [*files, *map(labels.find, paths)] if path]


def read(root: str, split: str, images: str = "") -> Dataset:
    """Reads one split; the classes are those of data.yaml or of a list such as classes.txt, else numbered.

    Args:
        images: `data.images`, a folder of the images, below root or absolute; empty: by layout.

    Raises:
        BadInput: lists the lines that cannot be used, by file and number, and images that share a label file.
    """
    data, _ = find_split(root, split)
    paths, labels = _find_files(root, split, images)
    files = [labels.find(path) for path in paths]
    paths, files = _without_doubles(paths, files)
    if not any(files):
        stem = os.path.splitext(os.path.basename(paths[0]))[0]
        raise BadInput(f"yolo {split}: none of {len(paths)} images has a label file, such as {stem}.txt beside "
                       f"{paths[0]}, or in a folder labels/ in place of images/. Add them")
    names = data.names or listed_names(root)
    below = [(_relative(path, root), index, None) for index, path in enumerate(paths, start=1)]
    images_with_size, sized_by_header = read_missing_sizes(root, below, f"yolo {split}")
    objects, mistakes, no_scores = [], [], []
    for index, (file, (_, _, *size)) in enumerate(zip(files, images_with_size)):
        if file:
            tolerance = max(TOLERANCE, TOLERANCE_PIXELS / min(size))
            rows, wrong, odd = read_labels(file, names, data.keypoints, tolerance)
            objects += [(index, *row) for row in rows]
            mistakes += wrong
            no_scores += odd
    if mistakes:
        raise combine_mistakes(f"yolo {split}", mistakes)
    unlabelled = [path for file, (path, *_) in zip(files, images_with_size) if not file]
    warnings = _warnings(unlabelled, names, no_scores) + _without_image(labels, paths, files, root) + data.warnings
    warnings += _unnamed_classes(objects, data)
    if names is None:
        names = tuple(f"class {number}" for number in range(max((row[1] for row in objects), default=-1) + 1))
    return build_dataset(f"yolo {split}", root, list(names), list(range(len(names))), images_with_size,
                         _columns(objects, images_with_size), warnings, sized_by_header)


def _find_files(root: str, split: str, images: str) -> tuple[list[str], LabelFiles]:
    """Returns the paths of a split's images, and where their label files are looked up. `images`: as of `read`."""
    if not images:
        return images_of(root, split), LabelFiles(root, find_split(root, split)[1])
    return images_below(os.path.join(root, images), root, split), LabelFiles(root, *folder_names(root, split))


def _columns(objects: list[tuple], images: list[tuple]) -> np.ndarray:
    """Returns the rows for build_dataset from (index of the image, class from 0, corners as fractions)."""
    values = np.array(objects, np.float64).reshape(-1, 6)
    sizes = np.array([image[2:4] for image in images], np.float64).reshape(-1, 2)[values[:, 0].astype(np.int64)]
    boxes = values[:, 2:] * sizes[:, [1, 0, 1, 0]]
    return np.column_stack([values[:, 0], values[:, 1] + 1, np.zeros(len(values)), structures.area(boxes), boxes])


def _warnings(unlabelled: list[str], names: tuple[str, ...] | None, no_scores: list[str]) -> tuple[str, ...]:
    warnings = (count_of(len(unlabelled), "image has no label file; it counts as an image without objects",
                         "images have no label file; they count as images without objects")
                + f"; first: {unlabelled[0]}",) if unlabelled else ()
    if names is None:
        warnings += ("no class names: neither data.yaml nor classes.txt states them; the classes are called class 0, "
                     "class 1, ... Write a classes.txt with one name a line",)
    if no_scores:
        warnings += (f"{len(no_scores)} lines have a sixth value outside 0 ... 1, so that it is no score; it was left "
                     f"out. Angles of rotated boxes are not read; first: {no_scores[0]}",)
    return warnings


def _without_image(labels: LabelFiles, paths: list[str], used: list[str], root: str) -> tuple[str, ...]:
    """Returns a sentence about label files with objects that no image belongs to, as in a partial copy."""
    texts = [file for file in labels.without_image(paths, used) if _has_objects(file)]
    stems = {os.path.splitext(os.path.basename(file))[0] for file in texts}
    heic = [path for folder in sorted({*map(os.path.dirname, paths)}) for path in list_images(folder).heic
            if os.path.splitext(os.path.basename(path))[0] in stems] if texts else []
    files = [_relative(file, root) for file in texts]
    count = count_of(len(files), "label file has no image and is left out",
                     "label files have no image and are left out")
    remedy = describe_heic(heic) if heic else "Add the images, or remove these files"
    return (f"{count}: {shorten(files, EXAMPLES)}. {remedy}",) if files else ()


def _has_objects(path: str) -> bool:
    """Returns whether a text file has a line as label files have; lists and notes have none."""
    try:
        return bool(read_labels(path, None, tolerance=math.inf)[0])
    except BadInput:
        return False


def _unnamed_classes(objects: list[tuple], data: DataFile) -> tuple[str, ...]:
    """Returns a sentence about objects of classes whose number the data file does not name."""
    counts = Counter(label for _, label, *_ in objects if label in data.unnamed)
    classes = shorten([f"{label} ({counts[label]} objects)" for label in sorted(counts)])
    return (f"{data.path} has no name for class {classes}: such a class is called by its number, as class "
            f"{min(counts)}. Add it to names:, or correct the label files",) if counts else ()


def _without_doubles(paths: list[str], files: list[str]) -> tuple[list[str], list[str]]:
    """Returns images and label files; of images that differ in their ending alone, the JPEG counts, else the usual one.

    Raises:
        BadInput: there is no single JPEG, or image of USUAL_EXTENSIONS, among images that share a label file.
    """
    groups: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        groups.setdefault(os.path.splitext(path)[0], []).append(path)
    others, mistakes = set(), []
    for group in (group for group in groups.values() if len(group) > 1):
        choices = [[path for path in group if path.lower().endswith(endings)]
                   for endings in (PREFERRED, USUAL_EXTENSIONS)]
        chosen = next((choice for choice in choices if len(choice) == 1), [])
        if not chosen:
            mistakes.append(f"{' and '.join(group)} share one label file. Remove all but one, or rename them")
        others |= set(group) - set(chosen)
    if mistakes:
        raise combine_mistakes("images of one name", mistakes)
    kept = [(path, file) for path, file in zip(paths, files) if path not in others]
    return [path for path, _ in kept], [file for _, file in kept]


def _relative(path: str, root: str) -> str:
    """Returns the path below root, or as an absolute path where it is elsewhere."""
    below = os.path.relpath(path, root)
    return os.path.abspath(path) if below.startswith("..") else below


def read_labels(path: str, names: tuple[str, ...] | None, keypoints: int = 0,
                tolerance: float = TOLERANCE) -> tuple[list[tuple], list[str], list[str]]:
    """Reads one label file.

    Args:
        names: the classes; None: they are numbered, and any number is allowed.
        keypoints: numbers of each line that follow the box, and are ignored.
        tolerance: by how much a value may exceed 0 ... 1.

    Returns:
        objects: (class from 0, x1, y1, x2, y2) of each, as fractions of width and height.
        mistakes: a sentence for each line that cannot be used, with its number.
        no_scores: each line whose sixth value would be a score, but lies outside 0 ... 1.
    """
    objects, mistakes, no_scores = [], [], []
    for number, line in enumerate(read_text(path, "label file").splitlines(), start=1):
        columns = line.strip("\ufeff\x00 \t\r\x1a").split()
        if not columns:
            continue
        try:
            objects.append(parse_line(columns, names, keypoints, tolerance))
        except ValueError as error:
            mistakes.append(f"{path}, line {number}: {error}")
        else:
            if len(columns) == 6 and keypoints != 1 and not 0 <= float(columns[5]) <= 1:
                no_scores.append(f"{path}, line {number}")
    return objects, mistakes, no_scores


def parse_line(columns: list[str], names: tuple[str, ...] | None, keypoints: int, tolerance: float) -> tuple:
    """Returns class from 0, x1, y1, x2, y2 of one line. Raises ValueError with a sentence about what is wrong."""
    with_comma = next((column for column in columns if re.fullmatch(r"[-\d.,;eE+]*[,;][-\d.,;eE+]*", column)), "")
    if with_comma and with_comma not in (names or ()):
        raise ValueError(f"{with_comma!r} is no number. Separate the values by spaces, not commas, and write decimals "
                         "with a point: 0 0.5 0.5 0.2 0.4")
    label = _class_number(columns[0], names)
    try:
        values = [float(column) for column in columns[1:]]
    except ValueError as error:
        raise ValueError(f"{str(error).removeprefix('could not convert string to float: ')} is no number") from error
    is_box = len(values) in (4, 5) or (keypoints and len(values) == 4 + keypoints)
    if not is_box and (len(values) < 6 or len(values) % 2):
        raise ValueError(f"{len(columns)} columns; a line is `class x y width height` or `class x1 y1 x2 y2 x3 y3 ...`")
    if is_box:
        values = values[:4]  # a fifth one is a score
    wrong = next((value for value in values if not -tolerance <= value <= 1 + tolerance), None)
    if wrong is not None:
        pixels = ", or divide pixels by width and height" if math.isfinite(wrong) and wrong > 1 else ""
        raise ValueError(f"{wrong:g} lies outside 0 ... 1: coordinates are fractions of width and height. Correct it"
                         + pixels)
    if not is_box:
        return label, min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    x, y, width, height = values
    return label, x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _class_number(text: str, names: tuple[str, ...] | None) -> int:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):  # a class may be called `nan`
        if names and text in names:
            return names.index(text)
        raise ValueError(f"{text!r} is no number of a class")
    if not number.is_integer() or not 0 <= number < (len(names) if names else 10**6):
        allowed = f"the classes are numbered 0 to {len(names) - 1}" if names else "classes are numbered from 0"
        raise ValueError(f"class {text}: {allowed}. Correct the line, or add the class to the names")
    return int(number)
