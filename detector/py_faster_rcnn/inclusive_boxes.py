"""Boxes whose x2 and y2 are the last pixel (model.inclusive_boxes): width = x2 - x1 + 1.

The convention of py-faster-rcnn and of jwyang/faster-rcnn.pytorch in IoU, box coding, clipping and NMS.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class InclusiveBoxCoder:
    """The methods of BoxCoder (model/box_coder.py) for inclusive boxes: boxes are converted, then handed to it."""

    exclusive: Any  # a BoxCoder; `model` may import this package, so its type cannot be imported here

    def to_exclusive(self, boxes: Tensor) -> Tensor:
        """Converts boxes [..., 4]: x2 and y2 become x2 + 1 and y2 + 1."""
        return torch.cat([boxes[..., :2], boxes[..., 2:] + 1], dim=-1)

    def from_exclusive(self, boxes: Tensor) -> Tensor:
        """Converts boxes [..., 4]: x2 and y2 become x2 - 1 and y2 - 1."""
        return torch.cat([boxes[..., :2], boxes[..., 2:] - 1], dim=-1)

    def iou(self, objects: Tensor, boxes: Tensor) -> Tensor:
        """Returns the IoU [B, M, N] of objects [B, M, 4] with boxes [B, N, 4] or [1, N, 4]."""
        return self.exclusive.iou(self.to_exclusive(objects), self.to_exclusive(boxes))

    def clip(self, boxes: Tensor, image_sizes: Tensor) -> Tensor:
        """Returns boxes [B, N, 4], clipped to the last pixels of images of sizes float32 [B, 2] (height, width)."""
        return self.exclusive.clip(boxes, image_sizes - 1)

    def encode(self, boxes: Tensor, references: Tensor) -> Tensor:
        """Returns the deltas [..., 4] from references [..., 4] to boxes [..., 4]."""
        return self.exclusive.encode(self.to_exclusive(boxes), self.to_exclusive(references))

    def decode(self, deltas: Tensor, references: Tensor) -> Tensor:
        """Returns the boxes [..., 4] that `deltas` [..., 4] from `references` [..., 4] stand for.

        A decoded box is one pixel wider and higher than the encoded one: the original subtracts no 1 here, and weights
        that were trained with it expect that.
        """
        return self.exclusive.decode(deltas, self.to_exclusive(references))
