"""Augmentation of training images. Every transform is a pure function of its arguments and its generator.

image: uint8 [3, H, W]; boxes: float32 [N, 4], pixels of that image. A transform keeps all N boxes, also those that it
moves out of the image; `augment` drops them at the end. The resize to `augment.min_size` happens on the device, see
model/preprocessing.py.
"""

import math
from typing import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from detector.config.schema import Augment
from detector.data.image_io import GREY
from detector.structures import Resize, ceil_div, flip_boxes, scale_and_size

MIN_VISIBLE_FRACTION = 0.2  # a cropped object is kept if at least this fraction of its area remains
MIN_VISIBLE_SIZE = 1.0      # and if both its sides are at least this long, pixels

# (image, boxes, options, generator) -> (image, boxes, area scale). The area scale is the factor by which the area of an
# object that is not cropped has changed, 1.0 for most transforms.
Transform = Callable[[Tensor, Tensor, Augment, torch.Generator], tuple[Tensor, Tensor, float]]


def hflip(image: Tensor, boxes: Tensor, config: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Flips left and right with probability `hflip_prob`."""
    if uniform(0, 1, generator) < config.hflip_prob:
        image, boxes = horizontal_flip(image, boxes)
    return image, boxes, 1.0


def vflip(image: Tensor, boxes: Tensor, config: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Flips top and bottom with probability `vflip_prob`."""
    if config.vflip_prob and uniform(0, 1, generator) < config.vflip_prob:
        image, boxes = F.vertical_flip(image), flip_boxes(boxes, image.shape[-2], 1)
    return image, boxes, 1.0


def transpose(image: Tensor, boxes: Tensor, config: Augment,
              generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Swaps rows and columns with probability `transpose_prob`; with the two flips, all quarter turns occur.

    Only images that are square: others would no longer fit their batch, which holds images of one aspect-ratio group.
    """
    is_square = image.shape[-2] == image.shape[-1]
    if config.transpose_prob and uniform(0, 1, generator) < config.transpose_prob and is_square:
        image, boxes = image.transpose(-1, -2).contiguous(), boxes[:, [1, 0, 3, 2]]
    return image, boxes, 1.0


def scale_jitter(image: Tensor, boxes: Tensor, config: Augment,
                 generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Zooms by a factor drawn from `scale_jitter`. (Ghiasi et al. 2021, "Simple Copy-Paste", section 3.2)

    A zoom of 1 or more crops H / zoom x W / zoom pixels at a random place, with probability `object_crop_prob` at one
    that holds a random object; the resize on the device enlarges the crop. A zoom below 1 shrinks the image and pastes
    it at a random place on a grey image of the old size.
    """
    smallest, largest = config.scale_jitter
    if smallest == largest == 1:
        return image, boxes, 1.0
    zoom = uniform(smallest, largest, generator)
    down, right = uniform(0, 1, generator), uniform(0, 1, generator)
    height, width = image.shape[-2:]
    if zoom >= 1:
        new_height, new_width = max(1, round(height / zoom)), max(1, round(width / zoom))
        lowest, highest = crop_range(image, boxes, (new_height, new_width), config, generator)
        top, left = (round(low + fraction * (high - low))
                     for fraction, low, high in zip((down, right), lowest, highest))
        boxes = clip_boxes(boxes - boxes.new_tensor([left, top, left, top]), new_height, new_width)
        return image[:, top:top + new_height, left:left + new_width].contiguous(), boxes, 1.0
    # F.resize cannot produce 1 x 1 pixels
    new_height, new_width = (max(min(length, 2), round(length * zoom)) for length in (height, width))
    top, left = round(down * (height - new_height)), round(right * (width - new_width))
    padded = torch.full_like(image, GREY)
    padded[:, top:top + new_height, left:left + new_width] = F.resize(image, [new_height, new_width], antialias=True)
    scale = boxes.new_tensor([new_width / width, new_height / height] * 2)
    boxes = clip_boxes(boxes * scale + boxes.new_tensor([left, top, left, top]), height, width)
    return padded, boxes, new_height * new_width / (height * width)


def crop_range(image: Tensor, boxes: Tensor, crop: tuple[int, int], config: Augment,
               generator: torch.Generator) -> tuple[list[float], list[float]]:
    """Returns the smallest and the largest (top, left) of a crop of (height, width), pixels.

    With probability `object_crop_prob`, the crop holds a random object; a side too short for that may lie anywhere.
    """
    lowest, highest = [0.0, 0.0], [float(whole - part) for whole, part in zip(image.shape[-2:], crop)]
    if config.object_crop_prob and uniform(0, 1, generator) < config.object_crop_prob and len(boxes):
        x1, y1, x2, y2 = boxes[int(torch.randint(len(boxes), (), generator=generator))].tolist()
        for axis, (start, end) in enumerate(((y1, y2), (x1, x2))):
            low, high = max(0.0, math.ceil(end) - crop[axis]), min(float(math.floor(start)), highest[axis])
            if low <= high:
                lowest[axis], highest[axis] = low, high
    return lowest, highest


def color_jitter(image: Tensor, boxes: Tensor, config: Augment,
                 generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Changes brightness, contrast, saturation and hue, each with probability `color_jitter_prob`.

    The ranges are those of SSD (Liu et al. 2016, section 2.2).
    """
    if config.color_jitter_prob == 0:
        return image, boxes, 1.0
    changes = ((F.adjust_brightness, 0.875, 1.125), (F.adjust_contrast, 0.5, 1.5), (F.adjust_saturation, 0.5, 1.5),
               (F.adjust_hue, -0.05, 0.05))
    for change, low, high in changes:
        draw, amount = uniform(0, 1, generator), uniform(low, high, generator)
        image = change(image, amount) if draw < config.color_jitter_prob else image
    return image, boxes, 1.0


# In the order in which they are applied. To add one: TRANSFORMS["invert"] = my_function, before the data is loaded.
TRANSFORMS: dict[str, Transform] = {
    "hflip": hflip, "vflip": vflip, "transpose": transpose, "scale_jitter": scale_jitter, "color_jitter": color_jitter}


def augment(image: Tensor, boxes: Tensor, config: Augment, generator: torch.Generator,
            transforms: dict[str, Transform] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Applies all transforms and drops the boxes that are no longer visible.

    Args:
        transforms: by name; default: TRANSFORMS.

    Returns:
        image: uint8 [3, H', W'].
        boxes: float32 [M, 4], those that are still visible.
        mask: bool [N], which boxes are still visible.
    """
    areas, area_scale = box_areas(boxes), 1.0
    for transform in (TRANSFORMS if transforms is None else transforms).values():
        image, boxes, scale = transform(image, boxes, config, generator)
        area_scale *= scale
    mask = visible_mask(boxes, areas * area_scale)
    return image, boxes[mask], mask


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def jpeg_divisor(height: int, width: int, config: Augment) -> int:
    """Returns by how much a JPEG of this size may be reduced while it is decoded: 8, 4, 2 or 1.

    The reduced image is at least as large as the resized one for every `min_size`, also after the largest scale
    jitter, and the resize gives the same height and width as from the full image.
    """
    if not config.reduced_jpegs:
        return 1
    resizes = [Resize(min_size, config.max_size) for min_size in config.min_size]
    zoom = max(1.0, *config.scale_jitter)
    for divisor in (8, 4, 2) if resizes else ():
        reduced = ceil_div(height, divisor), ceil_div(width, divisor)
        if all(scale_and_size(*reduced, resize)[0] * zoom <= 1
               and scale_and_size(*reduced, resize)[1] == scale_and_size(height, width, resize)[1]
               for resize in resizes):
            return divisor
    return 1


def horizontal_flip(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Flips left and right; applied twice, the result equals the input."""
    return F.horizontal_flip(image), flip_boxes(boxes, image.shape[-1], 0)


def clip_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Returns the part of each box inside an image of this size."""
    return torch.stack([boxes[:, 0].clamp(0, width), boxes[:, 1].clamp(0, height),
                        boxes[:, 2].clamp(0, width), boxes[:, 3].clamp(0, height)], 1)


def box_areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)


def visible_mask(boxes: Tensor, full_areas: Tensor) -> Tensor:
    """Returns which boxes have an area and, if cropped, keep enough of it: bool [N].

    A box that was thinner than MIN_VISIBLE_SIZE before augmentation and was not cropped is kept.

    Args:
        full_areas: float32 [N], the area that each box would have without cropping.
    """
    shorter = torch.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    areas = box_areas(boxes)
    cropped = areas < 0.999 * full_areas
    return (shorter > 0) & ~(cropped & ((areas < MIN_VISIBLE_FRACTION * full_areas) | (shorter < MIN_VISIBLE_SIZE)))
