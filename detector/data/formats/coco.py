"""COCO JSON: one file a split, with images, annotations and categories. (cocodataset.org, "Data format")"""

import os
import re
import stat
from dataclasses import dataclass

import numpy as np

from detector.data.formats.coco_entries import (
    Entries,
    add_mistake,
    category_names,
    image_name,
    image_names,
    list_entries,
    unused_categories,
)
from detector.data.formats.coco_ids import IdTable
from detector.data.formats.coco_objects import add_missing_boxes, corner_warning, ignore_warning, read_objects
from detector.data.formats.image_folders import ImageFiles, find_images, folders_below
from detector.data.formats.json_text import gc_paused, read_annotations
from detector.data.formats.split_names import SPLIT_NAMES, same_splits
from detector.data.image_sizes import annotated_size, read_missing_sizes
from detector.data.text_files import cannot_read
from detector.errors import BadInput, combine_mistakes, count_of, shorten
from detector.structures import Dataset, build_dataset

FILES = ("annotations/instances_{}.json", "annotations/{}.json", "{}.json", "{}/_annotations.coco.json",
         "annotations/person_keypoints_{}.json", "{}/labels.json", "{}/annotations.json", "{}")
FOLDERS = ("{}", "images/{}", "images", "", "{}/images", "{}/data")
# These splits of COCO 2014's validation images (Girshick 2015) have their images in the folder val2014.
FOLDER_OF = {"minival2014": "val2014", "valminusminival2014": "val2014"}
FILE_PREFIX = re.compile(r"(instances|person_keypoints|stuff|image_info|lvis_v\d[\d.]*)_")
LISTS = ("images", "annotations", "categories")


def sources(root: str, split: str) -> list[str]:
    """Returns the annotation files that `read` reads."""
    return [annotation_file(root, split)]


def annotation_file(root: str, split: str) -> str:
    """Returns the path of the annotation file of a split.

    Raises:
        BadInput: there is no such file; all candidates are listed. Or a folder may not be entered.
    """
    candidates = [os.path.join(root, pattern.format(split)) for pattern in FILES]
    forbidden = []
    for path in candidates:
        try:
            if stat.S_ISREG(os.stat(path).st_mode):
                return path
        except PermissionError as error:
            forbidden.append(cannot_read(path, error, "annotation file"))
        except (OSError, ValueError):
            continue
    if forbidden:
        raise forbidden[0]
    raise BadInput(f"no annotations of split {split!r}: no such file as " + ", ".join(candidates)
                   + ". Set data.root, and data.train or data.val to a split name or a JSON file below it")


def read(root: str, split: str, images: str = "") -> Dataset:
    """Reads one split; the classes are its categories, sorted by id.

    Entries of one image id that are equal count once, whatever `data.duplicates` says: annotations refer to the id.

    Args:
        images: folder of the images, below `root` or absolute; "": where the layout has them.

    Raises:
        BadInput: lists the mistakes in the file, with ids and remedies.
    """
    path = annotation_file(root, split)
    mistakes: list[str] = []
    content = parse_file(path, mistakes)
    names = image_names(content.images.entries, mistakes)
    add_mistake(content.unlisted, "the file does not list this image or category; add it, or remove the annotation",
                mistakes)
    class_names = category_names(content.categories.entries, mistakes)
    unused = unused_categories(content.categories.entries, class_names, content.used_categories(), mistakes,
                               content.warnings)
    if mistakes:
        raise combine_mistakes(path, mistakes)
    files = locate_images(root, split, images, path, names)
    entries = content.images.entries
    rows = [(file, identifier, annotated_size(image.get("height"), image.get("width")))
            for file, identifier, image in zip(files.paths, content.images.integers, entries)]
    if any(rows[index][2] is None for index in files.missing):
        raise BadInput(f"{path}: {files.missing_text}")
    sized_rows, unsized = read_missing_sizes(root, rows, path)
    content.warnings.extend(files.warnings)
    if unsized:
        content.warnings.append(count_of(len(unsized), "image has", "images have")
                                + " no annotated size; it is read from the image files")
    sizes = np.array([row[2:4] for row in sized_rows], np.float64).reshape(-1, 2)
    content.warnings.extend(filter(None, [corner_warning(content.objects, sizes)]))
    return to_dataset(f"coco {split}", root, content, class_names, unused, sized_rows, unsized)


@dataclass(frozen=True)
class GroundTruth:
    """The annotated objects that detections of any detector are scored against."""

    dataset: Dataset
    image_ids: IdTable  # image id as written in the file -> index of the image
    labels: IdTable     # category id as written in the file -> label; 0: the category is no class


def read_ground_truth(path: str) -> GroundTruth:
    """Reads an annotation file to score detections against, as pycocotools does: no image file is needed or looked for.

    Names and sizes of images may be missing. Annotations of images and categories that the file does not list are left
    out. Categories with the same name stay different classes.

    Raises:
        BadInput: lists the mistakes in the file, with ids and remedies.
    """
    mistakes: list[str] = []
    content = parse_file(path, mistakes)
    if mistakes:
        raise combine_mistakes(path, mistakes)
    if content.unlisted:
        content.warnings.append(count_of(len(content.unlisted), "annotation was", "annotations were")
                                + " left out, because the file does not list its image or category: "
                                f"{shorten(content.unlisted)}")
    images, categories = content.images, content.categories
    infinite = ~np.isfinite(content.objects[:, 4:]).all(axis=1)
    if infinite.any():
        content.objects[infinite, 4:] = 0
        content.warnings.append(count_of(int(infinite.sum()), "object has", "objects have")
                                + " a box that is not finite: none is found")
    written = [str(category.get("name") or category["id"]).strip().encode("utf-8", "replace").decode()
               for category in categories.entries]
    names = [name if written.count(name) == 1 else f"{name} (id {category['id']})"
             for name, category in zip(written, categories.entries)]
    unused = unused_categories(categories.entries, names, content.used_categories(), mistakes, content.warnings)
    labels = class_labels(len(names), unused)
    rows = [(image_name(image) or f"image {identifier}", identifier,
             *(annotated_size(image.get("height"), image.get("width")) or (0, 0)))
            for image, identifier in zip(images.entries, images.integers)]
    dataset = to_dataset(f"coco {os.path.basename(path)}", os.path.dirname(path), content, names, unused, rows, [])
    return GroundTruth(dataset, images.ids, IdTable(
        {integer: int(labels[position + 1]) for integer, position in categories.ids.by_integer.items()},
        {text: int(labels[position + 1]) for text, position in categories.ids.by_text.items()}))


@dataclass(frozen=True)
class FileContent:
    """The lists of an annotation file, with the ids resolved."""

    images: Entries
    categories: Entries
    objects: np.ndarray   # rows for build_dataset, float64 [N, 8]; the label is the position of the category, from 1
    unlisted: list[str]   # annotations of images or categories that the file does not list; not in `objects`
    warnings: list[str]

    def used_categories(self) -> np.ndarray:
        """bool [categories]: whether a category has an object."""
        return np.bincount(self.objects[:, 1].astype(np.int64), minlength=len(self.categories.entries) + 1)[1:] > 0


def parse_file(path: str, mistakes: list[str]) -> FileContent:
    """Reads an annotation file.

    Args:
        mistakes: sentences about wrong entries are added.

    Raises:
        BadInput: the file cannot be read, is no JSON, or has other lists.
    """
    content = read_lists(path)
    warnings: list[str] = []
    unlisted: list[str] = []
    with gc_paused():
        images = list_entries(content["images"], "image", mistakes, warnings)
        categories = list_entries(content["categories"], "category", mistakes, warnings)
        annotations = content["annotations"]
        add_missing_boxes(annotations, lambda: read_lists(path, keep_segmentations=True)["annotations"])
        objects = read_objects(annotations, images.ids, categories.ids, mistakes, unlisted)
    warnings += filter(None, [ignore_warning(annotations)])
    return FileContent(images, categories, objects, unlisted, warnings)


def read_lists(path: str, keep_segmentations: bool = False) -> dict:
    """Returns the content of an annotation file. Raises BadInput if one of LISTS is missing, or the file is no JSON."""
    content = read_annotations(path, keep_segmentations)
    if isinstance(content, list) and content and isinstance(content[0], dict) and "score" in content[0]:
        raise BadInput(f"{path} is no COCO annotation file: it is a list of detections. Name the file with images, "
                       "annotations and categories")
    missing = [key for key in LISTS if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing or not isinstance(content, dict):
        remedy = "Files of test images have none: such images are for predict, not for training or evaluation" \
            if missing == ["annotations"] else "Export it as COCO JSON, or set data.format to the layout it has"
        raise BadInput(f"{path} is no COCO annotation file: it has no list named {' and '.join(missing)}. {remedy}")
    return content


def class_labels(count: int, unused: list[int]) -> np.ndarray:
    """Returns the label of each category from 1, int64 [count + 1]; 0 for unused ones and for position 0."""
    is_class = np.ones(count + 1, bool)
    is_class[[0, *(position + 1 for position in unused)]] = False
    return np.where(is_class, np.cumsum(is_class), 0)


def to_dataset(name: str, root: str, content: FileContent, names: list[str], unused: list[int], rows: list[tuple],
               unsized: list[int]) -> Dataset:
    """Returns the Dataset of a file, with the categories that are not `unused` as classes."""
    labels = class_labels(len(names), unused)
    content.objects[:, 1] = labels[content.objects[:, 1].astype(np.int64)]
    kept = np.flatnonzero(labels[1:]).tolist()
    return build_dataset(name, root, [names[i] for i in kept], [content.categories.integers[i] for i in kept], rows,
                         content.objects, tuple(content.warnings), sized_by_header=unsized)


def locate_images(root: str, split: str, images: str, annotations: str, names: list[str]) -> ImageFiles:
    """Finds the images of a split; see image_folders.find_images.

    Args:
        images: the value of data.images.
        annotations: path of the annotation file.
        names: of the images, as in the annotation file.

    Raises:
        BadInput: the folder data.images does not exist.
    """
    split_names = [FOLDER_OF.get(split, split)] if not split.endswith(".json") else []
    split_names += [name_of_split(annotations)]
    patterns = [pattern.format(name) for name in split_names for pattern in FOLDERS]
    beside = os.path.relpath(os.path.dirname(annotations) or ".", root)
    if images:
        if not os.path.isdir(os.path.join(root, images)):
            raise BadInput(f"no such folder: data.images={images} ({os.path.join(root, images)}). Set data.images to "
                           "the folder of the images, below data.root or absolute")
        folders, search_in = [images, *(os.path.join(images, pattern) for pattern in patterns)], [images]
    else:
        above = os.path.dirname(beside) if beside != "." else ""
        nearby = [os.path.join(folder, below) for folder in (beside, above) for below in ("", "data", "images")]
        folders = [*patterns, *nearby, *(os.path.join(above, name) for name in split_names)]
        search_in = ["", beside]

    def other_folders() -> list[str]:
        excluded = other_split_names(split_names, os.path.dirname(annotations))
        return [folder for folder in folders_below(root, search_in)
                if not any(set(same_splits(part)) & excluded for part in re.split(r"[^A-Za-z0-9]+", folder))]
    return find_images(root, names, folders, other_folders)


def name_of_split(annotations: str) -> str:
    """Returns the name of the split in the name of an annotation file: train of instances_train.json."""
    return FILE_PREFIX.sub("", os.path.splitext(os.path.basename(annotations))[0], count=1)


def other_split_names(split_names: list[str], folder: str) -> set[str]:
    """Returns the names of folders that hold the images of other splits, which may have the same names.

    Args:
        split_names: names of the split whose images are looked for.
        folder: of annotation files; each one is a split.
    """
    own = {other for name in split_names for other in same_splits(os.path.basename(name))}
    try:
        splits = [name_of_split(name) for name in os.listdir(folder or ".") if name.endswith(".json")]
    except OSError:
        splits = []
    if any(own & set(same) for same in SPLIT_NAMES.values()):
        splits += [*SPLIT_NAMES]
    return {other for name in splits for other in same_splits(name)} - own
