"""Checks of annotations: both splits are read even if one fails; classes, objects, boxes, with ids and remedies."""

import math
import os

import numpy as np

from detector.checks.problems import CheckReport, join_examples, parse_problem, problems_from_error
from detector.checks.progress import show_stage
from detector.config.schema import Config, Data
from detector.data.classes import relabel, resolve_classes
from detector.data.corrections import MIN_BOX_SIZE, OVERHANG_TOLERANCE
from detector.data.formats import coco
from detector.data.formats.detect import detect_splits
from detector.data.formats.json_text import parse_annotations
from detector.data.image_sizes import annotated_size
from detector.data.read import describe, read_part, select_for_training
from detector.data.review import describe_ignored, equal_images, note_shared
from detector.data.split import val_share
from detector.data.text_files import read_bytes
from detector.errors import BadInput
from detector.structures import Dataset
from detector.training.review import review_files, review_training
from detector.training.schedule import RunPlan


def read_train_and_val(config: Config, report: CheckReport) -> tuple[Dataset | None, Dataset | None]:
    """Reads training and validation images as a run does; reads and reports each of the two even if the other fails.

    Returns:
        Both with all of their objects, labelled by the same classes; None for one that cannot be read, or val that is
        not wanted.
    """
    train = _read_part(config, "train", report)
    has_val = bool(config.data.val)
    val = _read_part(config, "val", report) if has_val and (train or not _is_share(config.data)) else None
    if not has_val:
        report.notes.append("no validation: data.val is empty")
    try:
        classes = resolve_classes(config.data, train, val) if train else None
    except BadInput as error:
        report.problems += problems_from_error(error, "data.classes")
        return None, val
    if train:
        train = relabel(train, classes, strict=False)
    if val and classes:
        val = _with_classes_of_training(config.data, val, classes, report)
    return train, val


def _read_part(config: Config, name: str, report: CheckReport) -> Dataset | None:
    try:
        with show_stage(f"reading data.{name}"):
            return read_part(config.data, name, config.seed)
    except BadInput as error:
        subject = "data.val" if name == "train" and _is_share(config.data) else f"data.{name}"
        causes = {(problem.cause, problem.remedy) for problem in report.problems}
        report.problems += [problem for problem in problems_from_error(error, subject)
                            if (problem.cause, problem.remedy) not in causes]
        return None


def _is_share(config: Data) -> bool:
    """Returns whether data.val is a share of the training images, or is meant to be one."""
    try:
        return val_share(config.val) is not None
    except BadInput:
        return True


def _with_classes_of_training(config: Data, val: Dataset, classes: tuple[str, ...], report: CheckReport) -> Dataset:
    try:
        return relabel(val, classes, strict=not config.classes)
    except BadInput as error:
        report.problems += problems_from_error(error, f"data.val={', '.join(config.val)}")
        return relabel(val, classes, strict=False)


def select_objects(train: Dataset | None, config: Data, report: CheckReport) -> Dataset | None:
    """Returns the images and objects to train on; None, and a problem, where there are none."""
    try:
        return select_for_training(train, config) if train else None
    except BadInput as error:
        report.problems += problems_from_error(error, "data.train")
        return None


def describe_split(config: Data, dataset: Dataset, is_train: bool, report: CheckReport) -> None:
    """Adds counts as facts, and as notes the warnings of the reader."""
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes) + 1)[1:].tolist()
    summary = describe(dataset) + (describe_ignored(dataset, config) if is_train else "")
    report.facts[dataset.name] = {"summary": summary, "images": len(dataset), "objects": len(dataset.boxes),
                                  "objects_of_class": dict(zip(dataset.classes, counts))}
    report.notes += [f"{dataset.name}: {warning}" for warning in dataset.warnings]
    if dataset.warnings and not any("fractions" in warning for warning in dataset.warnings):
        report.notes += invalid_annotations(config, config.train if is_train else config.val)


def review_data(config: Config, train: Dataset, val: Dataset | None, plan: RunPlan, is_quick: bool,
                report: CheckReport) -> None:
    """Adds what a run's review says before its first step; a thorough check compares all files of both data sets.

    Args:
        train: the training images with all of their objects.
    """
    review = review_training(config, train, val, plan)
    report.problems += [parse_problem(text, text.partition(": ")[0]) for text in review.problems]
    report.notes += review.notes
    if is_quick or val is None:
        report.notes += review_files(train, val)
        return
    with show_stage("comparing files of train and val"):
        shared = equal_images(train, val)
    report.notes += note_shared(train, val, shared, "by content")
    report.facts["images_in_both"] = shared


def invalid_annotations(config: Data, splits: tuple[str, ...]) -> list[str]:
    """Returns notes with the annotation ids of COCO files whose boxes are corrected or left out while reading.

    Annotations that cannot be judged here are left out; the warnings of the reader count them.
    """
    notes = []
    try:
        data, names = detect_splits(config, splits)
        for name in names if data.format in ("coco", "shapes") else ():
            path = coco.annotation_file(os.path.expanduser(data.root), name)
            content = parse_annotations(read_bytes(path))
            sizes = {str(image["id"]): annotated_size(image.get("height"), image.get("width"))
                     for image in content["images"]}
            ids = [str(annotation.get("id")) for annotation in content["annotations"] if is_invalid(annotation, sizes)]
            if ids:
                notes.append(f"{path}: boxes outside their image, without area or with swapped corners: annotations "
                             f"{join_examples(ids, ', ')}. Fix their bbox = [x, y, width, height]")
    except (BadInput, ValueError, TypeError, LookupError, AttributeError):
        pass
    return notes


def is_invalid(annotation: dict, sizes: dict[str, tuple[int, int] | None]) -> bool:
    """Returns whether a COCO annotation's box leaves its image or has no area in it; False where that is unknown.

    Args:
        sizes: height and width of each image by its id as text.
    """
    try:
        x, y, width, height = map(float, annotation["bbox"])
        bottom, right = sizes[str(annotation["image_id"])]
    except (TypeError, ValueError, LookupError):
        return False
    if not all(map(math.isfinite, (x, y, width, height))):
        return True
    inside = min(min(x + width, right) - max(x, 0), min(y + height, bottom) - max(y, 0))
    outside = max(-x, -y, x + width - right, y + height - bottom)
    return outside > OVERHANG_TOLERANCE or inside < MIN_BOX_SIZE
