"""Pooling of the published tables: spatial-transformer crop, and the RoIAlign that their weights were trained with.

B images, F channels, R boxes, P sample points in each direction.
"""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def crop(feature: Tensor, rois: Tensor, points: int, scale: float, counts: list[int] | None = None) -> Tensor:
    """Samples points x points over each box, its corners included, bilinearly; zero outside the feature map.

    The crop layer of jwyang/faster-rcnn.pytorch, after Jaderberg et al. 2015, "Spatial Transformer Networks": sample j
    is at x1 / stride + j (x2 - x1) / stride / (points - 1). No gradient flows into the boxes.

    Args:
        feature: [B, F, h, w].
        rois: [R, 5], index of the image and box in pixels of the batch.
        scale: 1 / stride.
        counts: boxes of each image; see `sample_grid`.

    Returns:
        float32 [R, F, points, points].
    """
    corners = rois[:, 1:].detach() * scale
    x, y = linspace(corners[:, 0::2], points), linspace(corners[:, 1::2], points)
    return sample_grid(feature, rois[:, 0], x, y, counts)


def align_original(feature: Tensor, rois: Tensor, points: int, scale: float,
                   counts: list[int] | None = None) -> Tensor:
    """Samples points x points over each box and one cell more, bilinearly, as for the published tables.

    jwyang/faster-rcnn.pytorch, lib/model/roi_align (PyTorch 0.3 and 0.4): sample j is at x1 / stride + j (x2 / stride -
    x1 / stride + 1) / (points - 1). A sample outside [0, W) is zero. A sample beyond the centre of the last cell lies
    on the line through the last two cells. No gradient flows into the boxes. Arguments and result: see `crop`.
    """
    height, width = feature.shape[-2:]
    corners = rois[:, 1:].detach() * scale
    corners = torch.cat([corners[:, :2], corners[:, 2:] + 1], dim=1)
    x, y = linspace(corners[:, 0::2], points), linspace(corners[:, 1::2], points)
    outside = -2.0  # a sample there lies between two cells outside the map, so it is zero
    x = torch.where((x >= 0) & (x < width), x, outside)
    y = torch.where((y >= 0) & (y < height), y, outside)
    return sample_grid(extrapolate(extrapolate(feature.float()).mT).mT, rois[:, 0], x, y, counts)


def extrapolate(feature: Tensor) -> Tensor:
    """Returns the map with one more column at its right, on the line through the last two; a single column is
    repeated."""
    last_two = feature[..., -2:]
    return torch.cat([feature, 2 * last_two[..., -1:] - last_two[..., :1]], dim=-1)


def linspace(ends: Tensor, points: int) -> Tensor:
    """Returns evenly spaced points from the first to the second end, both included: [R, 2] -> [R, points]."""
    steps = torch.linspace(0, 1, points, device=ends.device, dtype=ends.dtype)
    return ends[:, :1] + steps * (ends[:, 1:] - ends[:, :1])


def sample_grid(feature: Tensor, image: Tensor, x: Tensor, y: Tensor, counts: list[int] | None = None) -> Tensor:
    """Samples the map of each box's image bilinearly; a cell outside the map counts as zero.

    Args:
        feature: [B, F, h, w].
        image: [R], the index of each box's image.
        x, y: [R, P], columns and rows of the samples, in cells.
        counts: boxes of each image, if `image` is in ascending order; without it the host waits for the device.

    Returns:
        float32 [R, F, P, P].
    """
    (height, width), points = feature.shape[-2:], x.shape[1]
    x, y = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1  # to grid_sample's -1 ... 1 from edge to edge
    grid = torch.stack([x[:, None, :].expand(-1, points, -1), y[:, :, None].expand(-1, -1, points)], dim=-1)
    if len(feature) == 1:
        return sample_one_image(feature.float(), grid)
    order = None if counts else torch.argsort(image, stable=True)
    grids = (grid if counts else grid[order]).split(counts or [int((image == n).sum()) for n in range(len(feature))])
    samples = torch.cat([sample_one_image(single, part) for single, part in zip(feature.float().split(1), grids)])
    return samples if counts else samples[torch.argsort(order)]


def sample_one_image(feature: Tensor, grid: Tensor) -> Tensor:
    """Samples one map [1, F, h, w] at the points of grid [R, P, P, 2]: [R, F, P, P]."""
    points = grid.shape[1]
    stacked = grid.reshape(1, -1, points, 2)  # the grids of all boxes, one below the other
    samples = grid_sample(feature, stacked, align_corners=False, padding_mode="zeros")
    return samples.reshape(feature.shape[1], -1, points, points).transpose(0, 1)
