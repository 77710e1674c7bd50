"""Reads annotations of any format into a Dataset: cached, with fixed boxes, and one list of classes for all splits."""

import contextlib
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from detector.config.schema import Data
from detector.data.cache import read_cached
from detector.data.corrections import fix_duplicates, fix_invalid_boxes, fix_swapped_corners, scale_fractions
from detector.data.formats import find_format, voc
from detector.data.formats.detect import AUTO, detect_format, detect_splits, no_such_folder
from detector.data.split import hold_out, val_share
from detector.data.text_files import check_reachable, read_text
from detector.distributed import collectives
from detector.distributed.collectives import run_on_local_main_first
from detector.errors import BadInput, combine_mistakes, count_of
from detector.run.files import HELD_OUT_FILE
from detector.structures import CROWD, DIFFICULT, Dataset, offsets_from_counts, select_boxes, select_images

MAX_CLASSES_IN_ERROR = 100


def resolve_format(config: Data) -> tuple[Data, str]:
    """Returns the options without `data.format=auto`, and a sentence on the layout ("" if one is stated). Collective.

    Raises:
        BadInput: no layout fits, or several do.
    """
    if config.format != AUTO:
        return config, ""
    detected = []
    collectives.run_on_main(lambda: detected.extend(detect_format(config)))
    data, sentence = detected or (config, "")
    values = [data.format, data.root, data.train, data.val, sentence]
    name, root, train, val, sentence = json.loads(collectives.broadcast_text(json.dumps(values)))
    return replace(config, format=name, root=root, train=tuple(train), val=tuple(val)), sentence


def read_datasets(config: Data, seed: int = 0, run: Path | None = None) -> tuple[Dataset, Dataset | None]:
    """Returns training and validation images with the same classes; None if `data.val` is empty. Collective.

    Args:
        seed, run: see `read_shares`.

    Raises:
        BadInput: see `read_splits`, `resolve_classes` and `relabel`.
    """
    share = val_share(config.val)
    if share is None:
        train, val = read_splits(config, config.train), read_splits(config, config.val) if config.val else None
    else:
        train, val = read_shares(config, share, seed, run)
    classes = resolve_classes(config, train, val)
    return (relabel(train, classes, strict=False),
            relabel(val, classes, strict=not config.classes) if val else None)


def read_train(config: Data, seed: int = 0) -> Dataset:
    """Returns the training images, labelled by the classes that a model learns. Collective.

    Args:
        seed: see `read_shares`.

    Raises:
        BadInput: see `read_splits` and `resolve_classes`.
    """
    train = read_part(config, "train", seed)
    is_val_needed = config.val and unknown_classes(config, train)
    classes = resolve_classes(config, train, read_part(config, "val", seed) if is_val_needed else None)
    return relabel(train, classes, strict=False)


def read_val(config: Data, classes: tuple[str, ...], seed: int = 0, run: Path | None = None) -> Dataset:
    """Returns the validation images, labelled by the classes of a model. Collective.

    Args:
        seed, run: see `read_shares`.
    """
    if not config.val:
        raise BadInput("data.val=[]: there is nothing to evaluate on; name a split, such as data.val=val")
    return relabel(read_part(config, "val", seed, run), classes, strict=not config.classes)


def read_part(config: Data, part: str, seed: int = 0, run: Path | None = None) -> Dataset:
    """Returns the images of `data.train` or `data.val`, with their own classes. Collective.

    Args:
        part: train or val.
        seed, run: see `read_shares`.
    """
    share = val_share(config.val)
    if share is None:
        return read_splits(config, config.train if part == "train" else config.val)
    return read_shares(config, share, seed, run)[0 if part == "train" else 1]


def read_shares(config: Data, share: float, seed: int, run: Path | None) -> tuple[Dataset, Dataset]:
    """Returns the images of `data.train` in two parts, to train on and held out for validation. Collective.

    Rank 0 chooses, because images are compared by their files, which not all machines may see alike.

    Args:
        seed: `seed` of the config.
        run: folder of a run, or of an evaluation, whose held-out images stay (HELD_OUT_FILE), whatever images the data
            set has now; None: they are chosen anew.
    """
    dataset = read_splits(config, config.train)

    def choose_held_out() -> np.ndarray:
        path = run / HELD_OUT_FILE if run else None
        known = read_held_out(path) if path and path.is_file() else set()
        mask = np.array([path in known for path in relative_paths(dataset)], bool)
        return mask if mask.any() else hold_out(dataset, share, seed)
    held_out = collectives.array_of_main(choose_held_out)
    return (replace(select_images(dataset, ~held_out), name=f"{dataset.name} without data.val={share:g}"),
            replace(select_images(dataset, held_out), name=f"{dataset.name}, data.val={share:g}", warnings=()))


def read_held_out(path: Path) -> set[str]:
    """Returns the paths in a HELD_OUT_FILE. Raises BadInput if it is damaged."""
    try:
        names = json.loads(read_text(str(path)))
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return set(names)
        raise ValueError("it is no list of paths")
    except ValueError as error:
        raise BadInput(f"{path}, the list of held-out images, is damaged ({error}). Restore it from a copy; or remove "
                       "it: then images are chosen anew, the same ones if the data set has not changed") from error


def relative_paths(dataset: Dataset) -> list[str]:
    """Returns the path of each image as the data set has it, below its root or absolute."""
    return [os.fsdecode(bytes(path)) for path in dataset.paths]


def read_splits(config: Data, splits: tuple[str, ...]) -> Dataset:
    """Returns several splits as one data set, with boxes and duplicates fixed as the options say. Collective.

    One process of each machine reads the annotations and writes the cache; the others read the cache.

    Raises:
        BadInput: unknown format, missing folder, annotations that cannot be used, or no image at all.
    """
    def read() -> Dataset:
        data, names = detect_splits(config, splits)
        reader = find_format(data.format)
        root = os.path.expanduser(data.root or reader.default_root)
        reader.prepare(root)
        check_reachable(root, "folder")
        if not os.path.isdir(root):
            raise no_such_folder(root)
        parts = [read_cached(data, root, split) for split in names]
        if not reader.boxes_in_pixels:
            parts = scale_fractions(parts, lambda: _other_splits(data, root, names))
        dataset = concat_datasets(parts)
        if len(dataset) == 0:
            raise BadInput(f"empty data set: {dataset.name} below {dataset.root} lists no image")
        dataset = fix_swapped_corners(dataset, config.invalid_boxes)
        return fix_invalid_boxes(fix_duplicates(dataset, config.duplicates), config.invalid_boxes)
    return run_on_local_main_first(read)


def _other_splits(data: Data, root: str, names: tuple[str, ...]) -> list[Dataset]:
    """Returns those splits of data.train and data.val that are not among `names`, as far as they can be read."""
    parts = []
    for split in dict.fromkeys((*data.train, *data.val)):
        with contextlib.suppress(BadInput):
            if split not in names:
                parts.append(read_cached(data, root, split))
    return parts


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


def drop_ignored(dataset: Dataset, config: Data) -> Dataset:
    """Returns the same images without the objects that no loss is computed on: crowd regions and difficult objects,
    unless `data.train_on_crowd` or `data.train_on_difficult` is set."""
    ignored = (0 if config.train_on_crowd else CROWD) | (0 if config.train_on_difficult else DIFFICULT)
    return select_boxes(dataset, (dataset.flags & ignored) == 0)


def select_for_training(dataset: Dataset, config: Data) -> Dataset:
    """Returns the images and objects to train on: `drop_ignored`, then `data.empty_images`.

    Raises:
        BadInput: no image is left.
    """
    dataset = drop_ignored(dataset, config)
    if config.empty_images == "drop":
        dataset = select_images(dataset, dataset.boxes_per_image() > 0)
    if len(dataset) == 0:
        raise BadInput(f"empty data set: no image of {dataset.name} is left to train on (see data.empty_images, "
                       "data.train_on_crowd and data.train_on_difficult)")
    return dataset


def describe(dataset: Dataset) -> str:
    """Returns one line with the numbers of images, images without objects, objects and classes."""
    empty = int((dataset.boxes_per_image() == 0).sum())
    return (f"{dataset.name}: {count_of(len(dataset), 'image')} ({empty} without objects), "
            f"{count_of(len(dataset.boxes), 'object')}, {count_of(len(dataset.classes), 'class', 'classes')}")
