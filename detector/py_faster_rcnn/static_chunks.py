"""Batches of the published tables: fixed chunks of the images sorted by aspect ratio, each cropped to one ratio.

Source: jwyang/faster-rcnn.pytorch, lib/roi_data_layer/roidb.py and roibatchLoader.py, and the sampler of
trainval_net.py. An aspect ratio is width / height, as in the original. E is the number of entries of an epoch: the
images, and their mirrored copies if augment.mirrored_copies is set.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detector.structures import Resize, scale_and_size

MIN_RATIO, MAX_RATIO = 0.5, 2.0  # images beyond these aspect ratios are cropped to them

# The crop window on the resized image (top, left, height, width), and the padded image's height and width; pixels.
Frame = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class CropFrames:
    """The aspect ratio that each entry is cropped and padded to, and the resize rule before cropping."""

    ratios: np.ndarray  # float64 [E], see chunk_ratios
    resize: Resize


def chunk_indices(sizes: np.ndarray, global_batch: int) -> np.ndarray:
    """Returns the entries of each chunk, from narrow to wide: int64 [E // global_batch, global_batch].

    The last, incomplete chunk (the widest entries) is left out.

    Args:
        sizes: int32 [E, 2], height and width.
    """
    order = np.argsort(aspect_ratios(sizes), kind="stable")
    return order[:len(order) // global_batch * global_batch].reshape(-1, global_batch)


def aspect_ratios(sizes: np.ndarray) -> np.ndarray:
    """Returns width / height of each entry, clipped to MIN_RATIO ... MAX_RATIO: float64 [E]."""
    return np.clip(sizes[:, 1] / np.maximum(sizes[:, 0], 1), MIN_RATIO, MAX_RATIO)


def chunk_ratios(sizes: np.ndarray, global_batch: int) -> np.ndarray:
    """Returns the aspect ratio that the chunk of each entry is cropped and padded to: float64 [E]; NaN: in no chunk.

    The ratio is the narrowest one of a chunk of portrait images, the widest one of a chunk of landscape images, and 1
    for a chunk with both, or with square images at its border.
    """
    entry_ratios, result = aspect_ratios(sizes), np.full(len(sizes), np.nan)
    for chunk in chunk_indices(sizes, global_batch):
        narrowest, widest = entry_ratios[chunk[0]], entry_ratios[chunk[-1]]
        result[chunk] = narrowest if widest < 1 else widest if narrowest > 1 else 1.0
    return result


def crop_to_frame(size: tuple[int, int], boxes: Tensor, ratio: float, resize: Resize,
                  generator: torch.Generator) -> tuple[Frame, Tensor, Tensor]:
    """Computes the crop window and the padded size of one image of its chunk, and crops its boxes.

    Box corners are inclusive while they are scaled and cropped, as in the original, which therefore drops boxes that
    are one pixel wide.

    Args:
        size: height and width of the image.
        boxes: float32 [N, 4].
        ratio: the aspect ratio of the chunk.

    Returns:
        frame: the crop window and the padded size, in pixels of the resized image.
        boxes: float32 [M, 4], those that remain, relative to the window's corner, in pixels of the image before the
            resize.
        mask: bool [N], which boxes remain.
    """
    _, (height, width) = scale_and_size(*size, resize)
    scale = torch.tensor([width / size[1], height / size[0]] * 2, dtype=torch.float64)
    to_exclusive = torch.tensor([0.0, 0, 1, 1], dtype=torch.float64)
    scaled = (boxes.double() - to_exclusive) * scale
    top = left = 0
    if not MIN_RATIO <= size[1] / size[0] <= MAX_RATIO:
        if ratio < 1:
            length = min(math.floor(width / ratio), height)
            top, height = draw_window_start(scaled[:, 1], scaled[:, 3], height, length, generator), length
            scaled[:, 1::2] = (scaled[:, 1::2] - top).clamp(0, length - 1)
        else:
            length = min(math.ceil(height * ratio), width)
            left, width = draw_window_start(scaled[:, 0], scaled[:, 2], width, length, generator), length
            scaled[:, 0::2] = (scaled[:, 0::2] - left).clamp(0, length - 1)
    if ratio == 1:
        height = width = min(height, width)
        scaled = scaled.clamp(0, width)
        padded = (height, width)
    elif ratio < 1:
        padded = (max(math.ceil(width / ratio), height), width)
    else:
        padded = (height, max(math.ceil(height * ratio), width))  # the padded image is never smaller than the crop
    mask = (scaled[:, 0] != scaled[:, 2]) & (scaled[:, 1] != scaled[:, 3])
    return (top, left, height, width, *padded), (scaled / scale + to_exclusive).float()[mask], mask


def draw_window_start(low: Tensor, high: Tensor, length: int, window: int, generator: torch.Generator) -> int:
    """Draws the first pixel of a crop window along one axis, so that the window holds all boxes if it can.

    Args:
        low, high: [N], first and last pixel of each box along the axis; without boxes the window starts at 0.
        length: pixels of the image along the axis.
        window: pixels of the window along the axis.
    """
    first = int(low.min()) if len(low) else 0
    if first <= 0:
        return 0
    last = int(high.max())
    region = last - first + 1
    if region < window:
        start, end = max(last - window, 0), min(first, length - window)
    else:
        start, end = first, first + (region - window) // 2
    drawn = int(torch.randint(start, end, (), generator=generator)) if end > start else start
    return min(drawn, length - window)
