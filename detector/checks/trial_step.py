"""The trial step: a training pass over the largest padded micro-batch of the run, and an estimate of its duration."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from detector.checks.problems import CheckReport, Problem, problems_from_error
from detector.config.schema import Config
from detector.data.loader import collate
from detector.data.padding_buckets import plan_padding_buckets
from detector.data.samplers import epoch_sizes, micro_batches, plan_epoch
from detector.data.transforms import draw_min_size
from detector.errors import BadInput
from detector.model.faster_rcnn import build_model, to_device_and_layout
from detector.model.precision import autocast, to_device
from detector.model.weights.load import load_weights
from detector.py_faster_rcnn.static_chunks import chunk_ratios
from detector.run.environment import peak_memory_gib
from detector.seeding import derive_seed, generator, seed_torch
from detector.structures import Dataset, Resize, ceil_div, resized_sizes, round_up
from detector.training.checkpoint import TrainState, checkpoint_content
from detector.training.optimizer import build_optimizer
from detector.training.schedule import RunPlan
from detector.training.step import update_weights
from detector.training.train_loader import training_dataset

FORWARD_FRACTION = 1 / 3  # of the time of a training pass: its forward pass


@dataclass(frozen=True)
class PaddedBatch:
    """One micro-batch of one step."""

    step: int
    min_size: int                      # short side that the images of this step are resized to
    keys: tuple[tuple[int, int], ...]  # (epoch, index) of the images
    height: int                        # of the padded images
    width: int


def largest_and_median_batch(config: Config, data: Dataset, plan: RunPlan) -> tuple[PaddedBatch, PaddedBatch]:
    """Returns the largest and the median of all micro-batches of the run, by the pixels of their padded images."""
    sizes, min_sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies), config.augment.min_size
    resized = np.stack([train_sizes(config, sizes, plan.global_batch, min_size) for min_size in min_sizes])
    by_min_size = plan_padding_buckets(config, sizes, plan.global_batch).by_min_size
    buckets = np.stack([by_min_size[min_size] for min_size in min_sizes]) if by_min_size else None
    drawn = draw_min_sizes(config, plan)
    areas, batches = [], []
    for epoch in range(ceil_div(plan.total_steps, plan.steps_per_epoch)):
        steps = np.arange(epoch * plan.steps_per_epoch, min((epoch + 1) * plan.steps_per_epoch, plan.total_steps))
        rows = plan_epoch(config.seed, epoch, sizes, plan.global_batch, config.batch.aspect_ratio_groups)[:len(steps)]
        scale = drawn[steps][:, None]  # [steps, 1]
        for columns in micro_batches(plan.global_batch, config.batch.micro_batch_size, 0, 1):
            indices = rows[:, columns]  # [steps, micro-batch size]
            padded = round_up(resized[scale, indices].max(axis=1), config.model.size_divisor)  # [steps, 2]
            if buckets is not None:
                padded = np.maximum(padded, buckets[scale, indices].max(axis=1))
            areas.append(padded.prod(axis=1) * len(columns))
            batches += [(int(step), indices[row], padded[row]) for row, step in enumerate(steps)]
    order = np.argsort(np.concatenate(areas), kind="stable")

    def padded_batch(number: int) -> PaddedBatch:
        step, indices, (height, width) = batches[number]
        keys = tuple((step // plan.steps_per_epoch, int(index)) for index in indices)
        return PaddedBatch(step, min_sizes[drawn[step]], keys, int(height), int(width))
    return padded_batch(order[-1]), padded_batch(order[len(order) // 2])


def draw_min_sizes(config: Config, plan: RunPlan) -> np.ndarray:
    """Returns the position in augment.min_size that each step draws, int64 [steps]."""
    min_sizes = config.augment.min_size
    if len(min_sizes) == 1:
        return np.zeros(plan.total_steps, np.int64)
    return np.array([min_sizes.index(draw_min_size(min_sizes, generator(derive_seed(config.seed, "side", step))))
                     for step in range(plan.total_steps)], np.int64)


def train_sizes(config: Config, sizes: np.ndarray, global_batch: int, min_size: int) -> np.ndarray:
    """Returns (height, width) of each resized image, int64 [E, 2]; with batch.crop_to_group that of its crop frame."""
    resized = resized_sizes(sizes, Resize(min_size, config.augment.max_size))
    if not config.batch.crop_to_group:
        return resized
    ratios, short = np.nan_to_num(chunk_ratios(sizes, global_batch), nan=1.0), resized.min(axis=1)
    tall = np.stack([np.maximum(np.ceil(resized[:, 1] / ratios), resized[:, 0]), resized[:, 1]], axis=1)
    wide = np.stack([resized[:, 0], np.maximum(np.ceil(resized[:, 0] * ratios), resized[:, 1])], axis=1)
    square = np.stack([short, short], axis=1)
    return np.where((ratios == 1)[:, None], square, np.where((ratios < 1)[:, None], tall, wide)).astype(np.int64)


def build_initial_state(config: Config, data: Dataset, device: torch.device, weights: bool,
                        report: CheckReport) -> TrainState | None:
    """Returns the state that the run starts from; None, and a problem, where model.weights do not fit the model.

    Args:
        weights: load model.weights; False: random weights.
    """
    seed_torch(derive_seed(config.seed, "weights"))
    model = build_model(config.model, config.evaluate, len(data.classes))
    try:
        if weights:
            load_weights(model, config.model, data.classes)
    except BadInput as error:
        report.problems += problems_from_error(error, f"model.weights={config.model.weights}")
        return None
    model = to_device_and_layout(model, config.run.channels_last, device)
    ema_model = None
    if config.optim.ema_decay:
        ema_model = build_model(config.model, config.evaluate, len(data.classes)).to(device)
    scaler = torch.amp.GradScaler(device.type, enabled=config.run.precision == "fp16")
    return TrainState(model, build_optimizer(model, config.optim), scaler, ema_model)


def checkpoint_bytes(state: TrainState) -> int:
    """Returns the bytes of all tensors of a checkpoint."""
    def count(value) -> int:
        if isinstance(value, dict):
            return sum(map(count, value.values()))
        return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0
    return count(checkpoint_content(state, Config(), (), 1))


def run_trial_steps(config: Config, data: Dataset, plan: RunPlan, state: TrainState, device: torch.device,
                    processes: int, val_images: int, report: CheckReport) -> None:
    """Trains on the largest micro-batch to check the memory, then on the median one to estimate the run's duration."""
    largest, median = largest_and_median_batch(config, data, plan)
    report.facts["largest_padded_batch"] = {"step": largest.step, "images": len(largest.keys), "height": largest.height,
                                      "width": largest.width}
    try:
        run_micro_batch(config, data, plan, state, device, largest)
        load_s, train_s = run_micro_batch(config, data, plan, state, device, median)
    except torch.OutOfMemoryError as error:
        report.problems.append(Problem(
            f"the largest padded batch, {len(largest.keys)} images of {largest.width}x{largest.height} pixels at step "
            f"{largest.step}",
            f"does not fit into the memory of {torch.cuda.get_device_name(device)} ({str(error).splitlines()[0]})",
            "Set batch.micro_batch_size=1 (gradients are accumulated), run.precision=bf16 or a smaller "
            "augment.max_size"))
        return
    report.facts["peak_memory_gib"] = round(peak_memory_gib(device), 3)
    report.facts["estimate"] = estimate_duration(config, plan, processes, val_images, len(median.keys), load_s, train_s)


def estimate_duration(config: Config, plan: RunPlan, processes: int, val_images: int, images: int, load_s: float,
                      train_s: float) -> dict:
    """Returns the estimated hours of the run, and what they are computed from.

    Args:
        images: of the measured micro-batch, which took `load_s` seconds to load and `train_s` to train on.
    """
    forward_passes = max(len(micro_batches(plan.global_batch, config.batch.micro_batch_size, rank, processes))
                         for rank in range(processes))
    data_s = load_s / config.run.num_workers if config.run.num_workers else train_s + load_s
    evaluation_interval = round(config.evaluate.every_epochs * plan.steps_per_epoch) or plan.total_steps
    evaluations = ceil_div(plan.total_steps, evaluation_interval) if val_images else 0
    evaluation_s = val_images / images * train_s * FORWARD_FRACTION / processes
    step_with_loading_s = forward_passes * max(train_s, data_s)
    hours = (plan.total_steps * step_with_loading_s + evaluations * evaluation_s) / 3600
    return {"hours": round(hours, 2), "processes": processes, "step_s": round(forward_passes * train_s, 3),
            "step_with_loading_s": round(step_with_loading_s, 3), "load_s": round(load_s, 3),
            "evaluations": evaluations}


def run_micro_batch(config: Config, data: Dataset, plan: RunPlan, state: TrainState, device: torch.device,
                    batch: PaddedBatch) -> tuple[float, float]:
    """Trains on one micro-batch; returns the seconds to load it and the seconds to train on it."""
    examples = training_dataset(data, plan, config)
    started_at = time.monotonic()
    images, targets = to_device(*collate([examples[key] for key in batch.keys]), device)
    loaded_at = time.monotonic()
    state.model.train()
    with autocast(config.run.precision, device):
        resize = Resize(batch.min_size, config.augment.max_size)
        losses = state.model(images, targets, resize, (batch.height, batch.width))
    total = torch.stack(list(losses.values())).sum()
    state.scaler.scale(total).backward()
    update_weights(state, config)
    float(total.detach())  # waits for the device
    return loaded_at - started_at, time.monotonic() - loaded_at
