"""Boxes of whole batches on the device: IoU, encoding as deltas from reference boxes, clipping to the image.

B images, M objects and N boxes of each. A box is x1, y1, x2, y2 in pixels, with exclusive x2 and y2: width = x2 - x1
(see detector/structures.py). The boxes of model.inclusive_boxes have the same methods, in
py_faster_rcnn/inclusive_boxes.py; `build_box_coder` is the only place that chooses.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.config.model_schema import Model
from detector.py_faster_rcnn.inclusive_boxes import InclusiveBoxCoder

MAX_LOG_SCALE = math.log(1000 / 16)  # limit of dw and dh, as in torchvision: exp does not overflow
UNIT_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class BoxCoder:
    """The convention of boxes: deltas, IoU, clipping.

    Deltas are dx, dy, dw, dh from reference boxes (Ren et al. 2015, eq. 2), times `weights`. `clamp` limits dw and dh
    to MAX_LOG_SCALE. The original does not, and can overflow.
    """

    weights: tuple[float, ...] = UNIT_WEIGHTS
    clamp: bool = True

    def to_exclusive(self, boxes: Tensor) -> Tensor:
        """Returns the boxes: this class's are exclusive already."""
        return boxes

    def from_exclusive(self, boxes: Tensor) -> Tensor:
        """Returns the boxes: this class's are exclusive, too."""
        return boxes

    def iou(self, objects: Tensor, boxes: Tensor) -> Tensor:
        """Returns the IoU [B, M, N] of objects [B, M, 4] with boxes [B, N, 4], or [1, N, 4] for all images."""
        return box_iou(objects, boxes)

    def clip(self, boxes: Tensor, image_sizes: Tensor) -> Tensor:
        """Returns boxes [B, N, 4], clipped to images of sizes float32 [B, 2] (height, width)."""
        return torch.minimum(boxes.clamp(min=0), image_sizes.flip(1).repeat(1, 2)[:, None])

    def encode(self, boxes: Tensor, references: Tensor) -> Tensor:
        """Returns the deltas [..., 4] from references [..., 4] to boxes [..., 4].

        Deltas from a reference without area are not finite.
        """
        x, y, width, height = _centers_and_sizes(boxes)
        x0, y0, width0, height0 = _centers_and_sizes(references)
        wx, wy, ww, wh = self.weights
        return torch.stack([wx * (x - x0) / width0, wy * (y - y0) / height0,
                            ww * torch.log(width / width0), wh * torch.log(height / height0)], dim=-1)

    def decode(self, deltas: Tensor, references: Tensor) -> Tensor:
        """Returns the boxes [..., 4] that `deltas` [..., 4] from `references` [..., 4] stand for."""
        x0, y0, width0, height0 = _centers_and_sizes(references)
        dx, dy, dw, dh = (column / weight for column, weight in zip(deltas.unbind(-1), self.weights))
        if self.clamp:
            dw, dh = dw.clamp(max=MAX_LOG_SCALE), dh.clamp(max=MAX_LOG_SCALE)
        x, y = dx * width0 + x0, dy * height0 + y0
        half_width, half_height = 0.5 * torch.exp(dw) * width0, 0.5 * torch.exp(dh) * height0
        return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], dim=-1)


def build_box_coder(config: Model, weights: tuple[float, ...] = UNIT_WEIGHTS) -> BoxCoder | InclusiveBoxCoder:
    """Returns the coder for the box convention of the config (model.inclusive_boxes)."""
    exclusive = BoxCoder(tuple(weights), config.clamp_deltas)
    return InclusiveBoxCoder(exclusive) if config.inclusive_boxes else exclusive


def box_iou(objects: Tensor, boxes: Tensor) -> Tensor:
    """Returns the IoU [B, M, N] of objects [B, M, 4] with boxes [B, N, 4], or with [1, N, 4] that all images share.

    The IoU of two boxes without area is 0. Works in place where possible: for an FPN the result is the largest tensor
    of a training step.
    """
    left, top, right, bottom = objects[..., None].unbind(2)                                     # [B, M, 1] each
    left_, top_, right_, bottom_ = boxes.transpose(1, 2).contiguous()[:, :, None].unbind(1)     # [B, 1, N] each
    intersection = (torch.minimum(right, right_) - torch.maximum(left, left_)).clamp_(min=0)
    intersection *= (torch.minimum(bottom, bottom_) - torch.maximum(top, top_)).clamp_(min=0)
    union = (right - left) * (bottom - top) + (right_ - left_) * (bottom_ - top_) - intersection
    return intersection.div_(union.clamp_(min=1e-12))


def _centers_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns center x and y, width and height, [...] each."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height
