"""The review of a run before its first step: annotations, object sizes at the network's input, length of the run."""

import numpy as np

from detector.config.schema import Config
from detector.data.read import drop_ignored
from detector.data.review import (
    Review,
    equal_images,
    note_shared,
    nothing_to_learn,
    review_classes,
    shared_paths,
)
from detector.model.anchors import build_anchors
from detector.structures import Dataset, Resize, ceil_div, resize_scales, round_up
from detector.training.schedule import RunPlan

MIN_OBJECT_SIZE = 8     # pixels of the network's input, two cells of the finest level of an FPN
MIN_ANCHOR_SIZE = 4     # pixels, of a proposed anchor
MIN_ANCHOR_RATIO = 1.5  # of two proposed anchors that follow each other in size
NOTED_FRACTION = 0.02   # of all objects: fewer small ones are not noted
MAX_MIN_SIZE = 2048     # pixels: a larger augment.min_size is not proposed
MIN_IMAGE_PASSES = 400  # 10 epochs of 40 images
MAX_COMPARED_FILES = 20_000  # of both data sets, that training compares by content when it starts; `check` compares all


def review_training(config: Config, train: Dataset, val: Dataset | None, plan: RunPlan) -> Review:
    """Returns the problems and notes of a run's data; reads no file, and is the same on all ranks.

    Args:
        config: without options that are `auto`.
        train: the training images with all of their objects (before `select_for_training`).
        val: the validation images, labelled by the same classes; None: no validation.
    """
    problems = nothing_to_learn(train, config.data)
    if problems:
        return Review(tuple(problems), ())
    shared = note_shared(train, val, shared_paths(train, val), "by path") if val else []
    return Review((), (*review_classes(train, val, config), *shared, *review_object_sizes(config, train),
                       *review_length(config, plan)))


def review_files(train: Dataset, val: Dataset | None) -> list[str]:
    """Returns a note on images that train and val share by content, for data sets of at most MAX_COMPARED_FILES images.

    Reads files, unlike `review_training`. Images that both name by path are left out: `review_training` notes them.
    """
    if val is None or len(train) + len(val) > MAX_COMPARED_FILES:
        return []
    return note_shared(train, val, equal_images(train, val), "by content")


def object_sizes(dataset: Dataset, resize: Resize) -> np.ndarray:
    """Returns the square root of each object's area after the resize, float64 [N], pixels."""
    sides = np.clip(dataset.boxes[:, 2:] - dataset.boxes[:, :2], 0, None).astype(np.float64)
    return np.sqrt(sides.prod(axis=1)) * resize_scales(dataset.sizes, resize)[dataset.image_of_box()]


def review_object_sizes(config: Config, train: Dataset) -> list[str]:
    """Returns notes on objects that are too small at the network's input, with remedies that suffice.

    An object's size is the square root of its area, as anchors are stated, at the largest of augment.min_size and
    enlarged by the largest zoom of augment.scale_jitter.
    """
    train = drop_ignored(train, config.data)
    resize = Resize(max(config.augment.min_size), config.augment.max_size)
    largest_zoom = max(1.0, *config.augment.scale_jitter)
    sizes = object_sizes(train, resize) * largest_zoom
    zoom = f" and enlarged {largest_zoom:g} times" if largest_zoom > 1 else ""
    smallest = min(map(min, build_anchors(config.model).sizes))
    if not len(sizes):
        return []
    notes = []
    for limit, is_anchor in ((MIN_OBJECT_SIZE, False), (smallest, True)):
        count = int((sizes < limit).sum())
        if count < NOTED_FRACTION * len(sizes) or not count:
            continue
        remedy = larger_input(config, train, limit / max(small_quantile(sizes), 1e-3))
        if is_anchor:
            remedy = f"Set smaller anchors, such as {smaller_anchors(config, sizes)}, or {remedy}"
        than = f"the smallest anchor, {limit:g} pixels" if is_anchor else f"{limit} pixels"
        notes.append(
            f"{train.name}: {count} of {len(sizes)} objects ({count / len(sizes):.0%}) are smaller than {than}, where "
            f"images are resized to augment.min_size={resize.min_size}{zoom} (square root of the area): they are hard "
            f"to detect. {remedy[0].upper()}{remedy[1:]}")
    return notes


def small_quantile(sizes: np.ndarray) -> float:
    """Returns a size that fewer than NOTED_FRACTION of all objects are below."""
    return float(np.quantile(sizes, NOTED_FRACTION, method="lower"))


def larger_input(config: Config, train: Dataset, factor: float) -> str:
    """Returns the remedy of resizing images to `factor` times the size, or of tiles where that is too large.

    Images are evaluated at as many times their present size, which with crops is not that of training.
    """
    augment, evaluate = config.augment, config.evaluate
    min_size = round_up(int(np.ceil(max(augment.min_size) * factor)), 32)
    if min_size > MAX_MIN_SIZE:
        return "cut the images into tiles"
    evaluate_size = round_up(int(np.ceil(evaluate.min_size * min_size / max(augment.min_size))), 32)
    options = [f"augment.min_size=[{min_size}]", f"evaluate.min_size={evaluate_size}"]
    aspect_ratio = float((train.sizes.max(axis=1) / train.sizes.min(axis=1)).max())
    for name, section, short_side in (("augment", augment, min_size), ("evaluate", evaluate, evaluate_size)):
        if 0 < section.max_size < short_side * aspect_ratio:
            options.append(f"{name}.max_size={round_up(int(np.ceil(short_side * aspect_ratio)), 32)}")
    return f"resize to more pixels, such as {' '.join(options)}"


def smaller_anchors(config: Config, sizes: np.ndarray) -> str:
    """Returns a setting of model.anchor_sizes that covers objects of all these sizes, in the form of the present one.

    The smallest anchor is about as large as the smallest objects; the ratios between neighbours are equal.
    """
    levels = build_anchors(config.model).sizes
    present = sorted({size for level in levels for size in level})
    low = max(MIN_ANCHOR_SIZE, int(small_quantile(sizes)))
    high = max(min(present[-1], float(sizes.max())), low * MIN_ANCHOR_RATIO ** (len(present) - 1))
    proposed = dict(zip(present, np.geomspace(low, high, len(present)).round().astype(int).tolist()))
    return "model.anchor_sizes=[" + ",".join(
        "[" + ",".join(str(proposed[size]) for size in level) + "]" for level in levels) + "]"


def review_length(config: Config, plan: RunPlan) -> list[str]:
    """Returns a note where the run is shorter than MIN_IMAGE_PASSES images, all epochs together."""
    passes = plan.total_steps * plan.global_batch
    if passes >= MIN_IMAGE_PASSES:
        return []
    steps = ceil_div(MIN_IMAGE_PASSES, plan.global_batch)
    remedy = f"schedule.steps={steps}" if config.schedule.steps else \
        f"schedule.epochs={ceil_div(steps, plan.steps_per_epoch)}"
    return [f"the run trains on {passes} images in all ({plan.total_steps} x {plan.global_batch}), too few "
            f"to learn much: 10 epochs of 40 images are {MIN_IMAGE_PASSES}. Set {remedy} or more"]
