"""The options that are `auto`, and their values for the images that a run trains on."""

import math
from collections.abc import Callable
from operator import attrgetter

import numpy as np
import torch

from detector.config.fields import AUTO_TEXT
from detector.config.options import auto_options, replace_options
from detector.config.schema import Config
from detector.data.repeat_factors import repeat_factors
from detector.data.samplers import epoch_sizes, steps_per_epoch
from detector.distributed.collectives import all_gather_texts
from detector.errors import BadInput
from detector.run.environment import fast_precision
from detector.structures import Dataset, ceil_div, round_up
from detector.training.optimizer import find_optimizer

MIN_SIZES = (320, 800)   # pixels, bounds of augment.min_size
OBJECT_SIZE = 48         # pixels: nine of ten objects are at least as large, by the square root of their area
SIZE_STEP = 32           # pixels: augment.min_size is a multiple of this
# (images below which the row counts, batch.size, schedule.epochs)
BATCH_SIZES_AND_EPOCHS = ((200, 2, 15.0), (1000, 4, 15.0), (5000, 8, 12.0), (math.inf, 16, 12.0))
MIN_STEPS = 200          # of a run on few images
SMALL_BATCH = 4          # images; batches of so few train at twice the linearly scaled learning rate
MILESTONES = (2 / 3, 11 / 12)  # of the run
EVALUATIONS = 6          # in a run, about
MEASURED = "batch.micro_batch_size"  # by trial steps, when all other values are known
Measure = Callable[[Config], tuple[int, str]]
FOLLOW_LENGTH = ("schedule.milestones", "evaluate.every_epochs")  # anew where a resumed run states another length


def resolve_auto(config: Config, train: Dataset, world_size: int, stored: Config | None = None,
                 measure: Measure | None = None) -> tuple[Config, str]:
    """Returns the config without `auto`, and one line that states the values; "" where nothing was `auto`.

    Args:
        train: the images and objects to train on.
        stored: the config of the checkpoint that the run resumes from, whose values stay; None: a new run.
        measure: config with all other values -> the value of batch.micro_batch_size, and a remark on it. None: the
            largest value that could be measured is taken, and the line does not state it.
    """
    paths = [path for path in auto_options(config) if path != "run.precision"]  # see resolve_precision
    for path, rule in RULES.items():  # in the order in which they depend on each other
        if path in paths:
            is_kept = stored and (path not in FOLLOW_LENGTH or _stated_length(config) == _stated_length(stored))
            is_kept = is_kept and not (path == "schedule.epochs" and config.schedule.steps)
            config = replace_options(config, {
                path: attrgetter(path)(stored) if is_kept else rule(config, train, world_size)})
    remark = ""
    if MEASURED in paths:
        size = ceil_div(config.batch.size, world_size)
        if stored:
            size = stored.batch.micro_batch_size
        elif measure:
            size, remark = measure(config)
        else:
            paths.remove(MEASURED)
        config = replace_options(config, {MEASURED: size})
    values = [f"{path}={_format(attrgetter(path)(config))}" for path in paths
              if path != "schedule.milestones" or config.schedule.lr_schedule == "milestones"]
    line = f"auto, for {len(train)} training images: {', '.join(values)}" if values else ""
    return config, f"{line}; {remark}" if remark else line


def resolve_precision(config: Config, device: torch.device, stored: Config | None = None) -> Config:
    """Returns the config without run.precision=auto: bf16 where the devices of all ranks have instructions for it.

    Collective where it is auto.

    Args:
        stored: the config of the checkpoint that the run resumes from, whose precision stays; None: a new run.
    """
    if config.run.precision != AUTO_TEXT:
        return config
    if stored:
        return replace_options(config, {"run.precision": stored.run.precision})
    precisions = all_gather_texts([fast_precision(device)])
    return replace_options(config, {"run.precision": "fp32" if "fp32" in precisions else "bf16"})


def choose_batch_size(_config: Config, train: Dataset, world_size: int) -> int:
    """Returns 2 to 16 images by the size of the data set, and at least one for each process."""
    return max(_batch_size_and_epochs(len(train))[0], world_size)


def choose_lr(config: Config, _train: Dataset, world_size: int) -> float:
    """Returns the optimizer's learning rate for optim.reference_batch_size images, doubled for small batches.

    Runs with small batches have few steps and need a higher learning rate to converge.

    Raises:
        BadInput: the optimizer's entry states no learning rate.
    """
    size, lr = _batch_size(config, world_size), find_optimizer(config.optim.optimizer).lr_of_16
    if lr is None:
        raise BadInput(f"optim.lr=auto: the entry {config.optim.optimizer} of OPTIMIZERS states no learning rate. Set "
                       "optim.lr")
    return lr / 16 * config.optim.reference_batch_size * (2 if size <= SMALL_BATCH else 1)


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
    """Returns the epochs of schedule.steps if they are set; else 12 or 15, and more where those are under MIN_STEPS."""
    steps = _steps_per_epoch(config, train, world_size)
    if config.schedule.steps:
        return config.schedule.steps / steps
    return max(_batch_size_and_epochs(len(train))[1], math.ceil(MIN_STEPS / steps))


def choose_milestones(config: Config, train: Dataset, world_size: int) -> tuple[float, ...]:
    """Returns two epochs by the length of the run: 8 and 11 of 12."""
    schedule = config.schedule
    epochs = schedule.steps / _steps_per_epoch(config, train, world_size) if schedule.steps else schedule.epochs
    return tuple(round(fraction * epochs, 3) for fraction in MILESTONES)


def choose_every_epochs(config: Config, _train: Dataset, _world_size: int) -> float:
    """Returns the epochs between two evaluations: whole ones, at least one."""
    return max(1.0, math.ceil(config.schedule.epochs / EVALUATIONS))


# Path of an option -> its value, from the config with all earlier ones resolved, the images and the world size.
RULES: dict[str, Callable[[Config, Dataset, int], object]] = {
    "batch.size": choose_batch_size,
    "optim.lr": choose_lr,
    "augment.min_size": choose_min_size,
    "evaluate.min_size": lambda config, _train, _world_size: sorted(config.augment.min_size)[
        len(config.augment.min_size) // 2],
    "schedule.epochs": choose_epochs,
    "schedule.milestones": choose_milestones,
    "evaluate.every_epochs": choose_every_epochs,
}


def _stated_length(config: Config) -> tuple[int, float]:
    return config.schedule.steps, config.schedule.epochs


def _batch_size_and_epochs(images: int) -> tuple[int, float]:
    """Returns batch size and epochs for a number of images."""
    return next((batch_size, epochs) for limit, batch_size, epochs in BATCH_SIZES_AND_EPOCHS if images < limit)


def _steps_per_epoch(config: Config, train: Dataset, world_size: int) -> int:
    return max(1, steps_per_epoch(epoch_sizes(train.sizes, config.augment.mirrored_copies),
                                  _batch_size(config, world_size), config.batch.aspect_ratio_groups,
                                  repeat_factors(train, config)))


def _batch_size(config: Config, world_size: int) -> int:
    return config.batch.size or config.batch.micro_batch_size * world_size


def _format(value) -> str:
    return "[" + ", ".join(f"{item:g}" for item in value) + "]" if isinstance(value, tuple) else f"{value:g}"
