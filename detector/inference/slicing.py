"""Tiles of large images, and merging the detections of tiles and of the whole image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector.errors import BadInput
from detector.structures import area, ceil_div

MIN_TILE = 32      # pixels
MAX_OVERLAP = 0.9
EDGE = 0.01        # of a tile: a box that ends so near to an edge of its tile may be cut by it
MAX_COVERED = 0.5  # of a cut box by a box that is not cut; beyond, both are one object


@dataclass(frozen=True)
class Slicing:
    """The size of tiles in pixels, and how much of a tile the next one overlaps."""

    tile: int
    overlap: float = 0.2

    def __post_init__(self):
        if self.tile < MIN_TILE or not 0 <= self.overlap <= MAX_OVERLAP:
            raise BadInput(f"slice {self.tile}, overlap {self.overlap:g}: tiles need a side of {MIN_TILE} pixels or "
                           f"more, and an overlap from 0 to {MAX_OVERLAP:g} of it")


def search_tiles(detect: Callable[[list[Tensor]], Sequence], image: Tensor, slicing: Slicing,
                 nms_thresh: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns boxes [K, 4], scores [K] and labels [K] of an image, detected in its tiles and in the whole of it.

    Args:
        detect: returns the detections of each of a list of images: arrays `boxes`, `scores` and `labels`.
        image: uint8 [3, H, W].
    """
    height, width = image.shape[-2:]
    tiles = tile_boxes(height, width, slicing)
    crops = [image[:, y1:y2, x1:x2] for x1, y1, x2, y2 in tiles.tolist()]
    tiles = np.concatenate([tiles, [[0, 0, width, height]]])
    parts = detect([*crops, image])
    boxes = [part.boxes + np.tile(tile[:2], 2).astype(np.float32) for part, tile in zip(parts, tiles)]
    cut = [is_cut(of_tile, tile, height, width) for of_tile, tile in zip(boxes, tiles)]
    arrays = (np.concatenate(boxes), np.concatenate([part.scores for part in parts]),
              np.concatenate([part.labels for part in parts]))
    keep = merge(*arrays, np.concatenate(cut), nms_thresh)
    return arrays[0][keep], arrays[1][keep], arrays[2][keep]


def tile_boxes(height: int, width: int, slicing: Slicing) -> np.ndarray:
    """Returns x1, y1, x2, y2 of each tile of an image, int64 [T, 4]; none where the image is not larger than a tile.

    All tiles have one size. Neighbors overlap by at least the stated part, evenly.
    """
    if max(height, width) <= slicing.tile:
        return np.zeros((0, 4), np.int64)
    rows, columns = (tile_starts(length, slicing) for length in (height, width))
    sides = min(width, slicing.tile), min(height, slicing.tile)
    return np.array([(x, y, x + sides[0], y + sides[1]) for y in rows for x in columns], np.int64)


def tile_starts(length: int, slicing: Slicing) -> list[int]:
    """Returns the first pixel of each tile along one side of an image."""
    rest = max(0, length - slicing.tile)
    count = ceil_div(rest, max(1, int(slicing.tile * (1 - slicing.overlap)))) + 1
    return [round(rest * number / max(1, count - 1)) for number in range(count)]


def is_cut(boxes: np.ndarray, tile: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns bool [K]: whether a box ends at an edge of its tile that is inside the image.

    Args:
        boxes: float [K, 4], in pixels of the image.
        tile: x1, y1, x2, y2.
    """
    margin = EDGE * (tile[2:] - tile[:2]).max()
    starts = (boxes[:, :2] < tile[:2] + margin) & (tile[:2] > 0)
    ends = (boxes[:, 2:] > tile[2:] - margin) & (tile[2:] < (width, height))
    return (starts | ends).any(axis=1)


def merge(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, cut: np.ndarray, nms_thresh: float) -> np.ndarray:
    """Returns the rows of the detections that stay, best score first, int64.

    NMS drops all but the best detection of an object. A part of an object, which the edge of a tile has cut, overlaps
    the whole object too little for that; it is dropped where a box of its class that is not cut covers it.

    Args:
        boxes, scores, labels: float32 [K, 4], float32 [K] and int32 [K], of all tiles and of the whole image.
        cut: bool [K], see `is_cut`.
    """
    kept = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), nms_thresh).numpy()
    whole = kept[~cut[kept]]
    return np.array([row for row in kept if not cut[row] or not is_covered(
        boxes[row], boxes[whole[labels[whole] == labels[row]]])], np.int64)


def is_covered(box: np.ndarray, others: np.ndarray) -> bool:
    """Returns whether any of the boxes `others`, [K, 4], covers more than MAX_COVERED of a box."""
    shared = np.concatenate([np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])], axis=1)
    return bool((area(shared) > MAX_COVERED * area(box[None])).any())
