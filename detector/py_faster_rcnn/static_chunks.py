"""Batches as the published tables were trained with: static chunks of images sorted by aspect ratio.

jwyang/faster-rcnn.pytorch, lib/roi_data_layer/{roidb,roibatchLoader}.py and the sampler of trainval_net.py. A ratio is
width / height here, as it is there; E entries are the images of an epoch, with their mirrored copies if it has them.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detector.structures import Resize, scale_and_size

NARROWEST, WIDEST = 0.5, 2.0  # ratios beyond are trimmed to these

Frame = tuple[int, int, int, int, int, int]  # top, left, height, width on the resized image; canvas height and width


def chunks(sizes: np.ndarray, global_batch: int) -> np.ndarray:
    """The chunks of sizes [E, 2]: int64 [E // global_batch, global_batch], from narrow to wide.

    What is left over, the widest, is in none.
    """
    order = np.argsort(ratios(sizes), kind="stable")
    return order[:len(order) // global_batch * global_batch].reshape(-1, global_batch)


def ratios(sizes: np.ndarray) -> np.ndarray:
    """Width / height of each entry, float64 [E], within the limits."""
    return np.clip(sizes[:, 1] / np.maximum(sizes[:, 0], 1), NARROWEST, WIDEST)


def chunk_ratios(sizes: np.ndarray, global_batch: int) -> np.ndarray:
    """The ratio that the chunk of each entry is cut and padded to, float64 [E]; NaN for what is left over.

    The narrowest of a chunk of upright images, the widest of a landscape one, 1 where a chunk touches 1.
    """
    each, found = ratios(sizes), np.full(len(sizes), np.nan)
    for row in chunks(sizes, global_batch):
        first, last = each[row[0]], each[row[-1]]
        found[row] = first if last < 1 else last if first > 1 else 1.0
    return found


@dataclass(frozen=True)
class Frames:
    """What every entry is cut and padded to."""

    ratios: np.ndarray  # float64 [E], see chunk_ratios
    side: Resize


def framed(size: tuple[int, int], boxes: Tensor, ratio: float, side: Resize,
           generator: torch.Generator) -> tuple[Frame, Tensor, Tensor]:
    """One image of (height, width) and its boxes [N, 4] in the frame of its chunk.

    Gives the frame, in pixels of the resized image; the boxes that are left, in pixels of the image as it was, seen
    from the frame's corner; and the mask bool [N] of those. In between boxes end with their last pixel, as in the
    original, which so drops boxes one pixel wide.
    """
    _, (height, width) = scale_and_size(*size, side)
    scale = torch.tensor([width / size[1], height / size[0]] * 2, dtype=torch.float64)
    last = torch.tensor([0.0, 0, 1, 1], dtype=torch.float64)
    inner = (boxes.double() - last) * scale
    top = left = 0
    if not NARROWEST <= size[1] / size[0] <= WIDEST:
        if ratio < 1:
            trim = min(math.floor(width / ratio), height)
            top, height = start_of_window(inner[:, 1], inner[:, 3], height, trim, generator), trim
            inner[:, 1::2] = (inner[:, 1::2] - top).clamp(0, trim - 1)
        else:
            trim = min(math.ceil(height * ratio), width)
            left, width = start_of_window(inner[:, 0], inner[:, 2], width, trim, generator), trim
            inner[:, 0::2] = (inner[:, 0::2] - left).clamp(0, trim - 1)
    if ratio == 1:
        height = width = min(height, width)
        inner = inner.clamp(0, width)
        canvas = (height, width)
    elif ratio < 1:
        canvas = (max(math.ceil(width / ratio), height), width)
    else:
        canvas = (height, max(math.ceil(height * ratio), width))  # an image is never larger than its canvas
    mask = (inner[:, 0] != inner[:, 2]) & (inner[:, 1] != inner[:, 3])
    return (top, left, height, width, *canvas), (inner / scale + last).float()[mask], mask


def start_of_window(low: Tensor, high: Tensor, length: int, trim: int, generator: torch.Generator) -> int:
    """Where a window of `trim` pixels begins on a side of `length`: at random, so that it holds all boxes if it can.

    low and high [N] are the first and last pixels of the boxes on that side; no boxes, from the start.
    """
    first = int(low.min()) if len(low) else 0
    if first <= 0:
        return 0
    last = int(high.max())
    region = last - first + 1
    if region < trim:
        start, end = max(last - trim, 0), min(first, length - trim)
    else:
        start, end = first, first + (region - trim) // 2
    drawn = int(torch.randint(start, end, (), generator=generator)) if end > start else start
    return min(drawn, length - trim)
