"""The training batches of one rank."""

from contextlib import AbstractContextManager

import torch

from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.data.loader import BatchIterator, open_loader
from detector.data.samplers import TrainBatchSampler, epoch_sizes
from detector.py_faster_rcnn.static_chunks import Frames, chunk_ratios
from detector.structures import Dataset, Resize
from detector.training.schedule import Plan


def open_steps(data: Dataset, plan: Plan, config: Config, first_step: int,
               device: torch.device) -> AbstractContextManager[BatchIterator]:
    """This rank's micro-batches, from a step on to the end of the run."""
    sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
    examples = training_examples(data, plan, config)
    keys = TrainBatchSampler(config.seed, sizes, plan.global_batch, plan.micro, first_step, plan.total_steps,
                     plan.steps_per_epoch, config.batch.aspect_ratio_groups)
    return open_loader(examples, keys, config.run.num_workers, pin=device.type == "cuda", turns=len(plan.micro))


def training_examples(data: Dataset, plan: Plan, config: Config) -> DetectionDataset:
    """By their keys (epoch, index); in the frames of their chunks where the config wants that."""
    frames = None
    if config.batch.crop_to_group:
        frames = Frames(chunk_ratios(epoch_sizes(data.sizes, config.augment.mirrored_copies), plan.global_batch),
                        Resize(config.augment.min_size[0], config.augment.max_size))
    return DetectionDataset(data, config.seed, config.augment, frames)
