"""The training batches of one rank."""

from contextlib import AbstractContextManager

import torch

from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.data.loader import BatchIterator, open_loader
from detector.data.samplers import TrainBatchSampler, epoch_sizes
from detector.py_faster_rcnn.static_chunks import CropFrames, chunk_ratios
from detector.structures import Dataset, Resize
from detector.training.schedule import RunPlan


def open_train_loader(data: Dataset, plan: RunPlan, config: Config, first_step: int,
                      device: torch.device) -> AbstractContextManager[BatchIterator]:
    """Opens the loader of this rank's micro-batches, from `first_step` to the end of the run."""
    sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
    sampler = TrainBatchSampler(config.seed, sizes, plan.global_batch, plan.micro_batches, first_step, plan.total_steps,
                                plan.steps_per_epoch, config.batch.aspect_ratio_groups, plan.repeat_factors)
    return open_loader(training_dataset(data, plan, config), sampler, config.run.num_workers,
                       device.type == "cuda", len(plan.micro_batches))


def training_dataset(data: Dataset, plan: RunPlan, config: Config) -> DetectionDataset:
    """Returns the augmented training examples by key (epoch, index)."""
    frames = None
    if config.batch.crop_to_group:
        sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
        frames = CropFrames(chunk_ratios(sizes, plan.global_batch),
                            Resize(config.augment.min_size[0], config.augment.max_size))
    return DetectionDataset(data, config.seed, config.augment, frames)
