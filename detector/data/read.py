"""Any layout -> Dataset: read once, cached, checked, with one list of classes for training and validation."""

import itertools
import os
from dataclasses import replace

import numpy as np

from detector.config.schema import Data
from detector.data.cache import cached
from detector.data.formats import shapes, voc
from detector.distributed.collectives import run_on_local_main_first
from detector.errors import BadInput
from detector.structures import CROWD, DIFFICULT, Dataset, offsets_from_counts, select_boxes, select_images

THINNEST = 0.1      # pixels; corners closer than this may become equal when mirrored or scaled in float32
OUTSIDE = 1.0       # pixels that a box may reach out of its image without being faulty: rounding, not a mistake


def read_datasets(config: Data) -> tuple[Dataset, Dataset | None]:
    """Training and validation images, with the same classes; no validation where `data.val` is empty. Collective."""
    train = read_splits(config, config.train)
    classes = resolve_classes(config, train)
    return (relabel(train, classes, strict=False),
            read_val(config, classes) if config.val else None)


def read_val(config: Data, classes: tuple[str, ...]) -> Dataset:
    """Validation images, labelled by the classes that a model knows. Collective."""
    if not config.val:
        raise BadInput("data.val=[]: there is nothing to evaluate on; name a split, such as data.val=val")
    return relabel(read_splits(config, config.val), classes, strict=not config.classes)


def read_splits(config: Data, splits: tuple[str, ...]) -> Dataset:
    """Several splits as one, with faulty boxes mended. One process of each machine reads and caches, the others take
    its cache. Raises BadInput for a folder that is not there and for an empty data set."""
    root = os.path.expanduser(config.root or ("data/shapes" if config.format == "shapes" else ""))

    def read() -> Dataset:
        if config.format == "shapes":
            shapes.draw_once(root)
        if not os.path.isdir(root):
            raise BadInput(f"no such folder: data.root={root}. Set data.root to the folder of the data set")
        dataset = join([cached(config, root, split) for split in splits])
        if len(dataset) == 0:
            raise BadInput(f"empty data set: {dataset.name} below {dataset.root} lists no image")
        return fix_invalid_boxes(dataset, config.invalid_boxes)
    return run_on_local_main_first(read)


def join(parts: list[Dataset]) -> Dataset:
    """Several splits as one, such as VOC 07+12; classes are matched by name."""
    if len(parts) == 1:
        return parts[0]
    classes = list(dict.fromkeys(name for part in parts for name in part.classes))
    parts = [relabel(part, tuple(classes), strict=True) for part in parts]
    ids = np.concatenate([part.image_ids for part in parts])
    if len(np.unique(ids)) < len(ids):  # each split counted from 1
        ids = np.arange(1, len(ids) + 1)
    both = {name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("paths", "sizes", "boxes", "labels", "flags", "areas")}
    return replace(parts[0], name=" + ".join(part.name for part in parts), image_ids=ids,
                   category_ids=np.arange(1, len(classes) + 1) if len({p.category_ids.tobytes() for p in parts}) > 1
                   else parts[0].category_ids, warnings=sum((part.warnings for part in parts), ()),
                   offsets=offsets_from_counts(np.concatenate([part.boxes_per_image() for part in parts])), **both)


def resolve_classes(config: Data, train: Dataset) -> tuple[str, ...]:
    """What `data.classes` asks for; else all that the training annotations know."""
    if not config.classes:
        if not train.classes:
            raise BadInput(f"{train.name} below {train.root} has no object of any class; nothing can be learned")
        return train.classes
    classes = voc.CLASSES if config.classes == ("voc",) else config.classes
    strangers = [name for name in classes if name not in train.classes] if config.classes != ("voc",) else []
    if strangers:
        raise BadInput(f"unknown class {', '.join(strangers)} in data.classes: {train.name} has "
                       + ", ".join(train.classes[:100]))
    return tuple(classes)


def relabel(dataset: Dataset, classes: tuple[str, ...], strict: bool) -> Dataset:
    """The same objects, labelled by the position of their class in `classes`.

    Objects of other classes are left out and counted; `strict` makes them an error.
    """
    if dataset.classes == classes:
        return dataset
    table = np.array([0] + [classes.index(name) + 1 if name in classes else 0 for name in dataset.classes])
    labels = table[dataset.labels].astype(np.int32)
    strangers = sorted({dataset.classes[label - 1] for label in np.unique(dataset.labels[labels == 0])})
    if strangers and strict:
        raise BadInput(f"unknown class {', '.join(strangers)} in {dataset.name}: training knows "
                       f"{', '.join(classes[:100])}. Mend the annotations, or choose with data.classes=[...]")
    faults = (f"{int((labels == 0).sum())} objects of other classes were left out: {', '.join(strangers)}",)
    ids = dict(zip(dataset.classes, dataset.category_ids))
    free = itertools.count(int(max(dataset.category_ids, default=0)) + 1)  # for classes that this file does not know
    category_ids = np.array([ids[name] if name in ids else next(free) for name in classes], np.int64)
    kept = select_boxes(replace(dataset, labels=labels), labels > 0)
    return replace(kept, classes=classes, category_ids=category_ids,
                   warnings=dataset.warnings + (faults if strangers else ()))


def fix_invalid_boxes(dataset: Dataset, policy: str) -> Dataset:
    """Boxes outside their image or without area, by the policy of `data.invalid_boxes`; each kind is counted."""
    sizes = dataset.sizes[dataset.image_of_box()].astype(np.float32)
    edges = np.stack([np.zeros_like(sizes[:, 0]), np.zeros_like(sizes[:, 0]), sizes[:, 1], sizes[:, 0]], axis=1)
    inside = np.minimum(np.maximum(dataset.boxes, 0), edges[:, [2, 3, 2, 3]])
    finite = np.isfinite(dataset.boxes).all(axis=1)
    outside = finite & (np.abs(dataset.boxes - inside).max(axis=1, initial=0) > OUTSIDE)
    fixed = np.where(outside[:, None], inside, dataset.boxes)
    thin = ~finite | (np.minimum(inside[:, 2] - inside[:, 0], inside[:, 3] - inside[:, 1]) < THINNEST)
    faulty = outside | thin
    if not faulty.any():
        return dataset
    if policy == "refuse":
        raise BadInput(f"{int(faulty.sum())} faulty boxes in {dataset.name} (data.invalid_boxes=refuse); first: "
                       + _example(dataset, faulty) + ". Mend them, or set data.invalid_boxes=clip or drop")
    drop = thin if policy == "clip" else faulty
    cut = outside & ~drop
    faults = tuple(f"{int(mask.sum())} {what}; first: {_example(dataset, mask)}" for mask, what in
                   [(cut, "boxes reach outside their image and were cut to it"),
                    (outside & drop & ~thin, "boxes reach outside their image and were left out"),
                    (thin, "boxes without area inside their image were left out")] if mask.any())
    return replace(select_boxes(replace(dataset, boxes=fixed), ~drop), warnings=dataset.warnings + faults)


def _example(dataset: Dataset, mask: np.ndarray) -> str:
    row = int(np.flatnonzero(mask)[0])
    image = int(dataset.image_of_box()[row])
    height, width = dataset.sizes[image]
    corners = ", ".join(f"{value:g}" for value in dataset.boxes[row])
    return f"[{corners}] ({dataset.classes[dataset.labels[row] - 1]}) in {dataset.path(image)}, {width}x{height} pixels"


def drop_ignored(dataset: Dataset, config: Data) -> Dataset:
    """The same images, with the objects that a loss is computed on."""
    left_out = (0 if config.train_on_crowd else CROWD) | (0 if config.train_on_difficult else DIFFICULT)
    return select_boxes(dataset, (dataset.flags & left_out) == 0)


def select_for_training(dataset: Dataset, config: Data) -> Dataset:
    """What is learned from: without crowd regions and difficult objects, unless the config wants them."""
    dataset = drop_ignored(dataset, config)
    if config.empty_images == "drop":
        dataset = select_images(dataset, dataset.boxes_per_image() > 0)
    if len(dataset) == 0:
        raise BadInput(f"empty data set: no image of {dataset.name} is left to train on "
                       "(data.empty_images, data.train_on_crowd and data.train_on_difficult decide)")
    return dataset


def describe(dataset: Dataset) -> str:
    """One line: images, objects, classes, and how many images have no object."""
    bare = int((dataset.boxes_per_image() == 0).sum())
    return (f"{dataset.name}: {len(dataset)} images ({bare} without objects), {len(dataset.boxes)} objects, "
            f"{len(dataset.classes)} classes")
