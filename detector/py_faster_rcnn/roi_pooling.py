"""Pooling of the tables of 2017: spatial-transformer crop, and the RoIAlign that their weights were trained with."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def crop(feature: Tensor, rois: Tensor, points: int, scale: float, counts: list[int] | None = None) -> Tensor:
    """A grid of points x points bilinear samples over each box, its corners included; zero outside the feature map.

    Jaderberg et al. 2015, "Spatial Transformer Networks", as in the crop layer of jwyang/faster-rcnn.pytorch: sample j
    is at x1 / stride + j (x2 - x1) / stride / (points - 1), and no gradient flows into the boxes.
    """
    corners = rois[:, 1:].detach() * scale
    return sample(feature, rois[:, 0], spread(corners[:, 0::2], points), spread(corners[:, 1::2], points), counts)


def align_original(feature: Tensor, rois: Tensor, points: int, scale: float,
                   counts: list[int] | None = None) -> Tensor:
    """A grid of points x points bilinear samples over each box and one cell more, as for the published tables.

    jwyang/faster-rcnn.pytorch, lib/model/roi_align (PyTorch 0.3 and 0.4): sample j is at x1 / stride + j (x2 / stride -
    x1 / stride + 1) / (points - 1). Outside [0, W) it is zero; beyond the centre of the last cell the line through the
    last two goes on. No gradient flows into the boxes.
    """
    height, width = feature.shape[-2:]
    corners = rois[:, 1:].detach() * scale
    corners = torch.cat([corners[:, :2], corners[:, 2:] + 1], dim=1)
    x, y = spread(corners[:, 0::2], points), spread(corners[:, 1::2], points)
    outside = -2.0  # both cells between which a sample there would lie are outside the map, so it is zero
    x = torch.where((x >= 0) & (x < width), x, outside)
    y = torch.where((y >= 0) & (y < height), y, outside)
    return sample(one_more(one_more(feature.float()).mT).mT, rois[:, 0], x, y, counts)


def one_more(feature: Tensor) -> Tensor:
    """A map with one column more at its right, on the line through the last two; a single column is repeated."""
    ends = feature[..., -2:]
    return torch.cat([feature, 2 * ends[..., -1:] - ends[..., :1]], dim=-1)


def spread(ends: Tensor, points: int) -> Tensor:
    """Evenly spaced points from one end to the other, both included: [R, 2] -> [R, points]."""
    steps = torch.linspace(0, 1, points, device=ends.device, dtype=ends.dtype)
    return ends[:, :1] + steps * (ends[:, 1:] - ends[:, :1])


def sample(feature: Tensor, image: Tensor, x: Tensor, y: Tensor, counts: list[int] | None = None) -> Tensor:
    """Bilinear samples at the columns x [R, P] and rows y [R, P], in cells, of the map of each box's image [R]; a cell
    outside the map counts as zero. float32 [R, F, P, P].

    counts: how many boxes each image has, where they lie image by image; without it the host asks the device for them.
    """
    (height, width), points = feature.shape[-2:], x.shape[1]
    x, y = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1  # grid_sample's -1 ... 1, over the edges
    grid = torch.stack([x[:, None, :].expand(-1, points, -1), y[:, :, None].expand(-1, -1, points)], dim=-1)
    if len(feature) == 1:
        return sample_one(feature.float(), grid)
    order = None if counts else torch.argsort(image, stable=True)
    grids = (grid if counts else grid[order]).split(counts or [int((image == n).sum()) for n in range(len(feature))])
    # Each image from its own map; nothing is copied for a box.
    joined = torch.cat([sample_one(one, mine) for one, mine in zip(feature.float().split(1), grids)])
    return joined if counts else joined[torch.argsort(order)]


def sample_one(feature: Tensor, grid: Tensor) -> Tensor:
    """One map [1, F, h, w] at the points of grid [R, P, P, 2] -> [R, F, P, P]."""
    points = grid.shape[1]
    tall = grid.reshape(1, -1, points, 2)  # the boxes of one image, one below another
    sampled = grid_sample(feature, tall, align_corners=False, padding_mode="zeros")
    return sampled.reshape(feature.shape[1], -1, points, points).transpose(0, 1)
