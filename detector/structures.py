"""The two records that travel through the house: what is in the images, and what was found in them.

I images, N annotated objects, K detections, C classes. Both are flat arrays: no Python object per image or box, so
forked workers share the memory instead of copying it page by page.
"""

import os
from dataclasses import dataclass, replace

import numpy as np

pass
from torch import Tensor

CROWD = 1      # flag: a region of many objects (COCO iscrowd)
DIFFICULT = 2  # flag: an object that VOC marks as hard to recognise

BACKGROUND = 0  # label of no object; label c > 0 is class classes[c - 1]


@dataclass(frozen=True)
class Dataset:
    """All images of one split with their annotated objects."""

    name: str                   # for messages, such as "coco train"
    root: str                   # folder that `paths` are relative to
    classes: tuple[str, ...]    # [C]
    category_ids: np.ndarray    # int64 [C], the annotation file's own id of each class
    paths: np.ndarray           # bytes (utf-8) [I]; an absolute one stands for itself
    image_ids: np.ndarray       # int64 [I]
    sizes: np.ndarray           # int32 [I, 2], height and width as annotated, pixels
    offsets: np.ndarray         # int64 [I + 1]; image i owns rows offsets[i]:offsets[i + 1] of what follows
    boxes: np.ndarray           # float32 [N, 4], see boxes.py
    labels: np.ndarray          # int32 [N], 1 ... C
    flags: np.ndarray           # uint8 [N], CROWD | DIFFICULT
    areas: np.ndarray           # float32 [N], pixels: COCO's mask area, which decides small, medium or large
    faults: tuple[str, ...] = ()  # what reading met and did about it, one sentence each
    cacheable: bool = True      # false where it depends on more files than the annotations

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        return os.path.join(self.root, self.paths[index].decode())

    def rows(self, index: int) -> slice:
        """The rows of `boxes`, `labels`, `flags` and `areas` that belong to image `index`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def boxes_per_image(self) -> np.ndarray:
        """int64 [I]"""
        return np.diff(self.offsets)

    def image_of_row(self) -> np.ndarray:
        """int64 [N]: which image each object is in."""
        return np.repeat(np.arange(len(self)), self.boxes_per_image())


@dataclass(frozen=True)
class Detections:
    """What a detector found, in pixels of the original images, in no particular order."""

    image_ids: np.ndarray  # int64 [K]
    boxes: np.ndarray      # float32 [K, 4]
    scores: np.ndarray     # float32 [K], 0 ... 1
    labels: np.ndarray     # int32 [K], 1 ... C

    def __len__(self) -> int:
        return len(self.scores)


def assemble(name: str, root: str, classes: list[str], category_ids: list[int], images: list[tuple],
             objects: np.ndarray, faults: tuple[str, ...] = ()) -> Dataset:
    """A Dataset from what a reader collects.

    images: (path below root, id, height, width) of each; objects: float64 [N, 8] in any order, with columns
    index of the image, label, flags, area, x1, y1, x2, y2.
    """
    objects = np.asarray(objects, np.float64).reshape(-1, 8)
    objects = objects[np.argsort(objects[:, 0], kind="stable")]
    return Dataset(
        name=name, root=root, classes=tuple(classes), category_ids=np.array(category_ids, np.int64),
        paths=np.array([str(image[0]).encode() for image in images], dtype=np.bytes_).reshape(len(images)),
        image_ids=np.array([image[1] for image in images], np.int64),
        sizes=np.array([image[2:4] for image in images], np.int32).reshape(-1, 2),
        offsets=offsets_of(np.bincount(objects[:, 0].astype(np.int64), minlength=len(images))),
        boxes=objects[:, 4:8].astype(np.float32), labels=objects[:, 1].astype(np.int32),
        flags=objects[:, 2].astype(np.uint8), areas=objects[:, 3].astype(np.float32), faults=faults)


def keep_images(dataset: Dataset, mask: np.ndarray) -> Dataset:
    """The images where `mask` (bool [I]) is true, with their objects."""
    kept = keep_objects(dataset, mask[dataset.image_of_row()])
    return replace(kept, paths=kept.paths[mask], image_ids=kept.image_ids[mask], sizes=kept.sizes[mask],
                   offsets=offsets_of(kept.boxes_per_image()[mask]))


def keep_objects(dataset: Dataset, mask: np.ndarray) -> Dataset:
    """All images, with the objects where `mask` (bool [N]) is true."""
    counts = np.bincount(dataset.image_of_row()[mask], minlength=len(dataset))
    return replace(dataset, offsets=offsets_of(counts), boxes=dataset.boxes[mask], labels=dataset.labels[mask],
                   flags=dataset.flags[mask], areas=dataset.areas[mask])


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """Objects per image, int [I] -> where each image's rows begin, int64 [I + 1]."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def join_detections(parts: list[Detections]) -> Detections:
    """All parts one after another; no parts give no detections."""
    none = Detections(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32),
                      np.zeros(0, np.int32))
    return Detections(*(np.concatenate([getattr(part, name) for part in [none, *parts]])
                        for name in ("image_ids", "boxes", "scores", "labels")))


def from_xywh(boxes: np.ndarray) -> np.ndarray:
    """COCO's x, y, width, height [N, 4] -> ours."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)


def to_xywh(boxes: np.ndarray) -> np.ndarray:
    """Ours [N, 4] -> COCO's x, y, width, height, float64 [N, 4]."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def from_voc(boxes: np.ndarray) -> np.ndarray:
    """PASCAL VOC's 1-based inclusive corners [N, 4] -> ours. (VOC development kit, section 4.2.)

    Trees of one's own often count from 0; a corner at 0 then stays 0.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    first = np.where(boxes[:, :2] >= 1, boxes[:, :2] - 1, boxes[:, :2])
    return np.concatenate([first, boxes[:, 2:]], axis=1).astype(np.float32)


def area(boxes: np.ndarray) -> np.ndarray:
    """Pixels, [N]; a box whose corners are swapped has area 0."""
    return np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)


STRIDE = 32                   # canvases are multiples of this, so that every level of a pyramid has whole cells


@dataclass(frozen=True)
class Side:
    """How large the network sees an image: the short side in pixels, unless the long side would pass its cap (0: none).
    """

    short: int
    long: int


def resized(height: int, width: int, side: Side) -> tuple[float, tuple[int, int]]:
    """The scale, and the height and width in whole pixels that follow (cut off, as torchvision's detectors do)."""
    scale = side.short / min(height, width)
    if side.long:
        scale = min(scale, side.long / max(height, width))
    return scale, (max(1, int(height * scale)), max(1, int(width * scale)))


def canvas_of(image: Tensor, side: Side, multiple: int = STRIDE) -> tuple[int, int]:
    """Height and width of the batch that an image [3, H, W] alone makes; images of one canvas add no padding."""
    _, (height, width) = resized(*image.shape[-2:], side)
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def scale_boxes(boxes: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Boxes [N, 4] of an image of one (height, width), in the pixels of its copy of another."""
    down, right = after[0] / before[0], after[1] / before[1]
    return boxes * boxes.new_tensor([right, down, right, down])


def resized_shapes(sizes: np.ndarray, side: Side) -> np.ndarray:
    """`resized` of model/preprocessing.py for all images of sizes [E, 2] at once: int64 [E, 2]."""
    scale = np.minimum(side.short / sizes.min(axis=1), (side.long or np.inf) / sizes.max(axis=1))
    return np.maximum(1, (sizes * scale[:, None]).astype(np.int64))
