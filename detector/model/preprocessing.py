"""Preprocessing on the device: uint8 images of any size become one normalised, resized and padded batch."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.models.detection.image_list import ImageList

from detector.model.precision import numbers_to_device
from detector.structures import SIZE_DIVISOR, Resize, round_up, scale_and_size

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's RGB pixels in 0 ... 1, as torchvision's weights expect them
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PixelFormat:
    """The pixel values that weights were trained with: (pixel - mean) / std, of pixels in 0 ... 255."""

    bgr: bool                         # channels are blue, green, red
    mean: tuple[float, float, float]  # in the order of the channels
    std: tuple[float, float, float]


PIXEL_FORMATS = {
    "torchvision": PixelFormat(False, tuple(255 * v for v in MEAN), tuple(255 * v for v in STD)),
    "caffe": PixelFormat(True, (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0)),   # py-faster-rcnn
    "caffe_rgb": PixelFormat(False, (123.0, 117.0, 104.0), (1.0, 1.0, 1.0)),       # VGG16_Weights.IMAGENET1K_FEATURES
    "detectron2": PixelFormat(True, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))}   # MSRA weights, such as R-50.pkl


@dataclass(frozen=True)
class Preprocessing:
    """How images become the input of a model; the same for all its images."""

    pixel_format: PixelFormat = PIXEL_FORMATS["torchvision"]
    size_divisor: int = SIZE_DIVISOR
    channels_last: bool = False


def to_batch(images: list[Tensor], resize: Resize, preprocessing: Preprocessing,
             frames: list[tuple | None] | None = None, min_padded_size: tuple[int, int] = (0, 0)) -> ImageList:
    """Returns the images as one batch: normalised, resized, each in the upper left corner, zeros around it.

    Args:
        images: uint8 [3, H, W] each, RGB.
        frames: (top, left, height, width, framed height, framed width) of each image, or None: the part of the resized
            image that is used, and the size that counts as the image's, zeros included
            (py_faster_rcnn/static_chunks.py).
        min_padded_size: the batch is at least this high and wide.

    Returns:
        float32 [B, 3, H', W'] and the (height, width) of each image in it. H' and W' are the smallest multiples of
        size_divisor that hold all images.
    """
    resized, sizes = [], []
    for image, frame in zip(images, frames or [None] * len(images)):
        _, size = scale_and_size(*image.shape[-2:], resize)
        pixels = normalise(image, preprocessing.pixel_format)[None]
        image = interpolate(pixels, size=size, mode="bilinear", align_corners=False)[0]
        if frame is not None:
            top, left, height, width = frame[:4]
            image = image[:, top:top + height, left:left + width]
        resized.append(image)
        sizes.append(tuple(image.shape[-2:]) if frame is None else tuple(frame[4:]))
    height, width = (round_up(max(lengths), preprocessing.size_divisor) for lengths in zip(*sizes, min_padded_size))
    layout = torch.channels_last if preprocessing.channels_last else torch.contiguous_format
    batch = torch.empty((len(resized), 3, height, width), device=resized[0].device, memory_format=layout).zero_()
    for padded, image in zip(batch, resized):
        padded[:, :image.shape[-2], :image.shape[-1]] = image
    return ImageList(batch, sizes)


def normalise(image: Tensor, pixel_format: PixelFormat) -> Tensor:
    """Converts uint8 [..., 3, H, W], RGB, to float32 [..., 3, H, W] in the pixel format."""
    mean, std = (numbers_to_device(list(values), image)[:, None, None]
                 for values in (pixel_format.mean, pixel_format.std))
    return ((image.flip(-3) if pixel_format.bgr else image).float() - mean) / std
