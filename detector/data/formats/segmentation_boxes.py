"""The box around a COCO segmentation, for annotations without a box: of polygons, or of a run-length encoded mask."""

import math
from collections.abc import Iterator

import numpy as np

MIN_POINTS = 2  # that span a box


def segmentation_box(segmentation: object) -> list[float] | None:
    """Returns the box [x, y, width, height] around a segmentation; None if it is empty or cannot be understood.

    Args:
        segmentation: lists of numbers x, y, x, y, ... nested in any way, or {"size": [height, width], "counts": ...}
            where counts are run lengths in a list or in COCO's compressed text.
    """
    try:
        return mask_box(segmentation) if isinstance(segmentation, dict) else polygon_box(segmentation)
    except (KeyError, TypeError, ValueError, OverflowError, IndexError, RecursionError):
        return None


def polygon_box(polygons: object) -> list[float] | None:
    numbers = list(flatten(polygons)) if isinstance(polygons, list) else []
    if len(numbers) < 2 * MIN_POINTS or len(numbers) % 2 or not all(map(math.isfinite, numbers)):
        return None
    left, top = min(numbers[::2]), min(numbers[1::2])
    return [left, top, max(numbers[::2]) - left, max(numbers[1::2]) - top]


def flatten(value: list | float) -> Iterator[float]:
    """Returns the numbers in nested lists, one after another. Raises TypeError or ValueError for anything else."""
    if not isinstance(value, list):
        yield float(value)
        return
    for item in value:
        yield from flatten(item)


def mask_box(mask: dict) -> list[float] | None:
    """Returns the box around the ones of a mask, as pycocotools' `mask.toBbox` does for masks with a one in them.

    Runs alternate between zeros and ones, column by column; the first run is of zeros.
    """
    height, width = (int(side) for side in mask["size"])
    counts = mask["counts"]
    runs = np.array(decompress(counts) if isinstance(counts, str) else counts, np.int64)
    if height < 1 or width < 1 or runs.ndim != 1 or (runs < 0).any() or runs.sum() > height * width:
        return None
    ends = np.cumsum(runs)
    first, last = (ends - runs)[1::2][runs[1::2] > 0], ends[1::2][runs[1::2] > 0] - 1  # of each run of ones
    if not len(first):
        return None
    left, right = int(first.min()) // height, int(last.max()) // height
    if (first // height < last // height).any():  # a run that goes on in the next column touches top and bottom
        top, bottom = 0, height - 1
    else:
        top, bottom = int((first % height).min()), int((last % height).max())
    return [float(left), float(top), float(right - left + 1), float(bottom - top + 1)]


def decompress(text: str) -> list[int]:
    """Returns the run lengths in a compressed text: pycocotools' `rleFrString` in maskApi.c.

    Each number has five bits in a character, the lowest first; a sixth bit says that more follow, and the last fifth
    bit is the sign. From the fourth number on, the text holds differences to the number before the last.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts
