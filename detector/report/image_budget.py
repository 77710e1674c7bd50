"""The images of a report: which images are shown, their JPEGs within a byte budget, and their boxes as packed columns.

Shapes: S images are shown, in the order of the report; I images, K detections and N objects in total.
"""

import base64
from dataclasses import dataclass, field

import numpy as np

from detector.metrics.analysis import Analysis
from detector.metrics.matching import image_indices
from detector.structures import Dataset, Detections
from detector.visualization.thumbnails import encode_thumbnail

# These limits keep the page of a large data set below 30 MB: 18 MB of JPEGs, 4.9 of detections, 2.8 of objects, 1 or 2
# of names.
MAX_JPEG_BYTES = 18_000_000  # as base64
LARGE_JPEG = (560, 78)       # pixels of the long side, JPEG quality
# (pixels of the long side, JPEG quality, mean bytes over 40 photographs of COCO, rounded up), largest first.
SMALL_JPEGS = ((224, 60, 8200), (160, 50, 4400), (112, 40, 2300), (80, 35, 1500))
SMALL_FRACTION = 0.8         # of MAX_JPEG_BYTES, for small JPEGs, if not all images can be large
MAX_IMAGES, MAX_DETECTIONS, MAX_OBJECTS = 20_000, 280_000, 160_000
UINT16_MAX = 65535           # corners are stored as fractions of the image size, and scores, times this


@dataclass
class JpegBudget:
    """Encodes images as base64 JPEGs: the first ones large, the later ones small, so that as many as possible fit."""

    num_images: int  # how many images will be added; only a plan, more or fewer are allowed
    used_bytes: int = 0
    num_large: int = 0
    num_small: int = 0
    jpegs: list[str] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return self.used_bytes >= MAX_JPEG_BYTES

    def add(self, pixels: np.ndarray | None) -> None:
        """Appends the JPEG of an image, uint8 [H, W, 3], to `jpegs`; "" for None, or if the budget is used up."""
        if pixels is None or self.is_full:
            self.jpegs.append("")
            return
        long_side, quality, mean_bytes = next(
            (size for size in SMALL_JPEGS if size[2] * self.num_images <= SMALL_FRACTION * MAX_JPEG_BYTES),
            SMALL_JPEGS[-1])
        remaining = max(self.num_images - len(self.jpegs), 1)
        large = encode_thumbnail(pixels, *LARGE_JPEG) if self.num_small == 0 else ""
        fits = large and self.used_bytes + len(large) + (remaining - 1) * mean_bytes <= MAX_JPEG_BYTES
        self.jpegs.append(large if fits else encode_thumbnail(pixels, long_side, quality))
        self.used_bytes += len(self.jpegs[-1])
        if fits:
            self.num_large += 1
        else:
            self.num_small += 1


def select_images_to_show(dataset: Dataset, weight: np.ndarray | None) -> np.ndarray:
    """Returns the indices of the images to show, int64 [S].

    Args:
        weight: float [I], of each image: the sum of the scores of its false positives, plus 1 for each missed object
            (Analysis.image_weight); higher ones come first. None: the order of the data.
    """
    order = np.arange(len(dataset)) if weight is None else np.argsort(-weight, kind="stable")
    fits = np.cumsum(dataset.boxes_per_image()[order]) <= MAX_OBJECTS
    return order[:MAX_IMAGES][fits[:MAX_IMAGES]]


def min_score_shown(scores: np.ndarray) -> float:
    """Returns the score threshold that leaves at most MAX_DETECTIONS detections; 0 if there are no more than that.

    Detections of equal score are shown or left out as one, except if they all have the highest score.
    """
    if len(scores) <= MAX_DETECTIONS:
        return 0.0
    ordered = np.sort(scores)
    above = ordered[ordered > ordered[-MAX_DETECTIONS - 1]]
    return float(above[0]) if len(above) else float(ordered[-1])


def pack_columns(dataset: Dataset, detections: Detections, analysis: Analysis | None,
                 order: np.ndarray) -> tuple[dict, float]:
    """Packs the boxes of the images that are shown into columns, which page/matching.js unpacks.

    Args:
        order: int64 [S], indices of the images.

    Returns:
        Columns in base64: image by image as in `order`, the detections of an image by falling score; and the lowest
        score of a detection that is shown.
    """
    position = np.full(len(dataset), len(order), np.int64)  # of each image in `order`
    position[order] = np.arange(len(order))
    image = image_indices(detections, dataset) if len(detections) else np.zeros(0, np.int64)
    in_shown_image = position[image] < len(order)
    min_score = min_score_shown(detections.scores[in_shown_image])
    rows = np.flatnonzero(in_shown_image & (detections.scores >= min_score))
    rows = rows[np.lexsort((-detections.scores[rows], position[image[rows]]))]
    counts = np.bincount(position[image[rows]], minlength=len(order))
    object_image = dataset.image_of_box()
    objects = np.flatnonzero(position[object_image] < len(order))
    objects = objects[np.argsort(position[object_image[objects]], kind="stable")]
    number_in_image = np.full(len(detections) + 1, -1, np.int64)  # of each detection; the last entry stands for none
    number_in_image[rows] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    matched = number_in_image[analysis.object_detection[objects]] if analysis else np.full(len(objects), -1)
    sizes = dataset.sizes[order]
    return {
        "heights": to_base64(sizes[:, 0], np.uint32), "widths": to_base64(sizes[:, 1], np.uint32),
        "num_detections": to_base64(counts, np.uint32),
        "num_objects": to_base64(dataset.boxes_per_image()[order], np.uint32),
        "detections": {
            "boxes": relative_boxes(detections.boxes[rows], dataset.sizes[image[rows]]),
            "scores": to_base64(np.round(detections.scores[rows] * UINT16_MAX), np.uint16),
            "labels": to_base64(detections.labels[rows], np.uint16),
            "errors": to_base64(analysis.detection_error[rows], np.uint8) if analysis else ""},
        "ground_truth": {
            "boxes": relative_boxes(dataset.boxes[objects], dataset.sizes[object_image[objects]]),
            "labels": to_base64(dataset.labels[objects], np.uint16),
            "flags": to_base64(dataset.flags[objects], np.uint8),
            "detections": to_base64(matched, np.int16)},
    }, min_score


def relative_boxes(boxes: np.ndarray, sizes: np.ndarray) -> str:
    """Returns corners as fractions of the image size, uint16 in base64.

    Args:
        boxes: float32 [M, 4], pixels.
        sizes: int [M, 2], height and width of the image of each box.
    """
    scale = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    return to_base64(np.round(np.clip(boxes / np.maximum(scale, 1), 0, 1) * UINT16_MAX), np.uint16)


def to_base64(values: np.ndarray, dtype: type) -> str:
    """Returns the bytes of an array as `dtype`, little-endian, in base64."""
    return base64.b64encode(np.ascontiguousarray(values).astype(np.dtype(dtype).newbyteorder("<")).tobytes()).decode()
