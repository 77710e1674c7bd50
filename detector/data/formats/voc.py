"""PASCAL VOC: Annotations/*.xml, ImageSets/Main/*.txt, JPEGImages/*. (VOC 2012 development kit, sections 4 and 5)

A split is `trainval` if the root itself has these folders, or `VOC2007/trainval` if a folder below the root has them;
`2007/trainval` is short for the latter. Trees without lists are read as well, as labelImg, Roboflow and others write
them: the split `train` is then a folder with XML files, train/Annotations, train or Annotations/train, and `all` is
every XML file of Annotations or of the root. Images are in JPEGImages or images, in any folder below it, beside their
XML files, or, where there is none of these, in any folder of the root that has no other XML files.
"""

import os
from dataclasses import dataclass, replace

import numpy as np

from detector import structures
from detector.data.formats.file_index import FileIndex, find_image, find_named_image, is_there, read_listed_stems
from detector.data.formats.subfolder_images import image_in_subfolder
from detector.data.formats.voc_xml import read_xml
from detector.data.image_sizes import read_missing_sizes
from detector.data.image_walk import IMAGE_EXTENSIONS
from detector.data.text_files import list_names
from detector.errors import BadInput
from detector.structures import Dataset, build_dataset

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
ALL = "all"  # the split of all annotation files, unless there is a list of this name
ANNOTATION_FOLDERS = ("Annotations", "annotations", "Annotation", "xml", "labels")
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "JPGImages")
LIST_FOLDERS = ("ImageSets/Main", "ImageSets", "")  # the last one only beside a folder of annotations
YEARS = ("VOC2007", "VOC2012")  # folders that a split without a folder is looked for in
MAX_SPLITS_IN_ERROR = 20


@dataclass(frozen=True)
class Tree:
    """Where the files of one split are."""

    list_file: str         # "": the split is all annotation files
    annotations: FileIndex
    images: FileIndex
    searched: FileIndex      # the folder of images, or the root where there is none; images in sub-folders count, too
    recursive: bool = True  # without a list: annotation files in sub-folders count, too
    warnings: tuple[str, ...] = ()


def sources(root: str, split: str, images: str = "") -> list[str]:
    """Returns the files that `read` reads, except missing ones."""
    tree = find_tree(root, split, images)
    paths = [path for stem in listed_stems(tree) for path in tree.annotations.find(stem)[:1]]
    return [tree.list_file][:bool(tree.list_file)] + [os.path.join(root, path) for path in paths]


def read(root: str, split: str, images: str = "") -> Dataset:
    """Reads one split; the classes are those that occur, in alphabetical order.

    Args:
        images: folder of the images, below `root` or absolute; "": by layout.

    Raises:
        BadInput: lists the annotation files that cannot be used.
    """
    tree = find_tree(root, split, images)
    rows, objects, names, mistakes = [], [], [], []
    for stem in listed_stems(tree):
        try:
            annotation = read_xml(annotation_file(tree, stem))
            rows.append((_image_file(tree, stem, annotation.file_name), len(rows) + 1, annotation.size))
        except BadInput as error:
            mistakes.append(str(error))
            continue
        objects += [(len(rows) - 1, *row) for row in annotation.objects]
        names += [row[0] for row in annotation.objects]
    rows, unsized = read_missing_sizes(root, rows, f"voc {split}", mistakes)
    classes = sorted(set(names))
    boxes = exclusive_corners(np.array([row[3:] for row in objects], np.float64))
    label = {name: c for c, name in enumerate(classes, start=1)}
    columns = np.array([(row[0], label[row[1]], row[2], 0) for row in objects], np.float64).reshape(-1, 4)
    columns[:, 3] = structures.area(boxes)
    return build_dataset(f"voc {split}", root, classes, list(range(1, len(classes) + 1)), rows,
                         np.concatenate([columns, boxes], axis=1), tree.warnings, unsized)


def exclusive_corners(boxes: np.ndarray) -> np.ndarray:
    """Converts VOC's inclusive corners as structures.from_voc does, also where the corners of a box are swapped.

    Swapped corners stay swapped: data/read.py corrects and counts them.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    swapped = np.tile(boxes[:, :2] >= boxes[:, 2:] + 1, 2)  # xmin up to xmax + 1: a box narrower than a pixel
    ordered = structures.from_voc(np.where(swapped, boxes[:, [2, 3, 0, 1]], boxes))
    return np.where(swapped, ordered[:, [2, 3, 0, 1]], ordered)


def split_names(folder: str) -> list[str]:
    """Returns the names of the text files in a folder, sorted; a missing folder has none."""
    return [name[:-4] for name in list_names(folder) if name.endswith(".txt")] if is_there(folder) else []


def listed_stems(tree: Tree) -> list[str]:
    """Returns the stems of a split's annotation files."""
    if not tree.list_file:
        return tree.annotations.stems(tree.recursive)
    folders = {*ANNOTATION_FOLDERS, *IMAGE_FOLDERS, os.path.basename(tree.images.folder)}
    return read_listed_stems(tree.list_file, tree.annotations, folders)


def annotation_file(tree: Tree, stem: str) -> str:
    """Returns the path of an XML file. Raises BadInput if the list names one that is missing."""
    paths = tree.annotations.find(stem)
    if paths:
        return os.path.join(tree.annotations.root, paths[0])
    path = os.path.join(tree.annotations.root, tree.annotations.folder, f"{stem}.xml")
    raise BadInput(f"no such annotation file: {path}. Add it, or remove its line from {tree.list_file}")


def _image_file(tree: Tree, stem: str, file_name: str) -> str:
    """Returns the path of an image, below the root or absolute; of a missing one, the path where it should be."""
    return (find_image(tree.images, stem, file_name) or find_named_image(tree.images, tree.annotations, file_name)
            or image_in_subfolder(tree.searched, tree.annotations, stem, file_name)
            or os.path.join(tree.images.folder, f"{stem}.jpg"))


def find_tree(root: str, split: str, images: str) -> Tree:
    """Returns where the files of a split are. Raises BadInput that lists the splits if there is no such split."""
    year, slash, name = split.rpartition("/")
    for base in [year, f"VOC{year}"] if slash else ["", *YEARS]:
        if place := _find_list(root, base, name):
            tree = _tree(root, base, place[0], images, place[1])
            has_other = not slash and base == YEARS[0] and _find_list(root, YEARS[1], name)
            return replace(tree, warnings=_other_year(name)) if has_other else tree
    base = year if name == ALL else split
    below = [os.path.join(base, folder) for folder in ANNOTATION_FOLDERS]
    above = [os.path.join(folder, base) for folder in ANNOTATION_FOLDERS if base]
    for annotations in (*below, *above, base):
        tree = _tree(root, base, annotations, images, recursive=bool(annotations))
        if is_there(os.path.join(root, annotations)) and tree.annotations.stems(tree.recursive):
            return tree
    raise _no_such_split(root, split)


def _find_list(root: str, base: str, name: str) -> tuple[str, str] | None:
    """Returns the folder of annotations, below the root, and the list of a split; None: there is no such list."""
    annotations = _first_folder(root, [os.path.join(base, folder) for folder in ANNOTATION_FOLDERS])
    for lists in LIST_FOLDERS if annotations else LIST_FOLDERS[:2]:
        path = os.path.join(root, base, lists, f"{name}.txt")
        if is_there(path):
            return annotations or os.path.join(base, ANNOTATION_FOLDERS[0]), path
    return None


def _other_year(name: str) -> tuple[str, ...]:
    both = ", ".join(f"{base}/{name}" for base in YEARS)
    return (f"the split {name} is that of {YEARS[0]} alone; {YEARS[1]} has one, too. For both, set data.train (or "
            f"data.val) to [{both}]",)


def _tree(root: str, base: str, annotations: str, images: str, list_file: str = "", recursive: bool = True) -> Tree:
    """Returns the Tree of a split. Without a folder of images, they lie beside the XML files, or above them."""
    folders = [*(os.path.join(base, folder) for folder in IMAGE_FOLDERS),
               *(os.path.join(folder, base) for folder in IMAGE_FOLDERS if base)]
    folder = images or _first_folder(root, folders)
    if not folder:
        beside = [path for path in (annotations, base)
                  if FileIndex(root, path, IMAGE_EXTENSIONS).stems(recursive and bool(path))]
        folder = beside[0] if beside else _first_folder(root, list(IMAGE_FOLDERS)) or folders[0]
    index = FileIndex(root, folder, IMAGE_EXTENSIONS)
    searched = index if is_there(os.path.join(root, folder)) else FileIndex(root, "", IMAGE_EXTENSIONS)
    return Tree(list_file, FileIndex(root, annotations, (".xml",)), index, searched, recursive)


def _first_folder(root: str, folders: list[str]) -> str:
    return next((folder for folder in folders if is_there(os.path.join(root, folder))), "")


def _no_such_split(root: str, split: str) -> BadInput:
    year, slash, name = split.rpartition("/")
    lists = os.path.join(root, year, LIST_FOLDERS[0])
    names = split_names(lists)
    if not names and is_there(root):
        names = [name for name in list_names(root) if name != split and _has_xml(root, name)]
        names += [ALL] if any(_has_xml(root, folder) for folder in ("", *ANNOTATION_FOLDERS)) else []
    hint = f"Splits: {', '.join(names[:MAX_SPLITS_IN_ERROR])}" if names else \
        "data.root holds Annotations, ImageSets/Main, JPEGImages, or folders such as VOC2007 with these, or a folder " \
        "of XML files named like the split"
    return BadInput(f"no VOC split {split!r}: no such file as {os.path.join(lists, name)}.txt. {hint}")


def _has_xml(root: str, folder: str) -> bool:
    return bool(FileIndex(root, folder, (".xml",)).stems(recursive=False))
