"""Why annotations cannot be used that look like those of a format, or like those of one of its splits."""

import os
import re
from collections.abc import Callable, Iterable

from detector.data.formats import coco, per_image_json, yolo_data_file, yolo_folders
from detector.data.formats.json_text import read_annotations
from detector.data.formats.layouts import COCO_KINDS, COCO_LISTS, XML_FOLDERS, has_json, has_xml, is_coco, json_files
from detector.data.formats.listing import list_folder
from detector.data.formats.split_names import SPLIT_NAMES
from detector.data.formats.voc_xml import read_xml
from detector.data.text_files import list_names, read_bytes
from detector.errors import BadInput

SPLIT_WORDS = {name for names in SPLIT_NAMES.values() for name in names} | {"trainval", "trn", "minival", "dev"}
# JSON files beside COCO's annotations of objects that are no split: of other tasks, images alone, detections.
OTHER_FILES = re.compile(r"(captions|panoptic|stuff|image_info)_|.*(results|predictions|detections)\b", re.IGNORECASE)
# The names that an annotation file of a split has where nothing else would be called so.
SPLIT_FILE = re.compile(r"(instances|person_keypoints)_.+\.json|_annotations\.coco\.json", re.IGNORECASE)


def unusable_splits(name: str, root: str) -> dict[str, str]:
    """Returns, by split, why what is there for it cannot be used, such as a broken annotation file of COCO.

    Args:
        name: of the format. Of formats whose splits are all lists there are none: a list is never passed over.
    """
    return UNUSABLE[name](root) if name in UNUSABLE else {}


def _unusable_coco(root: str) -> dict[str, str]:
    causes: dict[str, str] = {}
    for folder in ("", *list_folder(root).folders):
        if is_split(folder) and (cause := _forbidden(root, [folder])):
            causes[folder] = cause
        files = json_files(root, folder)
        usable = {_split_of(file) for file in files if is_coco(os.path.join(root, file))}
        for file in files:
            if _means_split(file) and _split_of(file) not in usable and not OTHER_FILES.match(os.path.basename(file)):
                if cause := _coco_mistake(os.path.join(root, file)):
                    causes[os.path.dirname(file) if is_split(folder) else _split_of(file)] = cause
    return causes


def is_split(name: str) -> bool:
    """Returns whether a name has a word for a split in it: train2017, val, my_test."""
    return bool({*re.findall("[a-z]+", name.lower())} & SPLIT_WORDS)


def _means_split(file: str) -> bool:
    folder, name = os.path.split(file)
    return bool(SPLIT_FILE.fullmatch(name)) or is_split(os.path.splitext(name)[0]) or \
        is_split(folder) and name.lower() in ("annotations.json", "labels.json")


def _split_of(file: str) -> str:
    name = coco.name_of_split(file)
    return next((name.removeprefix(kind) for kind in COCO_KINDS if kind and name.startswith(kind)), name)


def _coco_mistake(path: str) -> str:
    """Returns why a file is no annotation file of COCO; empty: it is one, or certainly something else."""
    if not os.path.isfile(path):
        return f"{path} is no file that can be read: a broken link, a named pipe or a device. Remove or replace it"
    is_named = SPLIT_FILE.fullmatch(os.path.basename(path)) or os.path.basename(os.path.dirname(path)) == "annotations"
    try:
        content = read_annotations(path)
        if is_named or isinstance(content, dict) and {*coco.LISTS} & {*content}:
            coco.read_lists(path)
    except BadInput as error:
        return str(error)
    return ""


def _unusable_yolo(root: str) -> dict[str, str]:
    """Returns the keys of data.yaml, and folders of label files, that cannot be used."""
    causes = _forbidden_splits(root, ["labels", "images"])
    try:
        data = yolo_data_file.data_file(root)
    except BadInput:  # which no split can be read without
        return causes
    for key in data.splits:
        try:
            paths = yolo_folders.image_sources(root, key)
            missing = [path for path in paths if not os.path.exists(path)]
            if missing:
                causes[key] = f"{data.path}: {key}: {missing[0]} does not exist. Correct the path in the file"
        except BadInput as error:
            causes[key] = str(error)
    return causes


def _unusable_voc(root: str) -> dict[str, str]:
    causes = _forbidden_splits(root, XML_FOLDERS)
    for split, folder in [*_split_folders(root, XML_FOLDERS), *(("all", folder) for folder in XML_FOLDERS)]:
        if not has_xml(os.path.join(root, folder)) and (cause := xml_mistake(os.path.join(root, folder))):
            causes[split] = cause
    return causes


def _unusable_json(root: str) -> dict[str, str]:
    folders = (*per_image_json.JSON_FOLDERS, *per_image_json.IMAGE_FOLDERS)
    causes = _forbidden_splits(root, folders)
    for split, folder in _split_folders(root, folders):
        files = json_files(root, folder, limit=0)
        if files and not any(is_coco(os.path.join(root, file)) for file in files[:3]) and \
                not has_json(os.path.join(root, folder)):
            try:
                per_image_json.read_objects(os.path.join(root, files[0]))
            except BadInput as error:
                causes[split] = str(error)
    return causes


UNUSABLE: dict[str, Callable[[str], dict[str, str]]] = {
    "coco": _unusable_coco, "voc": _unusable_voc, "yolo": _unusable_yolo, "per_image_json": _unusable_json}


def _split_folders(root: str, folders: Iterable[str]) -> list[tuple[str, str]]:
    """Returns the folders that are called like splits, and what lies in them or above: (split, folder below root)."""
    own = [(name, os.path.normpath(os.path.join(name, below))) for name in list_folder(root).folders if is_split(name)
           for below in ("", *folders)]
    return own + [(name, os.path.join(folder, name)) for folder in folders
                  for name in list_folder(os.path.join(root, folder)).folders if is_split(name)]


def _forbidden_splits(root: str, folders: Iterable[str]) -> dict[str, str]:
    """Returns why folders that are called like splits cannot be listed, by split: train, train/labels, labels/train."""
    causes = [(split, _forbidden(root, [folder])) for split, folder in _split_folders(root, folders)]
    return {split: cause for split, cause in causes if cause}


FOLDERS_OF = {"coco": ("annotations",), "voc": XML_FOLDERS, "yolo": ("images", "labels", "train"),
              "per_image_json": (*per_image_json.IMAGE_FOLDERS, *per_image_json.JSON_FOLDERS)}


def _forbidden(root: str, folders: Iterable[str]) -> str:
    """Returns why the first of these folders that is there cannot be listed; empty: all can be."""
    for folder in folders:
        if os.path.isdir(os.path.join(root, folder)):
            try:
                list_names(os.path.join(root, folder))
            except BadInput as error:
                return str(error)
    return ""


def near_misses(root: str) -> dict[str, str]:
    """Returns, by format, what is in a folder that looks like the layout but is not enough for it."""
    names = set(list_folder(root).names())
    misses = {name: _forbidden(root, folders) or next(iter(unusable_splits(name, root).values()), "")
              for name, folders in FOLDERS_OF.items()}
    files = [file for folder in ("", *list_folder(root).folders) for file in json_files(root, folder)]
    if files and not misses["coco"]:
        lacking = _lacking_lists(os.path.join(root, files[0]))
        misses["coco"] = f"{files[0]} is there, but lacks {lacking}" if lacking else ""
    elif "annotations" in names and not misses["coco"]:
        misses["coco"] = "annotations/ is there, but no JSON file in it"
    xml = [folder for folder in XML_FOLDERS if folder in names]
    if xml and not misses["voc"]:
        cause = next((cause for cause in (xml_mistake(os.path.join(root, folder)) for folder in xml) if cause), "")
        misses["voc"] = cause or f"{xml[0]}/ is there, but no XML file of PASCAL VOC in it"
    images = [folder for folder in (*yolo_folders.LABELS_OF, "train") if folder in names]
    if "labels" in names and not images:
        misses["yolo"] = "labels/ is there, but no images/: set data.format=yolo and data.images to the images' folder"
    if _data_file_mistake(root):
        misses["yolo"] = _data_file_mistake(root)
    elif images and not misses["yolo"]:
        misses["yolo"] = f"{images[0]}/ is there, but no label files (*.txt) beside it in labels/, or in it"
    return {name: miss for name, miss in misses.items() if miss}


def xml_mistake(folder: str) -> str:
    """Returns why the first XML file of a folder cannot be used; empty: it can be, or there is none."""
    for name in list_folder(folder).files.get(".xml", [])[:1]:
        try:
            read_xml(os.path.join(folder, name))
        except BadInput as error:
            return str(error)
    return ""


def _data_file_mistake(root: str) -> str:
    """Returns what is wrong with data.yaml or the folders that it names; empty: nothing, or there is no such file."""
    try:
        data = yolo_data_file.data_file(root)
        for split in data.splits:
            yolo_folders.image_sources(root, split)
        return f"{os.path.basename(data.path)} is there, but names no split" if data.path and not data.splits else ""
    except BadInput as error:
        return str(error)


def _lacking_lists(path: str) -> str:
    if not os.path.isfile(path):
        return "a readable content"
    try:
        content = read_bytes(path).replace(b"\0", b"")  # UTF-16 has zero bytes between
    except BadInput as error:
        return str(error)
    return " and ".join(key.decode() for key in COCO_LISTS if key not in content)
