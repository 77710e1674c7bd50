"""Checks of a data set: classes, boxes, annotations and images, each problem with file, id and remedy."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from detector.checks.problems import CheckReport, Problem, problems_from_error
from detector.config.schema import Data
from detector.data.formats import coco
from detector.data.formats.json_text import parse_annotations
from detector.data.image_io import read_image
from detector.data.read import (
    MIN_BOX_SIZE,
    OVERHANG_TOLERANCE,
    describe,
    read_splits,
    relabel,
    resolve_classes,
    select_for_training,
)
from detector.errors import BadInput
from detector.structures import Dataset

MAX_EXAMPLES = 5  # printed examples of one problem; the facts list all
MAX_CLASSES = 20  # printed classes without an object
REMEDIES = {"are missing": "Add them, or remove their annotations",
            "cannot be used": "Fix or remove them, or set data.unreadable_images=grey"}
EXIF_ORIENTATION = 0x0112


def read_train_and_val(config: Data, report: CheckReport) -> tuple[Dataset | None, Dataset | None]:
    """Reads training and validation images as a run does; reads and reports each of the two even if the other fails."""
    splits = {name: _read_split(config, name, report) for name in ("train", "val") if getattr(config, name)}
    train, val = splits.get("train"), splits.get("val")
    if not config.val:
        report.notes.append("no validation: data.val is empty")
    try:
        classes = resolve_classes(config, train) if train else None
    except BadInput as error:
        report.problems += problems_from_error(error, "data.classes")
        return train, val
    if train:
        train = relabel(train, classes, strict=False)
    if val and classes:
        val = _with_classes_of_training(config, val, classes, report)
    for dataset in filter(None, (train, val)):
        describe_split(config, dataset, report)
    if train:
        try:
            train = select_for_training(train, config)
        except BadInput as error:
            report.problems += problems_from_error(error, "data.train")
    return train, val


def _read_split(config: Data, name: str, report: CheckReport) -> Dataset | None:
    try:
        return read_splits(config, getattr(config, name))
    except BadInput as error:
        report.problems += [problem for problem in problems_from_error(error, f"data.{name}")
                            if problem not in report.problems]
        return None


def _with_classes_of_training(config: Data, val: Dataset, classes: tuple[str, ...], report: CheckReport) -> Dataset:
    try:
        return relabel(val, classes, strict=not config.classes)
    except BadInput as error:
        report.problems += problems_from_error(error, f"data.val={', '.join(config.val)}")
        return relabel(val, classes, strict=False)


def describe_split(config: Data, dataset: Dataset, report: CheckReport) -> None:
    """Adds counts as facts, and as notes the warnings of the reader and the classes without an object."""
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes) + 1)[1:].tolist()
    report.facts[dataset.name] = {"summary": describe(dataset), "images": len(dataset), "objects": len(dataset.boxes),
                                  "objects_of_class": dict(zip(dataset.classes, counts))}
    report.notes += [f"{dataset.name}: fixed while reading: {warning}" for warning in dataset.warnings]
    if dataset.warnings and config.format in ("coco", "shapes"):
        root = os.path.expanduser(config.root)
        for split in (*config.train, *config.val):
            if f"coco {split}" == dataset.name:
                report.notes += invalid_annotations(coco.annotation_file(root, split))
    absent = [name for name, count in zip(dataset.classes, counts) if not count]
    if absent:
        report.notes.append(f"{dataset.name}: no object of class " + ", ".join(absent[:MAX_CLASSES])
                            + _rest(absent, MAX_CLASSES, " and "))


def invalid_annotations(path: str) -> list[str]:
    """Returns a note with the annotation ids of a COCO file whose boxes leave their image or have no area in it."""
    content = parse_annotations(Path(path).read_bytes())
    sizes = {str(image["id"]): (image.get("width"), image.get("height")) for image in content["images"]}
    ids = []
    for annotation in content["annotations"]:
        x, y, width, height = map(float, annotation["bbox"])
        right, bottom = sizes[str(annotation["image_id"])]
        if right and bottom:
            inside = (min(x + width, right) - max(x, 0), min(y + height, bottom) - max(y, 0))
            outside = max(-x, -y, x + width - right, y + height - bottom)
            if outside > OVERHANG_TOLERANCE or not min(inside) >= MIN_BOX_SIZE:
                ids.append(annotation.get("id"))
    if not ids:
        return []
    return [f"{path}: boxes outside their image or without area: annotations "
            f"{', '.join(map(str, ids[:MAX_EXAMPLES]))}{_rest(ids, MAX_EXAMPLES, ' and ')}. "
            "Fix their bbox = [x, y, width, height]"]


def check_images(dataset: Dataset, report: CheckReport) -> None:
    """Reads every image as training does; all missing images are one problem, all unusable ones another."""
    def read(index: int) -> tuple[str, str]:
        path = dataset.path(index)
        try:
            read_image(path, tuple(int(length) for length in dataset.sizes[index]))
        except BadInput as error:
            return ("cannot be used", str(error)) if os.path.isfile(path) else ("are missing", path)
        return ("are turned", path) if has_ambiguous_orientation(path) else ("", "")

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding releases the GIL
        results = list(tqdm(pool.map(read, range(len(dataset))), dataset.name, len(dataset), unit="image", leave=False,
                            disable=None))
    for kind, remedy in REMEDIES.items():
        messages = [message for result, message in results if result == kind]
        if messages:
            report.problems.append(Problem(
                f"{len(messages)} images of {dataset.name} {kind}",
                "; ".join(messages[:MAX_EXAMPLES]) + _rest(messages, MAX_EXAMPLES, "; and "), remedy))
        report.facts[dataset.name][f"images that {kind}"] = messages
    turned = [path for result, path in results if result == "are turned"]
    report.facts[dataset.name]["images turned by EXIF"] = turned
    if turned:
        report.notes.append(f"{len(turned)} images of {dataset.name} are turned by their EXIF orientation in a way "
                            f"that their size does not show, first {turned[0]}. Their boxes are read as drawn on the "
                            "turned image, as viewers show it; look at some of them with `fleet-rcnn view`")


def _rest(items: list, shown: int, separator: str) -> str:
    """Returns "<separator>N more" for the items that are not printed, or "" where all are."""
    return f"{separator}{len(items) - shown} more" if len(items) > shown else ""


def has_ambiguous_orientation(path: str) -> bool:
    """Returns True where EXIF mirrors or turns an image without swapping width and height.

    These are orientations 2 to 4, and 5 to 8 of a square image. In all other cases the annotated width and height
    show whether the annotations were made before or after turning.
    """
    with Image.open(path) as image:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        return orientation in (2, 3, 4) or orientation in (5, 6, 7, 8) and image.width == image.height
