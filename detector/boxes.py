"""The box convention, and the conversions at its border.

A box is x1, y1, x2, y2 in absolute pixels, float32. (0, 0) is the outer corner of the first pixel and x2, y2 are
exclusive, so width = x2 - x1, and the whole image is (0, 0, width, height).
Boxes have shape [N, 4]; no boxes is [0, 4]. These functions take numpy arrays.
"""

import numpy as np


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
