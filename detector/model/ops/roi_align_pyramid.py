"""RoIAlign on a pyramid in one call: its levels lie side by side on one map, and a box is pooled where its level is.

Choosing the boxes of each level would need their number, for which the host has to wait for the device.
B images, F channels, R boxes, S cells in each direction.
"""

import torch
from torch import Tensor
from torchvision.ops import roi_align

EDGE = 2  # cells by which the right and lower edges of a level are continued, as RoIAlign does at the end of a map


def align_on_pyramid(features: list[Tensor], strides: list[int], level: Tensor, rois: Tensor, size: int,
                     ratio: int) -> Tensor:
    """features [B, F, h, w] of each level, level int64 [R], rois [R, 5] (image, box inside it) -> [R, F, S, S].

    The same as torchvision's roi_align on each level, but for the rounding of larger coordinates (1e-5 of a cell):
    samples up to the edge of a level see that edge continued, and those beyond, which only boxes of less than a cell
    can have, count as 0. ratio: see roi_align; -1 is as many samples as pixels.
    """
    shapes = [tuple(feature.shape[-2:]) for feature in features]
    corners = places(shapes)
    table = torch.tensor([[1 / stride, x, y, width, height] for stride, (y, x), (height, width)
                          in zip(strides, corners, shapes)], dtype=rois.dtype, device="cpu")
    scale, left, top, width, height = table.to(rois.device, non_blocking=True)[level].unbind(1)
    boxes = rois[:, 1:] * scale[:, None]
    moved = torch.cat([rois[:, :1], boxes + torch.stack([left, top, left, top], dim=1)], dim=1)
    pooled = roi_align(Atlas.apply(corners, *features), moved, size, 1.0, ratio)
    across = share_inside(boxes[:, 0], boxes[:, 2], width, size, ratio).to(pooled.dtype)
    down = share_inside(boxes[:, 1], boxes[:, 3], height, size, ratio).to(pooled.dtype)
    return pooled * down[:, None, :, None] * across[:, None, None, :]


def places(shapes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Row and column of each level's first cell: the first level on top, the others below it, side by side."""
    corners, x = [(0, 0)], 0
    for _, width in shapes[1:]:
        corners.append((shapes[0][0] + EDGE, x))
        x += width + EDGE
    return corners


def share_inside(start: Tensor, end: Tensor, length: Tensor, size: int, ratio: int) -> Tensor:
    """The share [R, S] of each cell's samples that lie on the map, in one direction.

    Beyond the map lie only samples of boxes that begin in its last cell and are shorter than it, because RoIAlign
    makes them one long; there the map does not change in this direction, so that the share is all one needs to know.
    """
    samples = ratio if ratio > 0 else 1  # a box of one cell has one sample in each of its parts
    steps = (torch.arange(size * samples, device=start.device, dtype=start.dtype) + 0.5) / (size * samples)
    inside = (start[:, None] + steps <= length[:, None]) | (end - start >= 1)[:, None]
    return inside.reshape(-1, size, samples).to(start.dtype).mean(-1)


class Atlas(torch.autograd.Function):
    """Levels [B, F, h, w] on one map, their edges continued; one copy forth and one back."""

    @staticmethod
    def forward(ctx, corners: list[tuple[int, int]], *levels: Tensor) -> Tensor:
        ctx.corners, ctx.shapes = corners, [level.shape[-2:] for level in levels]
        height = max(y + level.shape[-2] for (y, _), level in zip(corners, levels)) + EDGE
        width = max(x + level.shape[-1] for (_, x), level in zip(corners, levels)) + EDGE
        atlas = levels[0].new_zeros((*levels[0].shape[:2], height, width))
        for (y, x), level in zip(corners, levels):
            bottom, right = y + level.shape[-2], x + level.shape[-1]
            atlas[:, :, y:bottom, x:right] = level
            atlas[:, :, y:bottom, right:right + EDGE] = level[..., -1:]
            atlas[:, :, bottom:bottom + EDGE, x:right + EDGE] = atlas[:, :, bottom - 1:bottom, x:right + EDGE]
        return atlas

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        parts = []
        for (y, x), (height, width) in zip(ctx.corners, ctx.shapes):
            whole = gradient[:, :, y:y + height + EDGE, x:x + width + EDGE]
            part = whole[:, :, :height, :width].clone(memory_format=torch.contiguous_format)
            part[..., -1:] += whole[:, :, :height, width:].sum(-1, keepdim=True)
            part[:, :, -1:] += whole[:, :, height:, :width].sum(2, keepdim=True)
            part[:, :, -1:, -1:] += whole[:, :, height:, width:].sum((2, 3), keepdim=True)
            parts.append(part)
        return None, *parts
