"""RoIAlign on a pyramid in one call: all levels lie side by side on one map, and each box is moved to its level there.

Selecting the boxes of each level would need their number, for which the host waits for the device.
B images, F channels, R boxes, S bins of the output in each direction.
"""

import torch
from torch import Tensor
from torchvision.ops import roi_align

BORDER = 2  # pixels by which the right and lower edges of a level are repeated, as RoIAlign does at the end of a map


def roi_align_pyramid(features: list[Tensor], strides: list[int], level: Tensor, rois: Tensor, size: int,
                      sampling_ratio: int) -> Tensor:
    """Pools every box from its level. The host does not wait for the device.

    The result is that of torchvision's roi_align on each level, except for the rounding of larger coordinates (1e-5 of
    a pixel of the map). A sample up to the edge of a level reads the repeated edge. A sample beyond it, which only
    boxes of less than a pixel can have, counts as 0.

    Args:
        features: [B, F, h, w] of each level.
        strides: of each level, pixels.
        level: int64 [R], the level of each box.
        rois: [R, 5], index of the image and box inside it, in pixels of the batch.
        size: S.
        sampling_ratio: samples of a bin in each direction; -1: as many as pixels.

    Returns:
        [R, F, S, S].
    """
    shapes = [tuple(feature.shape[-2:]) for feature in features]
    corners = level_corners(shapes)
    rows = torch.tensor([[1 / stride, x, y, width, height] for stride, (y, x), (height, width)
                         in zip(strides, corners, shapes)], dtype=rois.dtype, device="cpu")
    scale, left, top, width, height = rows.to(rois.device, non_blocking=True)[level].unbind(1)
    boxes = rois[:, 1:] * scale[:, None]
    moved = torch.cat([rois[:, :1], boxes + torch.stack([left, top, left, top], dim=1)], dim=1)
    pooled = roi_align(PyramidMap.apply(corners, *features), moved, size, 1.0, sampling_ratio)
    inside_x = fraction_inside(boxes[:, 0], boxes[:, 2], width, size, sampling_ratio).to(pooled.dtype)
    inside_y = fraction_inside(boxes[:, 1], boxes[:, 3], height, size, sampling_ratio).to(pooled.dtype)
    return pooled * inside_y[:, None, :, None] * inside_x[:, None, None, :]


def level_corners(shapes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns row and column of each level's first pixel: the first level on top, the others below it, side by side."""
    corners, x = [(0, 0)], 0
    for _, width in shapes[1:]:
        corners.append((shapes[0][0] + BORDER, x))
        x += width + BORDER
    return corners


def fraction_inside(start: Tensor, end: Tensor, length: Tensor, size: int, sampling_ratio: int) -> Tensor:
    """Returns the fraction [R, S] of each bin's samples that lie on the map, in one direction.

    Only a box that begins in the last pixel and is shorter than a pixel has samples beyond the map, because RoIAlign
    makes it one pixel long. The map is constant there in this direction, so the fraction is a factor of the result.
    """
    samples = sampling_ratio if sampling_ratio > 0 else 1  # a box of one pixel has one sample in each of its bins
    steps = (torch.arange(size * samples, device=start.device, dtype=start.dtype) + 0.5) / (size * samples)
    inside = (start[:, None] + steps <= length[:, None]) | (end - start >= 1)[:, None]
    return inside.reshape(-1, size, samples).to(start.dtype).mean(-1)


class PyramidMap(torch.autograd.Function):
    """Copies levels [B, F, h, w] onto one map, their right and lower edges repeated; one copy in each direction."""

    @staticmethod
    def forward(ctx, corners: list[tuple[int, int]], *levels: Tensor) -> Tensor:
        ctx.corners, ctx.shapes = corners, [level.shape[-2:] for level in levels]
        height = max(y + level.shape[-2] for (y, _), level in zip(corners, levels)) + BORDER
        width = max(x + level.shape[-1] for (_, x), level in zip(corners, levels)) + BORDER
        joined = levels[0].new_zeros((*levels[0].shape[:2], height, width))
        for (y, x), level in zip(corners, levels):
            bottom, right = y + level.shape[-2], x + level.shape[-1]
            joined[:, :, y:bottom, x:right] = level
            joined[:, :, y:bottom, right:right + BORDER] = level[..., -1:]
            joined[:, :, bottom:bottom + BORDER, x:right + BORDER] = joined[:, :, bottom - 1:bottom, x:right + BORDER]
        return joined

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        gradients = []
        for (y, x), (height, width) in zip(ctx.corners, ctx.shapes):
            bordered = gradient[:, :, y:y + height + BORDER, x:x + width + BORDER]
            level = bordered[:, :, :height, :width].clone(memory_format=torch.contiguous_format)
            level[..., -1:] += bordered[:, :, :height, width:].sum(-1, keepdim=True)
            level[:, :, -1:] += bordered[:, :, height:, :width].sum(2, keepdim=True)
            level[:, :, -1:, -1:] += bordered[:, :, height:, width:].sum((2, 3), keepdim=True)
            gradients.append(level)
        return None, *gradients
