"""From uint8 images of any size to one normalised, resized and padded batch, on the device; and boxes back again."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.models.detection.image_list import ImageList

from detector.model.box_coder import on_device
from detector.structures import SIZE_DIVISOR, Resize, scale_and_size

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's RGB pixels in 0 ... 1, as torchvision's weights expect them
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pixels:
    """What colours become before the network sees them: (colour - mean) / std, of colours in 0 ... 255."""

    bgr: bool
    mean: tuple[float, float, float]  # in the order of the network's channels
    std: tuple[float, float, float]


PIXELS = {"torchvision": Pixels(False, tuple(255 * v for v in MEAN), tuple(255 * v for v in STD)),
          "caffe": Pixels(True, (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0)),  # of py-faster-rcnn and its heirs
          "caffe_rgb": Pixels(False, (123.0, 117.0, 104.0), (1.0, 1.0, 1.0)),  # torchvision's copy of Caffe's VGG16
          "detectron2": Pixels(True, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))}  # its MSRA weights, R-50.pkl


@dataclass(frozen=True)
class Input:
    """How pixels reach the network; the same for all images of a model."""

    pixels: Pixels = PIXELS["torchvision"]
    multiple: int = SIZE_DIVISOR
    channels_last: bool = False


def to_batch(images: list[Tensor], side: Resize, how: Input, frames: list[tuple | None] | None = None,
             least: tuple[int, int] = (0, 0)) -> ImageList:
    """uint8 [3, H, W] each -> float32 [B, 3, H', W'], sides multiples of how.multiple, zeros below and on the right.

    H' and W' are what the images need, but no less than `least`.

    A frame (top, left, height, width, canvas height, canvas width; see py_faster_rcnn/static_chunks.py) says which part of the resized
    image is taken, and how large it counts with the zeros around it.
    """
    ready, sizes = [], []
    for image, frame in zip(images, frames or [None] * len(images)):
        _, size = scale_and_size(*image.shape[-2:], side)
        image = interpolate(normalised(image, how.pixels)[None], size=size, mode="bilinear", align_corners=False)[0]
        if frame is not None:
            top, left, height, width = frame[:4]
            image = image[:, top:top + height, left:left + width]
        ready.append(image)
        sizes.append(tuple(image.shape[-2:]) if frame is None else tuple(frame[4:]))
    height, width = (-(-max(lengths) // how.multiple) * how.multiple for lengths in zip(*sizes, least))
    layout = torch.channels_last if how.channels_last else torch.contiguous_format
    batch = torch.empty((len(ready), 3, height, width), device=ready[0].device, memory_format=layout).zero_()
    for canvas, image in zip(batch, ready):
        canvas[:, :image.shape[-2], :image.shape[-1]] = image
    return ImageList(batch, sizes)


def normalised(image: Tensor, pixels: Pixels) -> Tensor:
    """uint8 [3, H, W], RGB -> float32 [3, H, W] in the order and the range that the weights expect."""
    mean, std = (on_device(list(v), image)[:, None, None] for v in (pixels.mean, pixels.std))
    return ((image.flip(0) if pixels.bgr else image).float() - mean) / std
