"""The images of a report: which of them, their JPEGs within a budget of bytes, and their boxes as packed columns.

S images are shown, in the order in which they are looked at; K' of the detections and N' of the objects are theirs.
"""

import base64
from dataclasses import dataclass, field

import numpy as np

from detector.metrics.analysis import Analysis
from detector.metrics.matching import image_of
from detector.structures import Dataset, Detections
from detector.visualization.thumbnails import thumbnail

# Together they keep the page of a large data set below 30 MB: JPEGs 18, detections 4.9, objects 2.8, names 1 or 2.
ALL_BYTES = 18_000_000  # of JPEGs, as base64
LARGE = (560, 78)       # pixels of the long side, and quality
# Small ones: long side, quality, and the bytes that one took on average of 40 photographs of COCO, rounded up.
SMALL = ((224, 60, 8200), (160, 50, 4400), (112, 40, 2300), (80, 35, 1500))
MOSTLY = 0.8            # of all bytes, what small ones may take where not all can be large
IMAGES, DETECTIONS, OBJECTS = 20_000, 280_000, 160_000
FULL = 65535  # corners are stored as shares of the image's sides, scores as shares of 1


@dataclass
class JpegBudget:
    """JPEGs as base64: the first ones large, the others small, so that as many of `images` as can be have one."""

    images: int
    spent: int = 0
    large: int = 0
    small: int = 0
    jpegs: list[str] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return self.spent >= ALL_BYTES

    def add(self, pixels: np.ndarray | None) -> None:
        """uint8 [H, W, 3]; None where there is no picture."""
        if pixels is None or self.full:
            self.jpegs.append("")
            return
        side, quality, each = next((size for size in SMALL if size[2] * self.images <= MOSTLY * ALL_BYTES), SMALL[-1])
        left = max(self.images - len(self.jpegs), 1)
        large = thumbnail(pixels, *LARGE) if self.small == 0 else ""
        fits = large and self.spent + len(large) + (left - 1) * each <= ALL_BYTES
        self.jpegs.append(large if fits else thumbnail(pixels, side, quality))
        self.spent += len(self.jpegs[-1])
        self.large, self.small = self.large + bool(fits), self.small + (not fits)


def chosen(dataset: Dataset, weight: np.ndarray | None) -> np.ndarray:
    """int64 [S]: indices of the images to show, those with the most `weight` of errors (float [I]) first; without
    weights in the order of the data."""
    order = np.arange(len(dataset)) if weight is None else np.argsort(-weight, kind="stable")
    room = np.cumsum(dataset.boxes_per_image()[order]) <= OBJECTS
    return order[:IMAGES][room[:IMAGES]]


def least_score(scores: np.ndarray) -> float:
    """The score from which on detections are shown: 0, unless there are too many."""
    if len(scores) <= DETECTIONS:
        return 0.0
    ordered = np.sort(scores)
    above = ordered[ordered > ordered[-DETECTIONS - 1]]  # all of an equal score, or none of them
    return float(above[0]) if len(above) else float(ordered[-1])


def columns(dataset: Dataset, detections: Detections, analysis: Analysis | None,
            order: np.ndarray) -> tuple[dict, float]:
    """What found.js unpacks, image by image as in `order`, the best detections first; and the least score of them."""
    place = np.full(len(dataset), len(order), np.int64)
    place[order] = np.arange(len(order))
    image = image_of(detections, dataset) if len(detections) else np.zeros(0, np.int64)
    shown = place[image] < len(order)
    least = least_score(detections.scores[shown])
    rows = np.flatnonzero(shown & (detections.scores >= least))
    rows = rows[np.lexsort((-detections.scores[rows], place[image[rows]]))]
    counts = np.bincount(place[image[rows]], minlength=len(order))
    owner = dataset.image_of_box()
    objects = np.flatnonzero(place[owner] < len(order))
    objects = objects[np.argsort(place[owner[objects]], kind="stable")]
    number = np.full(len(detections) + 1, -1, np.int64)  # of a detection within its image; the last row: none
    number[rows] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    finders = number[analysis.object_detection[objects]] if analysis else np.full(len(objects), -1)
    sizes = dataset.sizes[order]
    return {
        "heights": packed(sizes[:, 0], np.uint32), "widths": packed(sizes[:, 1], np.uint32),
        "detections": packed(counts, np.uint32), "objects": packed(dataset.boxes_per_image()[order], np.uint32),
        "found": {"boxes": shares(detections.boxes[rows], dataset.sizes[image[rows]]),
                  "scores": packed(np.round(detections.scores[rows] * FULL), np.uint16),
                  "labels": packed(detections.labels[rows], np.uint16),
                  "errors": packed(analysis.detection_error[rows], np.uint8) if analysis else ""},
        "truth": {"boxes": shares(dataset.boxes[objects], dataset.sizes[owner[objects]]),
                  "labels": packed(dataset.labels[objects], np.uint16),
                  "flags": packed(dataset.flags[objects], np.uint8), "finders": packed(finders, np.int16)},
    }, least


def shares(boxes: np.ndarray, sizes: np.ndarray) -> str:
    """boxes: float32 [M, 4]; sizes: int [M, 2], height and width. Corners as uint16, shares of the image's sides."""
    sides = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    return packed(np.round(np.clip(boxes / np.maximum(sides, 1), 0, 1) * FULL), np.uint16)


def packed(values: np.ndarray, kind: type) -> str:
    """The bytes of an array, little-endian, as base64."""
    return base64.b64encode(np.ascontiguousarray(values).astype(np.dtype(kind).newbyteorder("<")).tobytes()).decode()
