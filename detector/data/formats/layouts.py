"""Looks at a folder for the annotations of each format: which splits are there, and what is missing where none is."""

import json
import mmap
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass

from detector.data.formats import coco, per_image_json, visual_genome, voc, yolo_folders
from detector.data.formats.json_text import to_utf8
from detector.data.formats.listing import list_folder
from detector.data.image_walk import IMAGE_EXTENSIONS
from detector.data.text_files import read_bytes
from detector.errors import BadInput

MAX_FILES = 50        # files of one folder that are looked into; a folder with more holds a file for each image
START = 1 << 16       # bytes of a small file that are looked into
# What stands before the split in names of COCO's annotation files. Of files that differ in it, the first kind counts.
COCO_KINDS = ("instances_", "", "person_keypoints_", "stuff_", "panoptic_", "captions_")
COCO_LISTS = (b'"images"', b'"annotations"', b'"categories"')
JSON_KEYS = (rb'"labels"\s*:\s*\[', rb'"boxes"\s*:\s*\[', rb'"shapes"\s*:\s*\[')
LARGEST_JSON = 1 << 26  # bytes of the annotation of one image, which may hold the image itself
NO_LISTS = ("classes", "labels", "names", "predefined_classes", "readme", "README", "requirements", "LICENSE")
XML_FOLDERS = voc.ANNOTATION_FOLDERS
MAX_XML = 20  # XML files of a folder that are looked into, spread over it
ROOT_ELEMENT = re.compile(rb"<([\w.-]+:)?annotation[\s>]", re.IGNORECASE)
SHOWS_CLASS = re.compile(rb"\S\s+(-1|0|1)\s*$")  # the end of a line in a list of one class


@dataclass(frozen=True)
class Layout:
    """How the annotations of one format lie in a folder.

    splits: (root) -> names of the splits that are there; none: the folder has another layout.
    needs: what the folder has to hold, for an error.
    """

    splits: Callable[[str], list[str]]
    needs: str


def coco_splits(root: str) -> list[str]:
    """Returns the splits by name where coco.read finds the file by it, else as path of the file below root."""
    files = [file for folder in ("", *list_folder(root).folders) for file in json_files(root, folder)
             if is_coco(os.path.join(root, file))]
    by_split: dict[str, tuple[int, str]] = {}
    for file in files:
        folder, name = os.path.split(file)
        kind = next((kind for kind in COCO_KINDS if kind and name.startswith(kind)), "")
        rank, key = COCO_KINDS.index(kind), os.path.join(folder, name.removeprefix(kind))
        by_split[key] = min(by_split.get(key, (rank, file)), (rank, file))
    return [_coco_split(root, file) for _, file in by_split.values()]


def json_files(root: str, folder: str, limit: int = MAX_FILES) -> list[str]:
    """Returns the JSON files in a folder below root; of a folder with more than `limit` files, if that is set, none."""
    names = list_folder(os.path.join(root, folder)).files.get(".json", [])
    return [os.path.join(folder, name) for name in names] if len(names) <= (limit or len(names)) else []


def _coco_split(root: str, file: str) -> str:
    folder, name = os.path.split(file)
    stem = os.path.splitext(name)[0].removeprefix("instances_")
    for split in (stem, folder):
        try:
            if split and os.path.samefile(coco.annotation_file(root, split), os.path.join(root, file)):
                return split
        except (BadInput, OSError):
            pass
    return file


def is_coco(path: str) -> bool:
    """Returns whether a JSON file is an object with COCO's three lists; only searches for their keys."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would wait for its writer
            return False
        with open(path, "rb") as file:
            if json.detect_encoding(file.read(4)) not in ("utf-8", "utf-8-sig"):
                text = to_utf8(read_bytes(path))
                return text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and all(key in text for key in COCO_LISTS)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                first = content[:START].lstrip(b"\xef\xbb\xbf \t\r\n")
                return first.startswith(b"{") and all(
                    content.find(key) >= 0 for key in COCO_LISTS[:2]) and content.rfind(COCO_LISTS[2]) >= 0
    except (OSError, ValueError, BadInput):  # ValueError: an empty file, or another encoding
        return False


def voc_splits(root: str) -> list[str]:
    """Returns the lists of ImageSets/Main, of the root or of folders such as VOC2007, or folders of XML files."""
    if visual_genome_splits(root) or os.path.isdir(os.path.join(root, "Annotations", "DET")):
        return []
    lists = [os.path.join(base, name) for base in ("", *list_folder(root).folders)
             if any(has_xml(os.path.join(root, base, folder)) for folder in XML_FOLDERS) for name in _lists(root, base)]
    if lists:
        return lists
    folders = [name for name in list_folder(root).folders if name not in XML_FOLDERS and any(
        has_xml(os.path.join(root, name, folder)) for folder in ("", *XML_FOLDERS))]
    divided = [name for folder in XML_FOLDERS for name in list_folder(os.path.join(root, folder)).folders
               if has_xml(os.path.join(root, folder, name))]
    undivided = any(has_xml(os.path.join(root, folder)) for folder in ("", *XML_FOLDERS))
    return [*dict.fromkeys([*folders, *divided])] or (["all"] if undivided else [])


def _lists(root: str, base: str) -> list[str]:
    """Returns the names of the lists of a VOC tree, without those of a single class, such as aeroplane_train."""
    for folder in ("ImageSets/Main", "ImageSets", *([""] if not base else [])):
        names = text_stems(os.path.join(root, base, folder))
        names = [name for name in names if folder or name in ("train", "val", "trainval", "test", "valid")]
        if names:
            return [name for name in names if name.rpartition("_")[2] not in names
                    or not _is_class_list(os.path.join(root, base, folder), name)]
    return []


def _is_class_list(folder: str, name: str) -> bool:
    """Returns whether a list says which images of a split show a class: aeroplane_train, not night_train."""
    label, underscore, _ = name.rpartition("_")
    if not underscore or label in voc.CLASSES:
        return bool(underscore)
    path = os.path.join(folder, f"{name}.txt")
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            lines = [line for line in file.readlines(START) if line.strip()]
    except OSError:
        return False
    return bool(lines) and all(map(SHOWS_CLASS.search, lines))


def has_xml(folder: str) -> bool:
    """Returns whether one of some XML files of a folder is an annotation of PASCAL VOC: the first that can be used."""
    names = list_folder(folder).files.get(".xml", [])
    return any(_is_annotation(os.path.join(folder, name)) for name in names[::max(1, len(names) // MAX_XML)][:MAX_XML])


def _is_annotation(path: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            start = file.read(START)
    except OSError:
        return False
    return bool(ROOT_ELEMENT.search(start.replace(b"\0", b"")))  # UTF-16 has zero bytes between


def yolo_splits(root: str) -> list[str]:
    """Returns the splits of a YOLO data set whose images are there."""
    try:
        names = yolo_folders.split_names(root)
    except BadInput:
        return []
    return [name for name in names if _has_images(root, name)]


def _has_images(root: str, split: str) -> bool:
    try:
        return all(os.path.exists(path) for path in yolo_folders.image_sources(root, split))
    except BadInput:
        return False


def json_splits(root: str) -> list[str]:
    """Returns the splits of a tree with one JSON file an image: folders, lists, or `all`."""
    own = {*per_image_json.IMAGE_FOLDERS, *per_image_json.JSON_FOLDERS}
    folders = [name for name in list_folder(root).folders if name not in own and has_json(os.path.join(root, name))]
    divided = [name for folder in (*per_image_json.JSON_FOLDERS, *per_image_json.IMAGE_FOLDERS)
               for name in list_folder(os.path.join(root, folder)).folders
               if _describes_image(os.path.join(root, folder, name))]
    if folders or divided:
        return [*dict.fromkeys([*folders, *divided])]
    return [*(name for name in text_stems(root) if name not in NO_LISTS), "all"] if has_json(root) else []


def text_stems(folder: str) -> list[str]:
    """Returns the names of the text files in a folder, without their ending."""
    return [name[:-4] for name in list_folder(folder).files.get(".txt", [])]


def has_json(folder: str) -> bool:
    """Returns whether a folder has a JSON file for each image, in a folder of their own or beside the images."""
    names = [name for name in (*per_image_json.JSON_FOLDERS, *per_image_json.IMAGE_FOLDERS)
             if name in list_folder(folder).folders]
    beside = set(list_folder(folder).files) & set(IMAGE_EXTENSIONS)
    return any(_describes_image(os.path.join(folder, name)) for name in (*names, *([""] if beside else [])))


def _describes_image(folder: str) -> bool:
    """Returns whether one of the first JSON files of a folder has labels and boxes, or the shapes of labelme."""
    for name in list_folder(folder).files.get(".json", [])[:3]:
        path = os.path.join(folder, name)
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_JSON or is_coco(path):
                continue
            content = read_bytes(path).replace(b"\0", b"")
        except (BadInput, OSError):
            continue
        if all(re.search(key, content) for key in JSON_KEYS[:2]) or re.search(JSON_KEYS[2], content):
            return True
    return False


def visual_genome_splits(root: str) -> list[str]:
    """Returns VERSION/NAME for each folder with a vocabulary and each list of images."""
    names = list_folder(root).names()
    if not {"xml", "objects.json"} & set(names):
        return []
    versions = [name for name in names if os.path.isfile(os.path.join(root, name, "objects_vocab.txt"))]
    lists = {name for name, (file, _) in visual_genome.SPLITS.items() if f"{file}.txt" in names and file == name}
    return [f"{version}/{name}" for version in versions for name in visual_genome.SPLITS if name in lists]


def imagenet_det_splits(root: str) -> list[str]:
    """Returns the names of the lists in ImageSets/DET."""
    if not os.path.isdir(os.path.join(root, "Data", "DET")):
        return []
    return text_stems(os.path.join(root, "ImageSets", "DET"))


LAYOUTS: dict[str, Layout] = {
    "coco": Layout(coco_splits, "a JSON file for each split, such as annotations/instances_train.json, train.json or "
                   "train/_annotations.coco.json, with the lists images, annotations and categories"),
    "voc": Layout(voc_splits, "Annotations/*.xml, JPEGImages/ and lists such as ImageSets/Main/train.txt"),
    "yolo": Layout(yolo_splits, "data.yaml with train:, val: and names:, or images/train/ and labels/train/ with a "
                   "text file for each image"),
    "per_image_json": Layout(json_splits, "images/ or input/, and labels/, target/ or annotations/ with a JSON file "
                             'for each image: {"labels": [...], "boxes": [[x1, y1, x2, y2], ...]}, or labelme\'s'),
    "visual_genome": Layout(visual_genome_splits, "train.txt, val.txt, objects.json and image_data.json or xml/, and "
                            "VERSION/objects_vocab.txt"),
    "imagenet_det": Layout(imagenet_det_splits, "Data/DET/, Annotations/DET/ and ImageSets/DET/train.txt"),
}
