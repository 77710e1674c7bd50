"""Training images exactly as the network sees them: the first batches of a run, augmented, resized and padded."""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.models.detection.image_list import ImageList

from detector.config.schema import Config
from detector.data.padding_buckets import PaddingBuckets, plan_padding_buckets
from detector.data.samplers import epoch_sizes
from detector.data.transforms import draw_short_side
from detector.model.ground_truth import pad_ground_truth
from detector.model.preprocessing import PIXELS, Input, Pixels, to_batch
from detector.seeding import derive_seed, generator
from detector.structures import Dataset, Resize, scale_and_size
from detector.training.schedule import Plan, plan_run
from detector.training.train_loader import open_steps


@dataclass(frozen=True)
class Seen:
    """One image inside the canvas of its batch."""

    index: int                 # in the data set
    size: tuple[int, int]      # height and width of the image
    canvas: tuple[int, int]    # and of the canvas
    boxes: np.ndarray          # float32 [N, 4], pixels of the canvas
    labels: np.ndarray         # int64 [N]
    pixels: np.ndarray | None  # uint8 [H, W, 3] of the canvas, where they were asked for


def see_batches(config: Config, data: Dataset, images: int, with_pixels: int) -> list[list[Seen]]:
    """The first batches of training, until there are so many images; the first few come with pixels."""
    sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
    plan = plan_run(config.batch, config.optim, config.schedule, sizes, 0, 1)
    how = Input(PIXELS[config.model.pixel_format], config.model.size_divisor)
    canvases, found, count = plan_padding_buckets(config, sizes, plan.global_batch), [], 0
    with open_steps(data, plan, config, 0, torch.device("cpu")) as steps:
        for turn in range(plan.total_steps * len(plan.micro)):
            if count >= min(images, len(data)):
                break
            found.append(see_batch(*next(steps), side_of_turn(config, plan, turn), how, canvases, turn < with_pixels))
            count += len(found[-1])
    return found


def side_of_turn(config: Config, plan: Plan, turn: int) -> Resize:
    """How large the network sees the images of a micro-batch; all of one step alike, as in step.py."""
    chance = generator(derive_seed(config.seed, "side", turn // len(plan.micro)))
    return Resize(draw_short_side(config.augment.min_size, chance), config.augment.max_size)


def see_batch(images: list, targets: list, side: Resize, how: Input, canvases: PaddingBuckets, with_pixels: bool) -> list[Seen]:
    least = canvases.least(side, [int(target["index"]) for target in targets])
    batch = to_batch(images, side, how, [target.get("frame") for target in targets], least)
    sizes = [tuple(image.shape[-2:]) for image in images]
    truth = pad_ground_truth(targets, sizes, [scale_and_size(*size, side)[1] for size in sizes], extent=0)
    boxes = [one["boxes"].numpy() for one in truth.lists()]
    pixels = pixels_of(batch, how.pixels) if with_pixels else [None] * len(images)
    return [Seen(int(target["index"]), tuple(map(int, size)), tuple(batch.tensors.shape[-2:]), box,
                 target["labels"].numpy(), picture)
            for target, size, box, picture in zip(targets, batch.image_sizes, boxes, pixels)]


def pixels_of(batch: ImageList, how: Pixels) -> list[np.ndarray]:
    """The canvases as pictures again: uint8 [H, W, 3] each."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (how.mean, how.std))
    seen = [(canvas * std + mean).round().clamp(0, 255).to(torch.uint8) for canvas in batch.tensors]
    return [(canvas.flip(0) if how.bgr else canvas).permute(1, 2, 0).contiguous().numpy() for canvas in seen]


def padding(seen: list[Seen]) -> float:
    """The share of what the network sees that is padding."""
    inside = sum(one.size[0] * one.size[1] for one in seen)
    return 1 - inside / max(sum(one.canvas[0] * one.canvas[1] for one in seen), 1)
