"""Finds the splits of a YOLO data set, and the images of each where the layout has them."""

import itertools
import os
import re
from collections.abc import Iterator

from detector.data.formats.image_folders import simplify
from detector.data.formats.listing import forget_folders, list_folder
from detector.data.formats.split_names import same_splits
from detector.data.formats.yolo_data_file import DataFile, data_file, find_split
from detector.data.formats.yolo_label_files import LABELS_OF, LabelFiles
from detector.data.image_walk import IMAGE_EXTENSIONS, image_files
from detector.data.text_files import read_lines
from detector.errors import BadInput, shorten

ALL = "all"         # the split of a data set whose images are not divided


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
    texts = {simplify(name[:-4]) for name in here.files.get(".txt", [])}
    beside = bool(texts) and any(simplify(os.path.splitext(name)[0]) in texts for ending in IMAGE_EXTENSIONS
                                 for name in here.files.get(ending, []))
    return beside or (bool(set(here.folders) & set(LABELS_OF)) and _has_texts(os.path.join(folder, "labels")))


def _has_texts(folder: str) -> bool:
    """Returns whether there are text files in a folder, or in one of its folders."""
    return any(".txt" in list_folder(os.path.join(folder, name)).files for name in ("", *list_folder(folder).folders))


def _lists_labelled_images(root: str, name: str) -> bool:
    """Returns whether a text file at the root names images, of which one of the first has a label file."""
    path, labels = os.path.join(root, name), LabelFiles(root, name[:-4])
    try:
        return lists_images(path) and \
            any(labels.find(image) for image in itertools.islice(listed_images(path, (root,)), 20))
    except (OSError, BadInput):
        return False


def lists_images(path: str) -> bool:
    """Returns whether there is a text file, which can be read, that names an image in its first line."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(4096).decode("utf-8", "replace").splitlines()
    except OSError:
        return False
    return bool(start) and start[0].strip().lower().endswith(IMAGE_EXTENSIONS)


def image_sources(root: str, split: str) -> list[str]:
    """Returns the folders of images and the lists of images that make up a split.

    Raises:
        BadInput: there is no such split, or a folder that data.yaml names for it is missing.
    """
    data, split = find_split(root, split)
    for name in names_of_split(split):
        if name in data.splits:
            return [find_entry(root, data, entry, name) for entry in data.splits[name]]
        if os.path.isdir(os.path.join(root, name)) and _lists_labelled_images(root, f"{name}.txt"):
            return [os.path.join(root, f"{name}.txt")]  # the folder may hold the images of other splits, too
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


def names_of_split(split: str) -> tuple[str, ...]:
    """Returns the names that a split may have in a data set: val may be called valid, but val2017 nothing else."""
    names = same_splits(split)
    return (split, *names) if split in names else (split,)


def find_entry(root: str, data: DataFile, entry: str, split: str) -> str:
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
    shortest = 2 if len(parts) > 1 and parts[-1] in LABELS_OF else 1
    candidates += [os.path.join(folder, *parts[start:]) for start in range(len(parts) - shortest + 1)]
    for path in candidates:
        if os.path.exists(path):
            return os.path.normpath(path)
    if re.match("[a-z]+://", entry):
        raise BadInput(f"{data.path}: {split}: {entry} is an address, from which nothing is fetched. Fetch and "
                       "unpack it, and write the folder of the images into the file")
    remedy = "name a folder below data.root as data.train" if split == "train" else \
        "name a folder below data.root as data.val, or hold out a share of the training images with data.val=0.2"
    raise BadInput(f"{data.path}: {split}: {entry} is neither there nor below {folder}. Correct the path in the file, "
                   f"or {remedy}")


def images_of(root: str, split: str) -> list[str]:
    """Returns the paths of a split's images: those below its folders, sorted, or in the order of its lists.

    Raises:
        BadInput: there is no such split, or no image in it.
    """
    paths = []
    for source in image_sources(root, split):
        if os.path.isfile(source):
            paths += list(listed_images(source, (os.path.dirname(source), root)))
            continue
        folder = os.path.join(source, "images")
        paths += image_files(folder if os.path.isdir(folder) else source)
    if not paths:
        raise BadInput(f"{shorten(image_sources(root, split))} lists no image. Write the path of an image on each line")
    return paths


def listed_images(path: str, places: tuple[str, ...], is_copy: bool = False) -> Iterator[str]:
    """Yields the images that a list names, relative to one of the places, also by the end of a longer path.

    Args:
        is_copy: the places hold a copy of the images: the path itself does not count where it is absolute.

    Raises:
        BadInput: images are missing.
    """
    missing = []
    for line in read_lines(path):
        entry = line.strip("\"'").replace("\\", "/")
        parts = [part for part in re.sub(r"^[A-Za-z]:", "", entry).split("/") if part not in ("", ".")]
        candidates = [] if is_copy else [os.path.join(place, entry) for place in places]
        candidates += [os.path.join(place, *parts[start:]) for start in range(len(parts)) for place in places]
        image = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
        if image is None:
            missing.append(entry)
        else:
            yield os.path.normpath(image)
    if missing:
        raise BadInput(f"{path} lists images that are neither there nor below {places[0]}: {shorten(missing)}. Add "
                       "them, or remove these lines")
