"""Augmentation: (image, boxes, generator) -> (image, boxes), each a pure function of its generator.

image: uint8 [3, H, W]; boxes: float32 [N, 4], see boxes.py. Boxes leave no image; `visible` then says which are left.
The resize to the short side is no transform: it happens on the device, see model/preprocessing.py.
"""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from detector.config.schema import Augment
from detector.structures import Resize, scale_and_size

FILL = 114           # grey of the canvas around a shrunk image
LEAST_VISIBLE = 0.2  # share of its area that a cropped object must keep to stay an object
LEAST_SIDE = 1.0     # pixels


def augment(image: Tensor, boxes: Tensor, config: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """All transforms that are on. Gives image, boxes of what is still visible, and the mask bool [N] of those."""
    before = boxes
    image, boxes = flip(image, boxes, config.hflip_prob, generator)
    image, boxes, shrunk = jitter(image, boxes, config.scale_jitter[0], config.scale_jitter[1], generator)
    image = photometric(image, config.color_jitter_prob, generator)
    mask = visible(boxes, area(before) * shrunk)
    return image, boxes[mask], mask


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def draw_short_side(short_sides: tuple[int, ...], generator: torch.Generator) -> int:
    """The short side of all images of one step, so that no rank has a larger canvas than the others."""
    return short_sides[int(torch.randint(len(short_sides), (), generator=generator))]


def reduction(height: int, width: int, config: Augment) -> int:
    """By how much a JPEG of this size may be reduced while it is decoded: 8, 4, 2 or 1.

    What is left is as large as the network sees it at the largest short side, or larger, also when jitter zooms into
    it; and without jitter the resize gives the same height and width at each short side.
    """
    sides = [Resize(short, config.max_size) for short in config.min_size] if config.reduced_jpegs else []
    zoom = max(1.0, *config.scale_jitter)
    for divisor in (8, 4, 2) if sides else ():
        small = -(-height // divisor), -(-width // divisor)
        if all(scale_and_size(*small, side)[0] * zoom <= 1 and scale_and_size(*small, side)[1] == scale_and_size(height, width, side)[1]
               for side in sides):
            return divisor
    return 1


def flip(image: Tensor, boxes: Tensor, probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Left and right change places, with this probability."""
    if uniform(0, 1, generator) >= probability:
        return image, boxes
    return mirror(image, boxes)


def mirror(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Left and right change places; twice is the identity."""
    width = image.shape[-1]
    mirrored = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    return F.horizontal_flip(image), mirrored


def jitter(image: Tensor, boxes: Tensor, low: float, high: float,
           generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Scale jitter (Ghiasi et al. 2021, "Simple Copy-Paste", 3.2): the zoom is uniform between low and high.

    Above 1: a crop of H / zoom x W / zoom pixels, which the resize on the device enlarges; the pixels of an object
    stay as many, so the third value, by which its area in pixels has changed, is 1. Below 1: the image is shrunk and
    lies on a grey canvas of its old size; the third value is what became of its area.
    """
    if low == high == 1:
        return image, boxes, 1.0
    zoom = uniform(low, high, generator)
    down, right = uniform(0, 1, generator), uniform(0, 1, generator)
    height, width = image.shape[-2:]
    if zoom >= 1:
        new_height, new_width = max(1, round(height / zoom)), max(1, round(width / zoom))
        top, left = round(down * (height - new_height)), round(right * (width - new_width))
        boxes = inside(boxes - boxes.new_tensor([left, top, left, top]), new_height, new_width)
        return image[:, top:top + new_height, left:left + new_width].contiguous(), boxes, 1.0
    new_height, new_width = (max(min(side, 2), round(side * zoom)) for side in (height, width))  # 1 x 1 cannot be made
    top, left = round(down * (height - new_height)), round(right * (width - new_width))
    canvas = torch.full_like(image, FILL)
    canvas[:, top:top + new_height, left:left + new_width] = F.resize(image, [new_height, new_width], antialias=True)
    scale = boxes.new_tensor([new_width / width, new_height / height] * 2)
    boxes = inside(boxes * scale + boxes.new_tensor([left, top, left, top]), height, width)
    return canvas, boxes, new_height * new_width / (height * width)


def photometric(image: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue, each with this probability (ranges of Liu et al. 2016, SSD, 2.2)."""
    if probability == 0:
        return image
    changes = ((F.adjust_brightness, 0.875, 1.125), (F.adjust_contrast, 0.5, 1.5), (F.adjust_saturation, 0.5, 1.5),
               (F.adjust_hue, -0.05, 0.05))
    for change, low, high in changes:
        chance, amount = uniform(0, 1, generator), uniform(low, high, generator)
        image = change(image, amount) if chance < probability else image
    return image


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """The part of each box inside an image of this size."""
    return torch.stack([boxes[:, 0].clamp(0, width), boxes[:, 1].clamp(0, height),
                        boxes[:, 2].clamp(0, width), boxes[:, 3].clamp(0, height)], 1)


def area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)


def visible(boxes: Tensor, whole: Tensor) -> Tensor:
    """bool [N]: which boxes have an area, and enough of the area they would have if nothing were cut off.

    A box that was thinner than LEAST_SIDE from the start and was not cut stays.
    """
    sides = torch.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    cut = area(boxes) < 0.999 * whole
    return (sides > 0) & ~(cut & ((area(boxes) < LEAST_VISIBLE * whole) | (sides < LEAST_SIDE)))
