"""ImageNet DET (ILSVRC 2013 to 2017): 200 classes, named by WordNet ids. (ILSVRC development kit, readme, section 2.2)

The root holds Data/DET/{train,val}, Annotations/DET/{train,val}, ImageSets/DET/*.txt and, for the names of the classes,
devkit/data/map_det.txt. A split is the name of a list in ImageSets/DET: `train`, `val`, or `train_1` for the images
with the first class. Corners count from 0 and are inclusive.
"""

import os

import numpy as np

from detector import structures
from detector.data.formats.file_index import FileIndex, find_image, is_there, read_listed_stems
from detector.data.formats.voc import MAX_SPLITS_IN_ERROR, split_names
from detector.data.formats.voc_xml import read_xml
from detector.data.image_sizes import read_missing_sizes
from detector.data.image_walk import IMAGE_EXTENSIONS
from detector.data.text_files import read_lines
from detector.errors import BadInput, count_of, shorten
from detector.structures import Dataset, build_dataset

CLASS_FILES = ("devkit/data/map_det.txt", "../devkit/data/map_det.txt", "map_det.txt")


def sources(root: str, split: str, images: str = "") -> list[str]:
    """Returns the files that `read` reads, except missing ones."""
    annotations = _annotations(root, split)
    stems = read_listed_stems(_split_file(root, split), annotations, (_part(split),), numbered=True)
    paths = [path for stem in stems for path in annotations.find(stem)[:1]]
    class_file = _class_file(root)
    return [_split_file(root, split)] + [class_file][:bool(class_file)] + [os.path.join(root, path) for path in paths]


def read(root: str, split: str, images: str = "") -> Dataset:
    """Reads one split; the classes are the development kit's in its order, or without it the WordNet ids that occur.

    Args:
        images: folder of the images, below `root` or absolute; "": Data/DET/train or Data/DET/val.

    Raises:
        BadInput: lists the annotation files that cannot be used, and WordNet ids that the kit does not list.
    """
    annotations = _annotations(root, split)
    folder = images or os.path.join("Data", "DET", _part(split))
    pictures = FileIndex(root, folder, IMAGE_EXTENSIONS)
    stems = read_listed_stems(_split_file(root, split), annotations, (_part(split),), numbered=True)
    rows, objects, mistakes, unannotated = [], [], [], set()
    for stem in stems:
        try:
            # Training images that were collected as negatives of a class have no annotation file.
            path = next(iter(annotations.find(stem)), "")
            annotation = read_xml(os.path.join(root, path)) if path else None
            image = find_image(pictures, stem) or os.path.join(pictures.folder, f"{stem}.JPEG")
        except BadInput as error:
            mistakes.append(str(error))
            continue
        unannotated.update([] if annotation else [stem])
        objects += [(len(rows), name, *corners) for name, _, *corners in (annotation.objects if annotation else [])]
        rows.append((image, len(rows) + 1, annotation.size if annotation else None))
    names = _class_names(root) or {wnid: wnid for wnid in sorted({row[1] for row in objects})}
    unknown = sorted({row[1] for row in objects} - set(names))
    if unknown:
        mistakes.append(f"WordNet ids that {_class_file(root)} does not list: {shorten(unknown)}. Add them, or remove "
                        "the objects")
    rows, unsized = read_missing_sizes(root, rows, f"imagenet det {split}", mistakes)
    label = {wnid: number for number, wnid in enumerate(names, start=1)}
    boxes = _exclusive_corners(np.array([row[2:] for row in objects], np.float64))
    columns = np.array([(row[0], label[row[1]], 0) for row in objects], np.float64).reshape(-1, 3)
    warnings = (count_of(len(unannotated), "image has no annotation file; it counts as an image without objects",
                         "images have no annotation file; they count as images without objects"),) \
        if unannotated else ()
    return build_dataset(f"imagenet det {split}", root, list(names.values()), list(range(1, len(names) + 1)), rows,
                         np.column_stack([columns, structures.area(boxes), boxes]), warnings, unsized)


def _exclusive_corners(boxes: np.ndarray) -> np.ndarray:
    """Adds the last pixel to inclusive corners [N, 4]; swapped corners stay swapped for data/read.py to correct."""
    boxes = boxes.reshape(-1, 4)
    return boxes + np.tile(boxes[:, :2] > boxes[:, 2:], 2) * [1, 1, -1, -1] + [0, 0, 1, 1]


def _part(split: str) -> str:
    """Returns the name of the folder below Data/DET."""
    return "val" if split.startswith("val") else "train"


def _annotations(root: str, split: str) -> FileIndex:
    return FileIndex(root, os.path.join("Annotations", "DET", _part(split)), (".xml",))


def _split_file(root: str, split: str) -> str:
    folder = os.path.join(root, "ImageSets", "DET")
    path = os.path.join(folder, f"{split}.txt")
    if is_there(path):
        return path
    names = split_names(folder)
    hint = f"Splits: {', '.join(names[:MAX_SPLITS_IN_ERROR])}" if names else \
        "`fleet-rcnn data get imagenet_det` tells what data.root has to contain"
    raise BadInput(f"no ImageNet DET split {split!r}: no such file as {path}. {hint}")


def _class_file(root: str) -> str:
    return next((path for path in (os.path.join(root, name) for name in CLASS_FILES) if is_there(path)), "")


def _class_names(root: str) -> dict[str, str]:
    """Returns WordNet id -> name in the order of the development kit, whose lines are like `n02672831 1 accordion`.

    Raises:
        BadInput: two ids have the same name, or the file cannot be read.
    """
    path = _class_file(root)
    lines = [line.split(None, 2) for line in read_lines(path, "list of classes")] if path else []
    names = {columns[0]: columns[2] for columns in lines if len(columns) == 3}
    repeated = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if repeated:
        raise BadInput(f"{path} gives the same name to several ids: {shorten(repeated)}. Give each a name of its own")
    return names
