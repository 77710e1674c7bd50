"""The common part of all layouts of annotation files that are written in place: methods, boxes, points.

One module a layout: voc_layout.py, yolo_layout.py, json_layout.py, coco_layout.py.
"""

import math
from collections.abc import Sequence
from typing import Protocol

Box = Sequence[float]  # x1, y1, x2, y2 in pixels
NO_BOX = (0.0, 0.0, 0.0, 0.0)  # of an object whose coordinates are nan or infinite: listed, and nothing of it drawn


class AnnotationFiles(Protocol):
    """The annotation files of a layout.

    paths: of all files. grid: the fraction of a pixel to which coordinates are rounded, at most 1.
    """

    paths: list[str]
    grid: float

    def texts(self, index: int) -> list[str] | None:
        """Returns each object of an image as it stands in the file; None: nobody has looked at the image yet."""

    def parse(self, index: int, text: str) -> tuple[str, Box]:
        """Returns class and box of an object. Raises ValueError."""

    def edit(self, index: int, text: str, name: str, box: Box) -> str:
        """Returns an object with this class and box; all else in it stays. An empty `text` is that of a new one."""

    def write(self, index: int, texts: list[str] | None) -> None:
        """Writes the objects of an image. Raises OSError; the file is then as it was."""


def rounded(box: Box) -> list[float]:
    """Returns a box as pages see it: to a hundredth of a pixel; NO_BOX for one that is not finite."""
    return [round(float(value), 2) for value in box] if all(map(math.isfinite, box)) else [*NO_BOX]


def fit_points(points: Sequence, old: Box, new: Box) -> list[list[float]]:
    """Returns points that move and grow with the box around them."""
    scale = [(new[axis + 2] - new[axis]) / max(old[axis + 2] - old[axis], 1e-9) for axis in (0, 1)]
    return [[new[axis] + (float(point[axis]) - old[axis]) * scale[axis] for axis in (0, 1)] for point in points]
