"""From uint8 images of any size to one normalised, resized and padded batch, on the device; and boxes back again."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.models.detection.image_list import ImageList

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's RGB pixels in 0 ... 1, as torchvision's weights expect them
STD = (0.229, 0.224, 0.225)
STRIDE = 32                   # canvases are multiples of this, so that every level of a pyramid has whole cells


@dataclass(frozen=True)
class Side:
    """How large the network sees an image: the short side in pixels, unless the long side would pass its cap."""

    short: int
    long: int


def resized(height: int, width: int, side: Side) -> tuple[float, tuple[int, int]]:
    """The scale, and the height and width in whole pixels that follow (cut off, as torchvision's detectors do)."""
    scale = min(side.short / min(height, width), side.long / max(height, width))
    return scale, (max(1, int(height * scale)), max(1, int(width * scale)))


def canvas_of(image: Tensor, side: Side) -> tuple[int, int]:
    """Height and width of the batch that an image [3, H, W] alone makes; images of one canvas add no padding."""
    _, (height, width) = resized(*image.shape[-2:], side)
    return -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE


def to_batch(images: list[Tensor], side: Side, channels_last: bool) -> ImageList:
    """uint8 [3, H, W] each -> float32 [B, 3, H', W'], H' and W' multiples of STRIDE, zeros below and on the right."""
    mean, std = (images[0].new_tensor(v, dtype=torch.float32)[:, None, None] for v in (MEAN, STD))
    ready = []
    for image in images:
        _, size = resized(*image.shape[-2:], side)
        image = (image.float() / 255 - mean) / std
        ready.append(interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0])
    height = -(-max(image.shape[-2] for image in ready) // STRIDE) * STRIDE
    width = -(-max(image.shape[-1] for image in ready) // STRIDE) * STRIDE
    layout = torch.channels_last if channels_last else torch.contiguous_format
    batch = torch.empty((len(ready), 3, height, width), device=ready[0].device, memory_format=layout).zero_()
    for canvas, image in zip(batch, ready):
        canvas[:, :image.shape[-2], :image.shape[-1]] = image
    return ImageList(batch, [tuple(image.shape[-2:]) for image in ready])


def scale_boxes(boxes: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Boxes [N, 4] of an image of one (height, width), in the pixels of its copy of another."""
    down, right = after[0] / before[0], after[1] / before[1]
    return boxes * boxes.new_tensor([right, down, right, down])


def scale_targets(targets: list[dict[str, Tensor]], images: list[Tensor], batch: ImageList) -> list[dict[str, Tensor]]:
    """Targets in the pixels of the batch."""
    return [{**target, "boxes": scale_boxes(target["boxes"], tuple(image.shape[-2:]), size)}
            for target, image, size in zip(targets, images, batch.image_sizes)]
