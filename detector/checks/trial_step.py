"""One forward and backward pass of the largest canvas that a run contains, and how long the run will take."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from detector.checks.problems import CheckReport, Problem, problems_of
from detector.config.schema import Config
from detector.data.loader import collate
from detector.data.padding_buckets import plan_padding_buckets
from detector.data.samplers import epoch_sizes, micro_batches, plan_epoch
from detector.data.transforms import draw_short_side
from detector.errors import BadInput
from detector.model.faster_rcnn import build_model, placed
from detector.model.precision import autocast, to_device
from detector.model.weights.load import load_weights
from detector.py_faster_rcnn.static_chunks import chunk_ratios
from detector.run.environment import peak_memory_gib
from detector.seeding import derive_seed, generator, seed_torch
from detector.structures import Dataset, Resize, resized_sizes
from detector.training.checkpoint import TrainState, content_of
from detector.training.optimizer import build_optimizer
from detector.training.schedule import Plan
from detector.training.step import update_weights
from detector.training.train_loader import training_examples

EVALUATION_SHARE = 1 / 3  # of the time of a training pass that a forward pass alone takes


@dataclass(frozen=True)
class Canvas:
    """What one process holds at once, in one turn of one step."""

    step: int
    min_size: int                          # side that the step's images are resized to
    keys: tuple[tuple[int, int], ...]   # (epoch, index) of the images
    height: int
    width: int


def canvases(config: Config, data: Dataset, plan: Plan) -> tuple[Canvas, Canvas]:
    """Of all turns of the whole run: the one of the largest canvas, and one of the middle."""
    sizes, sides = epoch_sizes(data.sizes, config.augment.mirrored_copies), config.augment.min_size
    shapes = np.stack([shapes_at(config, sizes, plan.global_batch, short) for short in sides])
    by_side = plan_padding_buckets(config, sizes, plan.global_batch).by_side
    least = [by_side[short] for short in sides] if by_side else []
    cuts, multiple = micro_batches(plan.global_batch, config.batch.micro_batch_size, 0, 1), config.model.size_divisor
    drawn = np.array([sides.index(draw_short_side(sides, generator(derive_seed(config.seed, "side", step))))
                      for step in range(plan.total_steps)] if len(sides) > 1 else [0] * plan.total_steps)
    areas, places = [], []
    for epoch in range(-(-plan.total_steps // plan.steps_per_epoch)):
        rows = plan_epoch(config.seed, epoch, sizes, plan.global_batch, config.batch.aspect_ratio_groups)
        steps = np.arange(epoch * plan.steps_per_epoch, min((epoch + 1) * plan.steps_per_epoch, plan.total_steps))
        chosen = shapes[drawn[steps][:, None], rows[:len(steps)]]  # [steps, global_batch, 2]
        for columns in cuts:
            canvas = -(-chosen[:, columns].max(axis=1) // multiple) * multiple
            if least:
                grown = np.stack([table[rows[:len(steps), columns]].max(axis=1) for table in least])
                canvas = np.maximum(canvas, grown[drawn[steps], np.arange(len(steps))])
            areas.append(canvas.prod(axis=1) * len(columns))
            places += [(int(step), rows[row, columns], columns, canvas[row]) for row, step in enumerate(steps)]
    order = np.argsort(np.concatenate(areas), kind="stable")

    def canvas(place: int) -> Canvas:
        step, indices, _, (height, width) = places[place]
        keys = tuple((step // plan.steps_per_epoch, int(index)) for index in indices)
        return Canvas(step, sides[drawn[step]], keys, int(height), int(width))
    return canvas(order[-1]), canvas(order[len(order) // 2])


def shapes_at(config: Config, sizes: np.ndarray, global_batch: int, short: int) -> np.ndarray:
    """Height and width of each entry when it is resized: int64 [E, 2], as model/preprocessing.py does, or in its frame."""
    shapes = resized_sizes(sizes, Resize(short, config.augment.max_size))
    if not config.batch.crop_to_group:
        return shapes
    ratios, least = np.nan_to_num(chunk_ratios(sizes, global_batch), nan=1.0), shapes.min(axis=1)
    tall = np.stack([np.maximum(np.ceil(shapes[:, 1] / ratios), shapes[:, 0]), shapes[:, 1]], axis=1)
    wide = np.stack([shapes[:, 0], np.maximum(np.ceil(shapes[:, 0] * ratios), shapes[:, 1])], axis=1)
    square = np.stack([least, least], axis=1)
    return np.where((ratios == 1)[:, None], square, np.where((ratios < 1)[:, None], tall, wide)).astype(np.int64)


def build(config: Config, data: Dataset, device: torch.device, weights: bool, found: CheckReport) -> TrainState | None:
    """The state that a run starts with; None, and a problem, if its weights do not fit."""
    seed_torch(derive_seed(config.seed, "weights"))
    model = build_model(config.model, config.evaluate, len(data.classes))
    try:
        if weights:
            load_weights(model, config.model, data.classes)
    except BadInput as error:
        found.problems += problems_of(error, f"model.weights={config.model.weights}")
        return None
    model = placed(model, config.run.channels_last, device)
    average = build_model(config.model, config.evaluate, len(data.classes)).to(device) if config.optim.ema_decay else None
    scaler = torch.amp.GradScaler(device.type, enabled=config.run.precision == "fp16")
    return TrainState(model, build_optimizer(model, config.optim), scaler, average)


def checkpoint_bytes(state: TrainState) -> int:
    """What the tensors of a checkpoint take on disk."""
    def count(value) -> int:
        if isinstance(value, dict):
            return sum(map(count, value.values()))
        return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0
    return count(content_of(state, Config(), (), 1))


def try_steps(config: Config, data: Dataset, plan: Plan, state: TrainState, device: torch.device, processes: int,
              val_images: int, found: CheckReport) -> None:
    """Takes the largest canvas through a whole step, and then one of the middle, by which the run is estimated."""
    largest, middle = canvases(config, data, plan)
    count = len(largest.keys)
    found.facts["largest_canvas"] = {"step": largest.step, "images": count, "height": largest.height,
                                     "width": largest.width}
    try:
        one_turn(config, data, plan, state, device, largest)
        load_s, step_s = one_turn(config, data, plan, state, device, middle)
    except torch.OutOfMemoryError as error:
        found.problems.append(Problem(
            f"the largest canvas, {largest.width}x{largest.height} with {count} images at step {largest.step}",
            f"does not fit into the memory of {torch.cuda.get_device_name(device)} ({str(error).splitlines()[0]})",
            "Set batch.micro_batch_size=1 (gradients are accumulated), run.precision=bf16, or a smaller augment.max_size"))
        return
    found.facts["peak_memory_gib"] = round(peak_memory_gib(device), 3)
    turns = max(len(micro_batches(plan.global_batch, config.batch.micro_batch_size, rank, processes))
                for rank in range(processes))
    waits = load_s / config.run.num_workers if config.run.num_workers else step_s + load_s
    every = round(config.evaluate.every_epochs * plan.steps_per_epoch) or plan.total_steps
    evaluations = -(-plan.total_steps // every) if val_images else 0
    evaluation_s = val_images / len(middle.keys) * step_s * EVALUATION_SHARE / processes
    hours = (plan.total_steps * turns * max(step_s, waits) + evaluations * evaluation_s) / 3600
    found.facts["estimate"] = {"hours": round(hours, 2), "processes": processes, "step_s": round(turns * step_s, 3),
                               "load_s": round(load_s, 3), "evaluations": evaluations}


def one_turn(config: Config, data: Dataset, plan: Plan, state: TrainState, device: torch.device,
             canvas: Canvas) -> tuple[float, float]:
    """Loads the images of a canvas, and learns from them once: seconds for both."""
    examples = training_examples(data, plan, config)
    started_at = time.monotonic()
    images, targets = to_device(*collate([examples[key] for key in canvas.keys]), device)
    loaded_at = time.monotonic()
    state.model.train()
    with autocast(config.run.precision, device):
        side = Resize(canvas.min_size, config.augment.max_size)
        losses = state.model(images, targets, side, (canvas.height, canvas.width))
    state.scaler.scale(losses.sum()).backward()
    update_weights(state, config)
    float(losses.detach().sum())  # waits for the device
    return loaded_at - started_at, time.monotonic() - loaded_at
