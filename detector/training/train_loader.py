"""The training batches of one rank."""

from contextlib import AbstractContextManager

import torch

from detector.config.schema import Config
from detector.data.dataset import Examples
from detector.data.loader import Batches, open_batches
from detector.data.samplers import TrainKeys, epoch_sizes
from detector.py_faster_rcnn.static_chunks import Frames, chunk_ratios
from detector.structures import Dataset, Side
from detector.training.schedule import Plan


def open_steps(data: Dataset, plan: Plan, config: Config, first_step: int,
               device: torch.device) -> AbstractContextManager[Batches]:
    """This rank's micro-batches, from a step on to the end of the run."""
    sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
    examples = training_examples(data, plan, config)
    keys = TrainKeys(config.seed, sizes, plan.global_batch, plan.micro, first_step, plan.total_steps,
                     plan.steps_per_epoch, config.batch.groups)
    return open_batches(examples, keys, config.run.workers, pin=device.type == "cuda", turns=len(plan.micro))


def training_examples(data: Dataset, plan: Plan, config: Config) -> Examples:
    """By their keys (epoch, index); in the frames of their chunks where the config wants that."""
    frames = None
    if config.batch.frame == "chunk":
        frames = Frames(chunk_ratios(epoch_sizes(data.sizes, config.augment.mirrored_copies), plan.global_batch),
                        Side(config.augment.short_sides[0], config.augment.long_side))
    return Examples(data, config.seed, config.augment, frames)
