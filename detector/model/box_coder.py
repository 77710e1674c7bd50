"""Boxes on the device, whole batches at once: overlap, coding as deltas, the border of the image; in two conventions.

B images, M objects and N boxes of each. A box is x1, y1, x2, y2 in pixels. `extent` says what x2 and y2 are: 0 where
they are exclusive (width = x2 - x1, see detector/structures.py), 1 where they are the last pixel (width = x2 - x1 + 1, as in
jwyang/faster-rcnn.pytorch). `to_exclusive` turns the second into the first; behind it, all formulas are the same.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = math.log(1000 / 16)  # of dw and dh: what a sane image holds is within reach, and exp does not overflow


def on_device(values: list, like: Tensor) -> Tensor:
    """Numbers as float32 on the device of a tensor, by a copy that the host does not wait for."""
    return torch.tensor(values, dtype=torch.float32, device="cpu").to(like.device, non_blocking=True)


def to_exclusive(boxes: Tensor, extent: int) -> Tensor:
    """Boxes [..., 4] with exclusive x2 and y2."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] + extent], dim=-1) if extent else boxes


def overlaps(objects: Tensor, boxes: Tensor, extent: int = 0) -> Tensor:
    """IoU of objects [B, M, 4] with boxes [B, N, 4], or with [1, N, 4] that all images share: [B, M, N].

    0 where neither has an area. Works in place where it can: on a pyramid this is the largest tensor of a step.
    """
    objects, boxes = to_exclusive(objects, extent), to_exclusive(boxes, extent)
    left, top, right, bottom = objects[..., None].unbind(2)                                     # [B, M, 1] each
    left_, top_, right_, bottom_ = boxes.transpose(1, 2).contiguous()[:, :, None].unbind(1)     # [B, 1, N] each
    shared = (torch.minimum(right, right_) - torch.maximum(left, left_)).clamp_(min=0)
    shared *= (torch.minimum(bottom, bottom_) - torch.maximum(top, top_)).clamp_(min=0)
    union = (right - left) * (bottom - top) + (right_ - left_) * (bottom_ - top_) - shared
    return shared.div_(union.clamp_(min=1e-12))


def clipped(boxes: Tensor, sizes: Tensor, extent: int) -> Tensor:
    """The part of boxes [B, N, 4] inside images of sizes float32 [B, 2], height and width."""
    last = sizes.flip(1).repeat(1, 2)[:, None] - extent
    return torch.minimum(boxes.clamp(min=0), last)


@dataclass(frozen=True)
class BoxCoder:
    """Boxes as deltas dx, dy, dw, dh from references (Ren et al. 2015, eq. 2), times `weights`.

    With an extent of 1, decoded boxes are a pixel larger than the encoded ones were: the original has no -1 there, and
    what was trained with it expects that. `clamp` limits dw and dh to LARGEST; the original does not, and can overflow.
    """

    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    extent: int = 0
    clamp: bool = True

    def encode(self, boxes: Tensor, references: Tensor) -> Tensor:
        """[..., 4] and [..., 4] -> deltas [..., 4]; not finite where a reference has no area."""
        x, y, width, height = _centres(to_exclusive(boxes, self.extent))
        x0, y0, width0, height0 = _centres(to_exclusive(references, self.extent))
        kx, ky, kw, kh = self.weights
        return torch.stack([kx * (x - x0) / width0, ky * (y - y0) / height0,
                            kw * torch.log(width / width0), kh * torch.log(height / height0)], dim=-1)

    def decode(self, deltas: Tensor, references: Tensor) -> Tensor:
        """[..., 4] and [..., 4] -> boxes [..., 4]."""
        x0, y0, width0, height0 = _centres(to_exclusive(references, self.extent))
        dx, dy, dw, dh = (column / k for column, k in zip(deltas.unbind(-1), self.weights))
        if self.clamp:
            dw, dh = dw.clamp(max=LARGEST), dh.clamp(max=LARGEST)
        x, y = dx * width0 + x0, dy * height0 + y0
        right, down = 0.5 * torch.exp(dw) * width0, 0.5 * torch.exp(dh) * height0
        return torch.stack([x - right, y - down, x + right, y + down], dim=-1)


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre x and y, width and height of boxes with exclusive x2 and y2."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height
