"""One JSON file an image: {"labels": ["head", ...], "boxes": [[x1, y1, x2, y2], ...]}, or labelme's {"shapes": [...]}.

Images are in `input` or `images`, JSON files in `target`, `labels` or `annotations`, or both in one folder, as labelme
writes them; image and JSON file have the same name. The folders are at the root, or below a folder named like the
split, or have a sub-folder named like it. A split is such a folder, or the stem of a text file at the root that lists
stems, or `all`, or a range such as `0:16` in the order of the names. The box of a polygon is the box around it.
"""

import json
import math
import os
import re
import reprlib
from collections.abc import Callable, Sequence

import numpy as np

from detector import structures
from detector.data.formats.coordinates import to_coordinate
from detector.data.formats.file_index import FileIndex, find_image, find_named_image, is_there, read_listed_stems
from detector.data.formats.subfolder_images import image_in_subfolder
from detector.data.image_sizes import annotated_size, read_missing_sizes
from detector.data.image_walk import IMAGE_EXTENSIONS
from detector.data.text_files import decode, read_bytes
from detector.errors import BadInput, shorten
from detector.structures import DIFFICULT, Dataset, build_dataset

IMAGE_FOLDERS = ("input", "images")
JSON_FOLDERS = ("target", "labels", "annotations")
IMAGE_KEYS = ("imagePath", "image", "file_name", "filename")  # that may hold the file name of the image
MAX_EXAMPLES = 3  # mistakes of one file in a message
EXPECTED = 'Expected {"labels": ["cat", ...], "boxes": [[x1, y1, x2, y2], ...]}, or labelme\'s {"shapes": [...]}'


def sources(root: str, split: str, images: str = "") -> list[str]:
    """Returns the JSON files of a split, and its list if it has one."""
    annotations = find_folders(root, split, images)[0]
    split_list = _split_list(root, split, annotations)
    paths = [annotations.find(stem)[0] for stem in listed_stems(root, split, annotations)]
    return [split_list][:bool(split_list)] + [os.path.join(root, path) for path in paths]


def read(root: str, split: str, images: str = "") -> Dataset:
    """Reads one split; the classes are those that occur, in alphabetical order.

    Args:
        images: folder of the images, below `root` or absolute; "": by layout.

    Raises:
        BadInput: lists the files that cannot be used.
    """
    annotations, pictures = find_folders(root, split, images)
    rows, objects, mistakes, unpaired = [], [], [], []
    for stem in listed_stems(root, split, annotations):
        path = annotations.find(stem)[0]
        try:
            content = _load(os.path.join(root, path))
            image = _find_image(pictures, annotations, stem, content)
            if not image:
                unpaired.append(path)
                continue
            objects += [(len(rows), *row) for row in _objects(content, os.path.join(root, path))]
            rows.append((image, len(rows) + 1, _annotated_size(content)))
        except BadInput as error:
            mistakes.append(str(error))
    if unpaired:
        mistakes.insert(0, f"no image for {shorten([*dict.fromkeys(unpaired)])} in "
                           f"{os.path.join(root, pictures.folder)}: an image and its JSON file have the same name. Add "
                           "the image, or remove the JSON file")
    rows, unsized = read_missing_sizes(root, rows, f"per_image_json {split}", mistakes)
    classes = sorted({name for _, name, _, _ in objects})
    label = {name: c for c, name in enumerate(classes, start=1)}
    columns = np.array([(index, label[name], flags, 0, *box) for index, name, flags, box in objects]).reshape(-1, 8)
    columns[:, 3] = structures.area(columns[:, 4:])
    return build_dataset(f"per_image_json {split}", root, classes, list(range(1, len(classes) + 1)), rows,
                         columns, sized_by_header=unsized)


def find_folders(root: str, split: str, images: str) -> tuple[FileIndex, FileIndex]:
    """Returns the JSON files and the images of the folders that a split is in.

    Raises:
        BadInput: there is no folder of images, or none of JSON files.
    """
    base = split if os.path.isdir(os.path.join(root, split)) else ""
    image_folder, json_folder = (_first_folder(root, base, split, names) for names in (IMAGE_FOLDERS, JSON_FOLDERS))
    if json_folder is None:
        json_folder = next((folder for folder in (image_folder, base) if _holds(root, folder, (".json",))), None)
        if json_folder is not None and FileIndex(root, json_folder, IMAGE_EXTENSIONS).stems(recursive=False):
            image_folder = json_folder
    if images:
        image_folder = images
    elif image_folder is None:
        image_folder = next((folder for folder in (json_folder, base) if _holds(root, folder, IMAGE_EXTENSIONS)), None)
    if image_folder is None or json_folder is None:
        names = IMAGE_FOLDERS if image_folder is None else JSON_FOLDERS
        raise BadInput(f"no folder {' or '.join(names)} in {os.path.join(root, base)}: set data.root to the folder "
                       "that contains the images and the JSON files")
    return FileIndex(root, json_folder, (".json",)), FileIndex(root, image_folder, IMAGE_EXTENSIONS)


def _first_folder(root: str, base: str, split: str, names: tuple[str, ...]) -> str | None:
    below = [os.path.join(base, name) for name in names]
    candidates = below if base else [*(os.path.join(name, split) for name in names), *below]
    return next((folder for folder in candidates if is_there(os.path.join(root, folder))), None)


def _holds(root: str, folder: str | None, endings: tuple[str, ...]) -> bool:
    return folder is not None and bool(FileIndex(root, folder, endings).stems(recursive=bool(folder)))


def _split_list(root: str, split: str, annotations: FileIndex) -> str:
    """Returns the text file that lists a split; "" if it has a folder of its own, or there is no such file."""
    path = os.path.join(root, f"{split}.txt")
    return "" if _has_own_folder(split, annotations) or not is_there(path) else path


def _has_own_folder(split: str, annotations: FileIndex) -> bool:
    return f"/{split}/" in f"/{annotations.folder}/"


def listed_stems(root: str, split: str, annotations: FileIndex) -> list[str]:
    """Returns the stems of a split's JSON files.

    Raises:
        BadInput: there is no such split, or its list names a file that is missing.
    """
    stems = annotations.stems(recursive=bool(annotations.folder))
    if re.fullmatch(r"\d{0,18}:\d{0,18}", split):
        first, last = split.split(":")
        return stems[int(first or 0):int(last or len(stems))]
    split_list = _split_list(root, split, annotations)
    if split_list:
        folders = {*IMAGE_FOLDERS, *JSON_FOLDERS, *annotations.folder.split("/")}
        listed = read_listed_stems(split_list, annotations, folders)
        unknown = [stem for stem in dict.fromkeys(listed) if not annotations.find(stem)]
        if unknown:
            raise BadInput(f"{split_list} names {shorten(unknown)}, for which there is no JSON file in "
                           f"{os.path.join(root, annotations.folder)}. Add the files, or remove the lines")
        return listed
    if split != "all" and not _has_own_folder(split, annotations):
        raise BadInput(f"no split {split!r} in {root}: neither a folder nor {split}.txt; "
                       f"`all` and ranges such as 0:{max(1, len(stems) * 4 // 5)} are splits too")
    return stems


def _find_image(pictures: FileIndex, annotations: FileIndex, stem: str, content: object) -> str:
    named = content if isinstance(content, dict) else {}
    file_name = next((named[key] for key in IMAGE_KEYS if isinstance(named.get(key), str)), "")
    return (find_image(pictures, stem, file_name) or find_named_image(pictures, annotations, file_name)
            or image_in_subfolder(pictures, annotations, stem, file_name))


def _annotated_size(content: object) -> tuple[int, int] | None:
    """Returns height and width as labelme writes them; None where the file does not state them."""
    return annotated_size(content.get("imageHeight"), content.get("imageWidth")) if isinstance(content, dict) else None


def _load(path: str) -> object:
    data = read_bytes(path)
    encoding = json.detect_encoding(data)
    try:
        text = data.decode(encoding) if encoding.startswith(("utf-16-", "utf-32-")) else decode(data, path)
        content = json.loads(text)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no JSON: it is not text in {encoding.upper()}. Save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        cause = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise BadInput(f"{path} is no JSON: {cause if text.strip() else 'the file is empty'}. {EXPECTED}") from error
    if isinstance(content, dict) and isinstance(content.get("annotations"), list) and "images" in content:
        raise BadInput(f"{path} is a COCO file. {EXPECTED}; for this one set data.format=coco")
    return content


def read_objects(path: str) -> list[tuple[str, int, list[float]]]:
    """Returns class name, flags and box of each object of one JSON file. Raises BadInput if it cannot be used."""
    return _objects(_load(path), path)


def _objects(content: object, path: str) -> list[tuple[str, int, list[float]]]:
    """Returns class name, flags and box of each object. Raises BadInput that lists the first mistakes of the file."""
    read_object, entries = _entries(content, path)
    objects, mistakes = [], []
    for number, entry in enumerate(entries, start=1):
        try:
            objects.append(read_object(entry))
        except ValueError as error:
            mistakes.append(f"object {number} {error}")
    if mistakes:
        raise BadInput(f"{path}: {shorten(mistakes, MAX_EXAMPLES, '; ')}. {EXPECTED}")
    return objects


def _entries(content: object, path: str) -> tuple[Callable, list]:
    """Returns the function that reads an object, and the objects as they stand in the file."""
    if not isinstance(content, dict):
        raise BadInput(f"{path}: its top level is no JSON object. {EXPECTED}")
    if isinstance(content.get("shapes"), list) and "boxes" not in content:
        return read_shape, content["shapes"]
    missing = [key for key in ("labels", "boxes") if not isinstance(content.get(key), list)]
    if missing:
        raise BadInput(f"{path} has no list named {' and no list named '.join(missing)}. {EXPECTED}")
    if len(content["labels"]) != len(content["boxes"]):
        raise BadInput(f"{path}: {len(content['labels'])} labels for {len(content['boxes'])} boxes. {EXPECTED}")
    return read_pair, list(zip(content["labels"], content["boxes"]))


def read_pair(entry: Sequence) -> tuple[str, int, list[float]]:
    """Returns class name, flags and box of (label, box). Raises ValueError with what is wrong."""
    label, box = entry
    values = re.split(r"[\s,;]+", box.strip("[]() \n")) if isinstance(box, str) else box
    if not isinstance(values, list) or len(values) != 4:
        raise ValueError(f"has the box {reprlib.repr(box)}, which is no list of four numbers")
    return _class_name(label), 0, [_number(value, box) for value in values]


def read_shape(shape: object) -> tuple[str, int, list[float]]:
    """Reads one of labelme's shapes: a rectangle, polygon, circle (centre and a point of its edge), line or point."""
    points = shape.get("points") if isinstance(shape, dict) else None
    if not isinstance(points, list) or not points or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise ValueError(f"has the points {reprlib.repr(points)}, which is no list of [x, y]")
    xs, ys = ([_number(point[axis], points) for point in points] for axis in (0, 1))
    if shape.get("shape_type") == "circle" and len(points) == 2:
        radius = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        xs, ys = [xs[0] - radius, xs[0] + radius], [ys[0] - radius, ys[0] + radius]
    flags = DIFFICULT if shape.get("difficult") is True else 0
    return _class_name(shape.get("label")), flags, [min(xs), min(ys), max(xs), max(ys)]


def _class_name(label: object) -> str:
    """Returns the name of a class, which may be a number. Raises ValueError for other values and empty texts."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if type(label) is int or isinstance(label, float) and math.isfinite(label):  # not bool
        return str(label)
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"has the label {reprlib.repr(label)}, which is no name")
    return label.strip().encode(errors="backslashreplace").decode()  # JSON may hold halves of characters


def _number(value: object, place: object) -> float:
    """Returns a coordinate, see `to_coordinate`. Raises ValueError if it is no number."""
    number = to_coordinate(value)
    if number is None:
        raise ValueError(f"has {reprlib.repr(value)} in {reprlib.repr(place)}, which is no number")
    return number
