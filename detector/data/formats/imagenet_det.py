"""ImageNet DET (ILSVRC 2013 to 2017): 200 classes, named by WordNet ids. (ILSVRC development kit, readme, section 2.2)

The root holds Data/DET/{train,val}, Annotations/DET/{train,val}, ImageSets/DET/*.txt and, for the names of the classes,
devkit/data/map_det.txt. A split is the name of a list in ImageSets/DET: `train`, `val`, or `train_1` for the images
with the first class. Corners count from 0 and are inclusive.
"""

import os

import numpy as np

from detector import structures
from detector.data.formats.voc import MAX_SPLITS_IN_ERROR, read_stems, read_xml, split_names
from detector.data.image_io import image_size
from detector.errors import BadInput, combine_mistakes
from detector.structures import Dataset, build_dataset

CLASS_FILES = ("devkit/data/map_det.txt", "../devkit/data/map_det.txt", "map_det.txt")


def sources(root: str, split: str) -> list[str]:
    """Returns the files that `read` reads."""
    part, stems = _part(split), read_stems(_split_file(root, split))
    files = [_split_file(root, split)]
    if _class_file(root):
        files.append(_class_file(root))
    return files + [path for path in (_annotation(root, part, stem) for stem in stems) if os.path.isfile(path)]


def read(root: str, split: str) -> Dataset:
    """Reads one split; the classes are the development kit's in its order, or without it the WordNet ids that occur.

    Raises:
        BadInput: lists the annotation files that cannot be used, and WordNet ids that the kit does not list.
    """
    part, stems = _part(split), read_stems(_split_file(root, split))
    images, objects, mistakes, unannotated = [], [], [], 0
    for index, stem in enumerate(stems):
        path, image = _annotation(root, part, stem), os.path.join("Data", "DET", part, f"{stem}.JPEG")
        try:
            # Training images that were collected as negatives of a class have no annotation file.
            size, rows = read_xml(path) if os.path.isfile(path) else (None, [])
            images.append((image, index + 1, *(size or image_size(os.path.join(root, image)))))
        except BadInput as error:
            mistakes.append(str(error))
            continue
        unannotated += not os.path.isfile(path)
        objects += [(index, name, *corners) for name, _, *corners in rows]
    names = _class_names(root) or {wnid: wnid for wnid in sorted({row[1] for row in objects})}
    unknown = sorted({row[1] for row in objects} - set(names))
    if unknown:
        mistakes.append(f"WordNet ids that {_class_file(root)} does not list: {', '.join(unknown[:5])}")
    if mistakes:
        raise combine_mistakes(f"imagenet det {split}", mistakes)
    label = {wnid: number for number, wnid in enumerate(names, start=1)}
    boxes = np.array([row[2:] for row in objects], np.float64).reshape(-1, 4) + [0, 0, 1, 1]
    columns = np.array([(row[0], label[row[1]], 0) for row in objects], np.float64).reshape(-1, 3)
    warnings = ()
    if unannotated:
        warnings = (f"{unannotated} images have no annotation file; they count as images without objects",)
    return build_dataset(f"imagenet det {split}", root, list(names.values()), list(range(1, len(names) + 1)), images,
                         np.column_stack([columns, structures.area(boxes), boxes]), warnings)


def _part(split: str) -> str:
    """Returns the name of the folder below Data/DET."""
    return "val" if split.startswith("val") else "train"


def _split_file(root: str, split: str) -> str:
    folder = os.path.join(root, "ImageSets", "DET")
    path = os.path.join(folder, f"{split}.txt")
    if os.path.isfile(path):
        return path
    names = split_names(folder)
    hint = f"Splits: {', '.join(names[:MAX_SPLITS_IN_ERROR])}" if names else \
        "`fleet-rcnn data get imagenet_det` tells what data.root has to contain"
    raise BadInput(f"no ImageNet DET split {split!r}: no such file as {path}. {hint}")


def _annotation(root: str, part: str, stem: str) -> str:
    return os.path.join(root, "Annotations", "DET", part, f"{stem}.xml")


def _class_file(root: str) -> str:
    return next((path for path in (os.path.join(root, name) for name in CLASS_FILES) if os.path.isfile(path)), "")


def _class_names(root: str) -> dict[str, str]:
    """Returns WordNet id -> name in the order of the development kit, whose lines are like `n02672831 1 accordion`."""
    path, names = _class_file(root), {}
    if not path:
        return {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            if len(line.split()) > 2:
                wnid, _, name = line.strip().split(None, 2)
                names[wnid] = name
    return names
