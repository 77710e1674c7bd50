"""ImageNet DET (ILSVRC 2013 to 2017): 200 classes by their WordNet ids. (ILSVRC development kit, readme, section 2.2)

The root holds Data/DET/{train,val}, Annotations/DET/{train,val}, ImageSets/DET/*.txt and, for the names of the classes,
devkit/data/map_det.txt. A split is the name of a list in ImageSets/DET: `train`, `val`, or `train_1` for the images
with the first class. Corners count from 0 and are inclusive.
"""

import os

import numpy as np

from detector import structures
from detector.data.formats.voc import lists_in, read_stems, read_xml
from detector.data.image_io import image_size
from detector.errors import BadInput, listed
from detector.structures import Dataset, build_dataset

NAMES = ("devkit/data/map_det.txt", "../devkit/data/map_det.txt", "map_det.txt")


def sources(root: str, split: str) -> list[str]:
    """The files that the annotations come from."""
    part, stems = _part(split), read_stems(_split_file(root, split))
    files = [_split_file(root, split), *(path for path in [_names_file(root)] if path)]
    return files + [path for path in (_annotation(root, part, stem) for stem in stems) if os.path.isfile(path)]


def read(root: str, split: str) -> Dataset:
    """One split. With the development kit its classes are the kit's, in its order; else the WordNet ids that occur."""
    part, stems = _part(split), read_stems(_split_file(root, split))
    images, objects, mistakes, bare = [], [], [], 0
    for index, stem in enumerate(stems):
        path, picture = _annotation(root, part, stem), os.path.join("Data", "DET", part, f"{stem}.JPEG")
        try:
            # A training image that was only collected as "not in this picture" has no annotation file.
            size, found = read_xml(path) if os.path.isfile(path) else (None, [])
            images.append((picture, index + 1, *(size or image_size(os.path.join(root, picture)))))
        except BadInput as error:
            mistakes.append(str(error))
            continue
        bare += not os.path.isfile(path)
        objects += [(index, name, *corners) for name, _, *corners in found]
    known = _class_names(root) or {wnid: wnid for wnid in sorted({row[1] for row in objects})}
    strangers = sorted({row[1] for row in objects} - set(known))
    if strangers:
        mistakes.append(f"WordNet ids that {_names_file(root)} does not know: {', '.join(strangers[:5])}")
    if mistakes:
        raise listed(f"imagenet det {split}", mistakes)
    label = {wnid: number for number, wnid in enumerate(known, start=1)}
    corners = np.array([row[2:] for row in objects], np.float64).reshape(-1, 4) + [0, 0, 1, 1]
    columns = np.array([(row[0], label[row[1]], 0) for row in objects], np.float64).reshape(-1, 3)
    faults = (f"{bare} images have no annotation file; they count as images without objects",) * bool(bare)
    return build_dataset(f"imagenet det {split}", root, list(known.values()), list(range(1, len(known) + 1)), images,
                    np.column_stack([columns, structures.area(corners), corners]), faults)


def _part(split: str) -> str:
    """The folder below Data/DET."""
    return "val" if split.startswith("val") else "train"


def _split_file(root: str, split: str) -> str:
    folder = os.path.join(root, "ImageSets", "DET")
    path = os.path.join(folder, f"{split}.txt")
    if os.path.isfile(path):
        return path
    there = lists_in(folder)
    raise BadInput(f"no ImageNet DET split {split!r}: no such file as {path}. " + (f"There are: {', '.join(there[:20])}"
                   if there else "`fleet-rcnn data get imagenet_det` says what data.root has to hold"))


def _annotation(root: str, part: str, stem: str) -> str:
    return os.path.join(root, "Annotations", "DET", part, f"{stem}.xml")


def _names_file(root: str) -> str:
    return next((path for path in (os.path.join(root, name) for name in NAMES) if os.path.isfile(path)), "")


def _class_names(root: str) -> dict[str, str]:
    """WordNet id -> name, in the order of the development kit; a line there is `n02672831 1 accordion`."""
    path, names = _names_file(root), {}
    if not path:
        return {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            wnid, _, name = line.strip().split(None, 2) if len(line.split()) > 2 else ("", "", "")
            if wnid:
                names[wnid] = name
    return names
