"""The options that are `auto`, and their values for the images that a run trains on."""

import math
from collections.abc import Callable
from operator import attrgetter

import numpy as np

from detector.config.options import auto_options, replace_options
from detector.config.schema import Config
from detector.data.samplers import epoch_sizes, steps_per_epoch
from detector.structures import Dataset, round_up

MIN_SIZES = (320, 800)   # pixels, bounds of augment.min_size
OBJECT_SIZE = 48         # pixels: nine of ten objects are at least as large, by the square root of their area
SIZE_STEP = 32           # pixels: augment.min_size is a multiple of this
# Below this many images -> batch.size and schedule.epochs.
LENGTHS = ((200, 2, 20.0), (1000, 4, 20.0), (5000, 8, 16.0), (math.inf, 16, 12.0))
MIN_STEPS = 300          # of a run on few images
MILESTONES = (2 / 3, 11 / 12)  # of the run
EVALUATIONS = 12         # in a run, about
KEPT = ("batch.size", "augment.min_size", "evaluate.min_size")  # by a run that is resumed


def resolve_auto(config: Config, train: Dataset, world_size: int, stored: Config | None = None) -> tuple[Config, str]:
    """Returns the config without `auto`, and one line that states the values; "" where nothing was `auto`.

    Args:
        train: the images and objects to train on.
        stored: the config of the checkpoint that the run resumes from: the batch and the sizes of the network's input
            stay as the run began with them. None: a new run.
    """
    paths = auto_options(config)
    for path, rule in RULES.items():  # in the order in which they depend on each other
        if path in paths:
            value = attrgetter(path)(stored) if stored and path in KEPT else rule(config, train, world_size)
            config = replace_options(config, {path: value})
    values = [f"{path}={_format(attrgetter(path)(config))}" for path in paths]
    return config, f"auto, for {len(train)} training images: {', '.join(values)}" if values else ""


def choose_batch_size(_config: Config, train: Dataset, world_size: int) -> int:
    """Returns 2 to 16 images by the size of the data set, and at least one for each process."""
    return max(_length(len(train))[0], world_size)


def choose_min_size(_config: Config, train: Dataset, _world_size: int) -> tuple[int]:
    """Returns the short side at which nine of ten objects have OBJECT_SIZE pixels, within MIN_SIZES.

    Small objects need a large network input; with large objects a smaller one is as good, and much faster.
    """
    low, high = MIN_SIZES
    if not len(train.boxes):
        return (high,)
    sides = (train.boxes[:, 2:] - train.boxes[:, :2]).clip(1)
    short_sides = train.sizes.min(axis=1)[train.image_of_box()]
    fraction = float(np.percentile(np.sqrt(sides.prod(axis=1)) / short_sides, 10))
    return (int(np.clip(round_up(math.ceil(OBJECT_SIZE / fraction), SIZE_STEP), low, high)),)


def choose_epochs(config: Config, train: Dataset, world_size: int) -> float:
    """Returns the epochs of schedule.steps if they are set; else 12 to 30, and more where those are under MIN_STEPS."""
    steps = _steps_per_epoch(config, train, world_size)
    if config.schedule.steps:
        return config.schedule.steps / steps
    return max(_length(len(train))[1], math.ceil(MIN_STEPS / steps))


def choose_milestones(config: Config, train: Dataset, world_size: int) -> tuple[float, ...]:
    """Returns two epochs by the length of the run: 8 and 11 of 12."""
    schedule = config.schedule
    epochs = schedule.steps / _steps_per_epoch(config, train, world_size) if schedule.steps else schedule.epochs
    return tuple(round(fraction * epochs, 3) for fraction in MILESTONES)


def choose_every_epochs(config: Config, _train: Dataset, _world_size: int) -> float:
    """Returns the epochs between two evaluations: whole ones, at least one."""
    return max(1.0, round(config.schedule.epochs / EVALUATIONS))


# Path of an option -> its value, from the config with all earlier ones resolved, the images and the world size.
RULES: dict[str, Callable[[Config, Dataset, int], object]] = {
    "batch.size": choose_batch_size,
    "augment.min_size": choose_min_size,
    "evaluate.min_size": lambda config, _train, _world_size: sorted(config.augment.min_size)[
        len(config.augment.min_size) // 2],
    "schedule.epochs": choose_epochs,
    "schedule.milestones": choose_milestones,
    "evaluate.every_epochs": choose_every_epochs,
}


def _length(images: int) -> tuple[int, float]:
    """Returns batch size and epochs for a number of images."""
    return next((batch_size, epochs) for limit, batch_size, epochs in LENGTHS if images < limit)


def _steps_per_epoch(config: Config, train: Dataset, world_size: int) -> int:
    size = config.batch.size or config.batch.micro_batch_size * world_size
    return max(1, steps_per_epoch(epoch_sizes(train.sizes, config.augment.mirrored_copies), size,
                                  config.batch.aspect_ratio_groups))


def _format(value) -> str:
    return "[" + ", ".join(f"{item:g}" for item in value) + "]" if isinstance(value, tuple) else f"{value:g}"
