"""The first batches of a run as the model receives them: augmented, resized and padded."""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.models.detection.image_list import ImageList

from detector.config.schema import Config
from detector.data.dataset import unreadable_messages
from detector.data.padding_buckets import PaddingBuckets, plan_padding_buckets
from detector.data.samplers import epoch_sizes
from detector.model.ground_truth import pad_ground_truth
from detector.model.preprocessing import PIXEL_FORMATS, PixelFormat, Preprocessing, to_batch
from detector.structures import Dataset, Resize, scale_and_size
from detector.training.schedule import plan_run_on
from detector.training.step import draw_resize
from detector.training.train_loader import open_train_loader


@dataclass(frozen=True)
class TrainInput:
    """One image of a padded batch."""

    index: int                     # in the data set
    size: tuple[int, int]          # height and width of the resized image
    padded_size: tuple[int, int]   # height and width of the batch
    boxes: np.ndarray              # float32 [N, 4], pixels of the batch
    labels: np.ndarray             # int64 [N]
    pixels: np.ndarray | None      # uint8 [H, W, 3] with the padding; None if not asked for
    error: str = ""                # why the image could not be read; it is grey then


def first_train_batches(config: Config, data: Dataset, num_images: int, with_pixels: int) -> list[list[TrainInput]]:
    """Returns the first micro-batches of training on one process.

    Args:
        num_images: batches are loaded until they hold this many images, or as many as the data set has.
        with_pixels: how many batches come with pixels.
    """
    sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
    plan = plan_run_on(data, config, 0, 1)
    preprocessing = Preprocessing(PIXEL_FORMATS[config.model.pixel_format], config.model.size_divisor)
    buckets, batches, count = plan_padding_buckets(config, sizes, plan.global_batch), [], 0
    with open_train_loader(data, plan, config, 0, torch.device("cpu")) as loader:
        for number in range(plan.total_steps * len(plan.micro_batches)):
            if count >= min(num_images, len(data)):
                break
            images, targets = next(loader)
            resize = draw_resize(config, number // len(plan.micro_batches))
            batches.append(pad_batch(images, targets, resize, preprocessing, buckets, number < with_pixels))
            count += len(batches[-1])
    return batches


def pad_batch(images: list, targets: list, resize: Resize, preprocessing: Preprocessing, buckets: PaddingBuckets,
              with_pixels: bool) -> list[TrainInput]:
    """Resizes and pads one micro-batch as the model does."""
    min_padded_size = buckets.min_padded_size(resize, [int(target["index"]) for target in targets])
    frames = [target.get("frame") for target in targets]
    batch = to_batch(images, resize, preprocessing, frames, min_padded_size)
    sizes = [tuple(image.shape[-2:]) for image in images]
    ground_truth = pad_ground_truth(targets, sizes, [scale_and_size(*size, resize)[1] for size in sizes])
    boxes = [objects["boxes"].numpy() for objects in ground_truth.per_image()]
    pixels = to_pixels(batch, preprocessing.pixel_format) if with_pixels else [None] * len(images)
    return [TrainInput(int(target["index"]), tuple(map(int, size)), tuple(batch.tensors.shape[-2:]), image_boxes,
                       target["labels"].numpy(), image_pixels, "".join(unreadable_messages([target])))
            for target, size, image_boxes, image_pixels in zip(targets, batch.image_sizes, boxes, pixels)]


def to_pixels(batch: ImageList, pixel_format: PixelFormat) -> list[np.ndarray]:
    """Converts the normalized, padded images of a batch back to uint8 [H, W, 3], RGB."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (pixel_format.mean, pixel_format.std))
    pixels = [(image * std + mean).round().clamp(0, 255).to(torch.uint8) for image in batch.tensors]
    return [(image.flip(0) if pixel_format.bgr else image).permute(1, 2, 0).contiguous().numpy() for image in pixels]


def padding_fraction(inputs: list[TrainInput]) -> float:
    """Returns the fraction of all pixels that is padding; 1 without images."""
    image_pixels = sum(entry.size[0] * entry.size[1] for entry in inputs)
    return 1 - image_pixels / max(sum(entry.padded_size[0] * entry.padded_size[1] for entry in inputs), 1)
