"""What is wrong with a data set: classes, boxes, annotations and images, with file, id and remedy."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from detector.checks.problems import CheckReport, Problem, problems_of
from detector.config.schema import Data
from detector.data.formats import coco
from detector.data.formats.json_text import parse
from detector.data.image_io import read_image
from detector.data.read import OUTSIDE, THINNEST, describe, read_splits, relabel, resolve_classes, select_for_training
from detector.errors import BadInput
from detector.structures import Dataset

SHOWN = 5  # examples of one kind; the facts hold all
REMEDIES = {"are missing": "Bring them, or remove their annotations",
            "cannot be used": "Mend or remove them, or set data.unreadable_images=grey"}


def read_both(config: Data, found: CheckReport) -> tuple[Dataset | None, Dataset | None]:
    """Training and validation images as a run reads them; each is read, and told of, also where the other fails."""
    splits = {name: _read(config, name, found) for name in ("train", "val") if getattr(config, name)}
    train, val = splits.get("train"), splits.get("val")
    if not config.val:
        found.notes.append("no validation: data.val is empty")
    try:
        classes = resolve_classes(config, train) if train else None
    except BadInput as error:
        found.problems += problems_of(error, "data.classes")
        return train, val
    if train:
        train = relabel(train, classes, strict=False)
    if val and classes:
        val = _with_classes_of_training(config, val, classes, found)
    for dataset in filter(None, (train, val)):
        describe_split(config, dataset, found)
    if train:
        try:
            train = select_for_training(train, config)
        except BadInput as error:
            found.problems += problems_of(error, "data.train")
    return train, val


def _read(config: Data, name: str, found: CheckReport) -> Dataset | None:
    try:
        return read_splits(config, getattr(config, name))
    except BadInput as error:
        found.problems += [problem for problem in problems_of(error, f"data.{name}") if problem not in found.problems]
        return None


def _with_classes_of_training(config: Data, val: Dataset, classes: tuple[str, ...], found: CheckReport) -> Dataset:
    try:
        return relabel(val, classes, strict=not config.classes)
    except BadInput as error:
        found.problems += problems_of(error, f"data.val={', '.join(config.val)}")
        return relabel(val, classes, strict=False)


def describe_split(config: Data, dataset: Dataset, found: CheckReport) -> None:
    """Counts as facts; what reading met, and classes without an object, as notes."""
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes) + 1)[1:].tolist()
    found.facts[dataset.name] = {"summary": describe(dataset), "images": len(dataset), "objects": len(dataset.boxes),
                                 "objects_of_class": dict(zip(dataset.classes, counts))}
    found.notes += [f"{dataset.name}: mended while reading: {fault}" for fault in dataset.warnings]
    if dataset.warnings and config.format in ("coco", "shapes"):
        root = os.path.expanduser(config.root)
        for split in (*config.train, *config.val):
            if f"coco {split}" == dataset.name:
                found.notes += faulty_annotations(coco.annotation_file(root, split))
    bare = [name for name, count in zip(dataset.classes, counts) if not count]
    if bare:
        found.notes.append(f"{dataset.name}: no object of class {', '.join(bare[:20])}"
                           + f" and {len(bare) - 20} more" * (len(bare) > 20))


def faulty_annotations(path: str) -> list[str]:
    """The ids of the annotations in a COCO file whose boxes reach out of their image, or have no area in it."""
    said = parse(Path(path).read_bytes())
    sizes = {str(image["id"]): (image.get("width"), image.get("height")) for image in said["images"]}
    wrong = []
    for note in said["annotations"]:
        x, y, width, height = map(float, note["bbox"])
        right, bottom = sizes[str(note["image_id"])]
        if right and bottom:
            inside = (min(x + width, right) - max(x, 0), min(y + height, bottom) - max(y, 0))
            out = max(-x, -y, x + width - right, y + height - bottom)
            if out > OUTSIDE or not min(inside) >= THINNEST:
                wrong.append(note.get("id"))
    more = f" and {len(wrong) - SHOWN} more" * (len(wrong) > SHOWN)
    return [f"{path}: boxes out of their image or without area: annotations "
            f"{', '.join(map(str, wrong[:SHOWN]))}{more}. Mend bbox = [x, y, width, height] there"] if wrong else []


def look_at_images(dataset: Dataset, found: CheckReport) -> None:
    """Every image is read as in training; all that are missing and all that cannot be used are one problem each."""
    def look(index: int) -> tuple[str, str]:
        path = dataset.path(index)
        try:
            read_image(path, tuple(int(side) for side in dataset.sizes[index]))
        except BadInput as error:
            return ("cannot be used", str(error)) if os.path.isfile(path) else ("are missing", path)
        return ("are turned", path) if turned_in_place(path) else ("", "")

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding lets other threads run
        told = list(tqdm(pool.map(look, range(len(dataset))), dataset.name, len(dataset), unit="image", leave=False,
                         disable=None))
    for what, remedy in REMEDIES.items():
        said = [text for kind, text in told if kind == what]
        if said:
            more = f"; and {len(said) - SHOWN} more" * (len(said) > SHOWN)
            found.problems.append(Problem(f"{len(said)} images of {dataset.name} {what}",
                                          f"{'; '.join(said[:SHOWN])}{more}", remedy))
        found.facts[dataset.name][f"images that {what}"] = said
    turned = [text for kind, text in told if kind == "are turned"]
    found.facts[dataset.name]["images turned by EXIF"] = turned
    if turned:
        found.notes.append(f"{len(turned)} images of {dataset.name} are turned by their EXIF orientation in a way that "
                           f"their size does not show, first {turned[0]}. Boxes are taken to be drawn on the picture "
                           "as a person sees it; look at some in pictures/")


def turned_in_place(path: str) -> bool:
    """Is the image mirrored or upside down by EXIF (orientations 2 to 4), or turned while it is square?

    Otherwise width and height tell whether the annotations were made before or after turning.
    """
    with Image.open(path) as image:
        orientation = image.getexif().get(0x0112, 1)
        return orientation in (2, 3, 4) or orientation in (5, 6, 7, 8) and image.width == image.height
