"""Data structures that all rooms share: a data set's annotations, detections, boxes, and the resize rule.

Boxes are x1, y1, x2, y2 in absolute pixels, float32 [N, 4]; no boxes is [0, 4]. (0, 0) is the outer corner of the first
pixel and x2, y2 are exclusive: width = x2 - x1, and the whole image is (0, 0, width, height).

Shapes: I images, N annotated objects, K detections, C classes. Both records are flat arrays without a Python object for
each image or box, so that loader workers share the memory instead of copying it page by page.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

CROWD = 1       # flag of an object: COCO's iscrowd, a region of many objects
DIFFICULT = 2   # flag of an object: VOC's difficult
BACKGROUND = 0  # the label of no object; label c > 0 is class classes[c - 1]
SIZE_DIVISOR = 32  # default of model.size_divisor: every level of an FPN then has whole cells


@dataclass(frozen=True)
class Dataset:
    """All images of one or more splits with their annotated objects."""

    name: str                   # for messages, such as "coco train"
    root: str                   # folder that `paths` are relative to
    classes: tuple[str, ...]    # [C]
    category_ids: np.ndarray    # int64 [C], the annotation file's own id of each class
    paths: np.ndarray           # bytes [I] as the file system has them, relative to `root` or absolute
    image_ids: np.ndarray       # int64 [I]
    sizes: np.ndarray           # int32 [I, 2], height and width as annotated, pixels
    offsets: np.ndarray         # int64 [I + 1]; image i owns rows offsets[i]:offsets[i + 1] of the arrays below
    boxes: np.ndarray           # float32 [N, 4]
    labels: np.ndarray          # int32 [N], 1 ... C
    flags: np.ndarray           # uint8 [N], CROWD | DIFFICULT
    areas: np.ndarray           # float32 [N], pixels: COCO's mask area, which decides small, medium or large
    warnings: tuple[str, ...] = ()  # what the reader corrected or left out, one sentence each
    sized_by_header: tuple[int, ...] = ()  # images whose size a reader took from the image file, for data/cache.py

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        return os.path.join(self.root, os.fsdecode(bytes(self.paths[index])))

    def rows(self, index: int) -> slice:
        """The rows of `boxes`, `labels`, `flags` and `areas` that belong to image `index`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def boxes_per_image(self) -> np.ndarray:
        """int64 [I]"""
        return np.diff(self.offsets)

    def image_of_box(self) -> np.ndarray:
        """int64 [N]: the index of the image that each object is in."""
        return np.repeat(np.arange(len(self)), self.boxes_per_image())


@dataclass(frozen=True)
class Detections:
    """Detections of many images, in pixels of the original images, in any order."""

    image_ids: np.ndarray  # int64 [K]
    boxes: np.ndarray      # float32 [K, 4]
    scores: np.ndarray     # float32 [K], 0 ... 1
    labels: np.ndarray     # int32 [K], 1 ... C

    def __len__(self) -> int:
        return len(self.scores)


def build_dataset(name: str, root: str, classes: list[str], category_ids: list[int], images: list[tuple],
                  objects: np.ndarray, warnings: tuple[str, ...] = (),
                  sized_by_header: Sequence[int] = ()) -> Dataset:
    """Returns a Dataset from the lists that a reader collects.

    Args:
        images: (path below root, id, height, width) of each image.
        objects: float64 [N, 8] in any order; columns: index of the image, label, flags, area, x1, y1, x2, y2.
        sized_by_header: indices of the images whose size was read from their files, see image_sizes.read_missing_sizes.
    """
    objects = np.asarray(objects, np.float64).reshape(-1, 8)
    objects = objects[np.argsort(objects[:, 0], kind="stable")]
    return Dataset(
        name=name, root=root, classes=tuple(classes), category_ids=np.array(category_ids, np.int64),
        paths=np.array([os.fsencode(image[0]) for image in images], dtype=np.bytes_).reshape(len(images)),
        image_ids=np.array([image[1] for image in images], np.int64),
        sizes=np.array([image[2:4] for image in images], np.int32).reshape(-1, 2),
        offsets=offsets_from_counts(np.bincount(objects[:, 0].astype(np.int64), minlength=len(images))),
        boxes=objects[:, 4:8].astype(np.float32), labels=objects[:, 1].astype(np.int32),
        flags=objects[:, 2].astype(np.uint8), areas=objects[:, 3].astype(np.float32), warnings=warnings,
        sized_by_header=tuple(sized_by_header))


def select_images(dataset: Dataset, mask: np.ndarray) -> Dataset:
    """Returns the images where `mask` (bool [I]) is true, with their objects."""
    kept = select_boxes(dataset, mask[dataset.image_of_box()])
    return replace(kept, paths=kept.paths[mask], image_ids=kept.image_ids[mask], sizes=kept.sizes[mask],
                   offsets=offsets_from_counts(kept.boxes_per_image()[mask]))


def select_boxes(dataset: Dataset, mask: np.ndarray) -> Dataset:
    """Returns all images, with the objects where `mask` (bool [N]) is true."""
    counts = np.bincount(dataset.image_of_box()[mask], minlength=len(dataset))
    return replace(dataset, offsets=offsets_from_counts(counts), boxes=dataset.boxes[mask], labels=dataset.labels[mask],
                   flags=dataset.flags[mask], areas=dataset.areas[mask])


def offsets_from_counts(counts: np.ndarray) -> np.ndarray:
    """Returns the first row of each image's objects, int64 [I + 1], from objects per image, int [I]."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def concat_detections(parts: list[Detections]) -> Detections:
    """Returns all parts one after another; an empty list gives no detections."""
    empty = Detections(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32),
                       np.zeros(0, np.int32))
    return Detections(*(np.concatenate([getattr(part, name) for part in [empty, *parts]])
                        for name in ("image_ids", "boxes", "scores", "labels")))


def from_xywh(boxes: np.ndarray) -> np.ndarray:
    """Converts COCO's x, y, width, height [N, 4] to corners, float32 [N, 4]."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)


def to_xywh(boxes: np.ndarray) -> np.ndarray:
    """Converts corners [N, 4] to COCO's x, y, width, height, float64 [N, 4]."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def from_voc(boxes: np.ndarray) -> np.ndarray:
    """Converts PASCAL VOC's 1-based inclusive corners [N, 4] to float32 [N, 4]. (VOC development kit, section 4.2)

    Many private data sets count from 0 instead; a corner at 0 stays 0.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    first = np.where(boxes[:, :2] >= 1, boxes[:, :2] - 1, boxes[:, :2])
    return np.concatenate([first, boxes[:, 2:]], axis=1).astype(np.float32)


def area(boxes: np.ndarray) -> np.ndarray:
    """Returns the area of each box in pixels, [N]; a box with swapped corners has area 0."""
    return np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)


@dataclass(frozen=True)
class Resize:
    """The resize rule of torchvision's detectors: scale the short side to `min_size`, but the long side to `max_size`
    at most (0: no limit). Aspect ratio is kept."""

    min_size: int
    max_size: int


def scale_and_size(height: int, width: int, resize: Resize) -> tuple[float, tuple[int, int]]:
    """Returns the scale and the resized (height, width) of one image, rounded down to whole pixels."""
    scale = resize.min_size / min(height, width)
    if resize.max_size:
        scale = min(scale, resize.max_size / max(height, width))
    return scale, (max(1, int(height * scale)), max(1, int(width * scale)))


def resize_scales(sizes: np.ndarray, resize: Resize) -> np.ndarray:
    """Returns the scale of many images of sizes int [E, 2]: float64 [E]."""
    return np.minimum(resize.min_size / sizes.min(axis=1), (resize.max_size or np.inf) / sizes.max(axis=1))


def resized_sizes(sizes: np.ndarray, resize: Resize) -> np.ndarray:
    """Returns the resized (height, width) of many images: int [E, 2] -> int64 [E, 2]."""
    return np.maximum(1, (sizes * resize_scales(sizes, resize)[:, None]).astype(np.int64))


def padded_size(image: Tensor, resize: Resize, divisor: int = SIZE_DIVISOR) -> tuple[int, int]:
    """Returns the (height, width) of a batch that holds one image [3, H, W] alone, resized and padded."""
    _, (height, width) = scale_and_size(*image.shape[-2:], resize)
    return round_up(height, divisor), round_up(width, divisor)


def scale_boxes(boxes: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Converts boxes [N, 4] from an image of size `before` (height, width) to its resized copy of size `after`."""
    down, right = after[0] / before[0], after[1] / before[1]
    return boxes * boxes.new_tensor([right, down, right, down])


def flip_boxes(boxes: Tensor, length: int, axis: int) -> Tensor:
    """Returns the boxes [N, 4] of an image that is flipped left and right (axis 0) or top and bottom (axis 1).

    Args:
        length: of the image along the axis, pixels.
    """
    flipped = boxes.clone()
    flipped[:, axis], flipped[:, axis + 2] = length - boxes[:, axis + 2], length - boxes[:, axis]
    return flipped


def ceil_div(a, b):
    """Returns a / b rounded up, of integers or integer arrays."""
    return -(-a // b)


def round_up(length, divisor: int):
    """Returns the smallest multiple of `divisor` that is not below `length`, of integers or integer arrays."""
    return ceil_div(length, divisor) * divisor
