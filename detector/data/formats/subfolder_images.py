"""Images in sub-folders of the folder where their layout has them, such as one for each class."""

import filecmp
import os

from detector.data.formats.file_index import FileIndex, choose_image, normal_name
from detector.data.formats.split_names import SPLIT_NAMES, same_splits
from detector.data.image_walk import IMAGE_EXTENSIONS


def image_in_subfolder(images: FileIndex, annotations: FileIndex, stem: str, file_name: str) -> str:
    """Returns the path of an image in any sub-folder of the folder of images, such as one of its class; "" if none.

    Only names are compared: of the image without ending, and of the annotation file. An image with another ending than
    the annotation says is not taken, because it may be a mask.

    Raises:
        BadInput: several images have this name, and differ.
    """
    if not images.below:
        images.below[""] = []  # searched
        for path in _paths_in_subfolders(images, annotations):
            images.below.setdefault(normal_name(os.path.splitext(os.path.basename(path))[0]), []).append(path)
    ending = os.path.splitext(file_name.strip())[1].lower()
    candidates = images.below.get(normal_name(os.path.basename(stem)), [])
    if ending in IMAGE_EXTENSIONS:
        candidates = [path for path in candidates if path.lower().endswith(ending)]
    paths = [os.path.join(images.root, path) for path in candidates]
    if all(filecmp.cmp(paths[0], path, shallow=False) for path in paths[1:]):  # copies
        candidates = candidates[:1]
    return choose_image(candidates, stem, file_name)


def _paths_in_subfolders(images: FileIndex, annotations: FileIndex) -> list[str]:
    """Returns the paths of the images below the folder of images, except those that belong to other annotation files.

    These are beside annotation files other than `annotations`, or below a folder that holds a folder of such files, as
    train/images and train/labels do when the split `test` is read, or below one that is called like another split.
    """
    top, own = os.path.join(images.root, images.folder), os.path.join(annotations.root, annotations.folder)
    folders, annotated, visited = {}, [], set()
    for folder, names, files in os.walk(top, followlinks=True):
        names[:] = sorted(name for name in names if not name.startswith("."))
        if os.path.realpath(folder) in visited:  # a link to a folder above
            names.clear()
            continue
        visited.add(os.path.realpath(folder))
        folders[folder] = sorted(name for name in files if name.lower().endswith(images.endings)
                                 and not name.startswith("."))
        if any(name.lower().endswith(annotations.endings) for name in files) and not _is_within(folder, own):
            annotated.append(folder)
    taken = {*annotated, *(os.path.dirname(folder) for folder in annotated)} - {os.path.normpath(top)}
    split = _split_of(annotations.folder)
    kept = [folder for folder in folders if not any(_is_within(folder, other) for other in taken)
            and not (split and _split_of(os.path.relpath(folder, top)) not in ("", split))]
    return [os.path.normpath(os.path.join(images.folder, os.path.relpath(folder, top), name))
            for folder in kept for name in folders[folder]]


def _split_of(folder: str) -> str:
    """Returns which split the folders of a path are called like: train, val or test; "" for none."""
    names = {name for part in folder.split("/") for name in same_splits(part)}
    return next((split for split in SPLIT_NAMES if split in names), "")


def _is_within(folder: str, other: str) -> bool:
    return f"{os.path.abspath(folder)}/".startswith(f"{os.path.abspath(other)}/")
