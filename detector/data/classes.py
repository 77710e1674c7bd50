"""One list of classes for several data sets: chosen by `data.classes`, matched by name, joined."""

import itertools
from dataclasses import replace

import numpy as np

from detector.config.schema import Data
from detector.data.formats import voc
from detector.errors import BadInput, combine_mistakes, count_of
from detector.structures import Dataset, offsets_from_counts, select_boxes

MAX_CLASSES_IN_ERROR = 100


def resolve_classes(config: Data, train: Dataset, val: Dataset | None = None) -> tuple[str, ...]:
    """Returns the classes that a model learns: `data.classes`, or all classes of the training annotations.

    Args:
        val: the validation images; `data.classes` may also name their classes, which layouts without a list of classes
            take from the objects.

    Raises:
        BadInput: a class of `data.classes` is not in the annotations, or named twice; or there is no class at all.
    """
    if not config.classes:
        if not train.classes:
            raise BadInput(f"{train.name} below {train.root} has no object of any class; nothing can be learned")
        return train.classes
    if config.classes == ("voc",):
        return tuple(voc.CLASSES)
    twice = [f"{name} twice" for name in dict.fromkeys(config.classes) if config.classes.count(name) > 1]
    if twice:
        raise BadInput(f"data.classes names {', '.join(twice)}. Name each class once")
    unknown = unknown_classes(config, train, val)
    if unknown:
        known = [f"{part.name} has {', '.join(part.classes[:MAX_CLASSES_IN_ERROR])}" for part in (train, val)
                 if part is train or part and part.classes != train.classes]
        raise combine_mistakes("data.classes", [f"unknown class {', '.join(unknown)}: {'; '.join(known)}"])
    return tuple(config.classes)


def unknown_classes(config: Data, *datasets: Dataset | None) -> list[str]:
    """Returns those of `data.classes` that none of these data sets has."""
    known = {name for dataset in datasets if dataset for name in dataset.classes}
    return [name for name in config.classes if name not in known] if config.classes != ("voc",) else []


def relabel(dataset: Dataset, classes: tuple[str, ...], strict: bool) -> Dataset:
    """Returns the same images with objects labelled by the position of their class in `classes`.

    Objects of other classes are left out and counted in `warnings`.

    Raises:
        BadInput: `strict` is set and there are objects of other classes.
    """
    if dataset.classes == classes:
        return dataset
    new_labels = np.array([0] + [classes.index(name) + 1 if name in classes else 0 for name in dataset.classes])
    labels = new_labels[dataset.labels].astype(np.int32)
    other = sorted({dataset.classes[label - 1] for label in np.unique(dataset.labels[labels == 0])})
    if other and strict:
        raise BadInput(f"unknown class {', '.join(other)} in {dataset.name}: the training classes are "
                       f"{', '.join(classes[:MAX_CLASSES_IN_ERROR])}. Fix the annotations, or select classes with "
                       "data.classes=[...]")
    warnings = dataset.warnings
    if other:
        warnings += (count_of(int((labels == 0).sum()), "object of another class was", "objects of other classes were")
                     + f" left out: {', '.join(other)}",)
    ids = dict(zip(dataset.classes, dataset.category_ids))
    unused_ids = itertools.count(int(max(dataset.category_ids, default=0)) + 1)  # for classes that the file lacks
    category_ids = np.array([ids[name] if name in ids else next(unused_ids) for name in classes], np.int64)
    kept = select_boxes(replace(dataset, labels=labels), labels > 0)
    return replace(kept, classes=classes, category_ids=category_ids, warnings=warnings)


def concat_datasets(parts: list[Dataset]) -> Dataset:
    """Returns several splits as one, such as VOC 07+12; classes are matched by name."""
    if len(parts) == 1:
        return parts[0]
    classes = list(dict.fromkeys(name for part in parts for name in part.classes))
    parts = [relabel(part, tuple(classes), strict=True) for part in parts]
    image_ids = np.concatenate([part.image_ids for part in parts])
    if len(np.unique(image_ids)) < len(image_ids):  # the ids of each split start at 1
        image_ids = np.arange(1, len(image_ids) + 1)
    category_ids = parts[0].category_ids
    if any(part.category_ids.tobytes() != category_ids.tobytes() for part in parts):
        category_ids = np.arange(1, len(classes) + 1)
    arrays = {name: np.concatenate([getattr(part, name) for part in parts])
              for name in ("paths", "sizes", "boxes", "labels", "flags", "areas")}
    warnings = dict.fromkeys(line for part in parts for line in part.warnings)  # of class names, once for all
    return replace(parts[0], name=" + ".join(part.name for part in parts), image_ids=image_ids,
                   category_ids=category_ids, warnings=tuple(warnings),
                   offsets=offsets_from_counts(np.concatenate([part.boxes_per_image() for part in parts])), **arrays)
