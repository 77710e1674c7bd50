"""Finds the images of a split of a YOLO data set in a folder of their own: `data.images`."""

import os
import re

from detector.data.formats.image_folders import simplify
from detector.data.formats.listing import forget_folders, list_folder
from detector.data.formats.yolo_data_file import find_split
from detector.data.formats.yolo_folders import ALL, find_entry, listed_images, lists_images, names_of_split
from detector.data.formats.yolo_label_files import LABELS_OF
from detector.data.image_walk import image_files
from detector.data.text_files import list_names
from detector.errors import BadInput


def lists_and_names(root: str, split: str) -> tuple[list[str], list[list[str]]]:
    """Returns the lists of images that make up a split, and for each of its folders the names that this may have.

    Raises:
        BadInput: a list that data.yaml names is missing.
    """
    data, split = find_split(root, split)
    for name in names_of_split(split):
        if name in data.splits:
            entries = data.splits[name]
            lists = [find_entry(root, data, entry, name) for entry in entries if entry.lower().endswith(".txt")]
            return lists, [_ends(entry) for entry in entries if not entry.lower().endswith(".txt")]
        if lists_images(os.path.join(root, f"{name}.txt")):
            return [os.path.join(root, f"{name}.txt")], []
    return [], [[*names_of_split(split)]]


def _ends(entry: str) -> list[str]:
    """Returns the ends of a path without its folders images/, the longest first: train2017 of images/train2017."""
    parts = [part for part in re.sub(r"^[A-Za-z]:", "", entry).replace("\\", "/").split("/")
             if part not in ("", ".", "..", *LABELS_OF)]
    return [os.path.join(*parts[start:]) for start in range(len(parts))]


def folder_names(root: str, split: str) -> list[str]:
    """Returns all names that the folders of a split may have."""
    return [*dict.fromkeys([find_split(root, split)[1], *sum(lists_and_names(root, split)[1], [])])]


def images_below(folder: str, root: str, split: str) -> list[str]:
    """Returns the paths of a split's images in `folder`: those its lists name, those in a folder of its name, or those
    with a label file in a folder of its name.

    Raises:
        BadInput: there is no such split, or no image in it.
    """
    lists, folders = lists_and_names(root, split)
    paths = [image for path in lists for image in listed_images(path, (folder,), is_copy=True)]
    for names in folders:
        paths += _images_of_folder(folder, root, names, find_split(root, split)[1])
    if not paths:
        raise BadInput(f"{lists[0]} lists no image. Write the path of an image on each line")
    return paths


def _images_of_folder(folder: str, root: str, names: list[str], split: str) -> list[str]:
    """Returns the images of one folder of a split. `names`: that it may have; none: all images belong to it."""
    own = next((path for path in (os.path.join(folder, name) for name in names) if os.path.isdir(path)), "")
    labels = next((path for name in names for path in (os.path.join(root, "labels", name),
                                                       os.path.join(root, name, "labels")) if os.path.isdir(path)), "")
    if own or not names or split == ALL and not labels:
        return image_files(own or folder)
    if not labels:
        raise _no_split(folder, root, split)
    stems = {simplify(os.path.splitext(name)[0]) for name in list_names(labels)}
    paths = [path for path in image_files(folder)
             if simplify(os.path.splitext(os.path.basename(path))[0]) in stems]
    if not paths:
        raise BadInput(f"no image in {folder} has the name of a label file in {labels}. Set data.images to the folder "
                       "of the images, or data.train or data.val to another split")
    return paths


def _no_split(folder: str, root: str, split: str) -> BadInput:
    forget_folders()
    here = list_folder(root)
    splits = [name[:-4] for name in here.files.get(".txt", []) if lists_images(os.path.join(root, name))]
    splits += [*list_folder(folder).folders, *list_folder(os.path.join(root, "labels")).folders]
    return BadInput(f"no YOLO split {split!r} in {root}: neither a key of data.yaml nor a list {split}.txt, and no "
                    f"folder {split} in {folder} or in labels/. Splits: {', '.join(dict.fromkeys(splits)) or ALL}")
