"""RoIAlign on the CPU as weighted sums of rows: several times as fast as torchvision's loops, on all cores both ways.

Every output cell is a weighted sum of the feature vectors at a few pixels, so that a whole pyramid is one table of
vectors and pooling is one `embedding_bag`, whose backward pass PyTorch also shares among cores. It needs the vectors of
pixels side by side in memory, which is the channels_last layout. R boxes, F channels, S cells in each direction.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def align_by_sums(features: list[Tensor], strides: list[int], level: Tensor, rois: Tensor, size: int,
                  ratio: int) -> Tensor:
    """features [B, F, h, w] of each level, level int64 [R], rois [R, 5] (image, box) -> [R, F, S, S].

    torchvision's roi_align(aligned=False) of each box on its level, with `ratio` samples a cell in each direction. No
    gradient flows into the boxes.
    """
    channels, rois = features[0].shape[1], rois.detach()
    table = torch.cat([feature.permute(0, 2, 3, 1).reshape(-1, channels) for feature in features]).float()
    rows = [feature.shape[0] * feature.shape[2] * feature.shape[3] for feature in features]
    shapes = torch.tensor([[sum(rows[:n]), *feature.shape[-2:]] for n, feature in enumerate(features)])
    first, height, width = shapes.to(rois.device)[level].unbind(1)
    scale = torch.tensor([1 / stride for stride in strides], dtype=rois.dtype, device=rois.device)[level]
    y, down = pixels(rois[:, 2] * scale, rois[:, 4] * scale, height, size, ratio)
    x, across = pixels(rois[:, 1] * scale, rois[:, 3] * scale, width, size, ratio)
    y = (first + rois[:, 0].long() * height * width)[:, None, None] + y * width[:, None, None]
    index = y[:, :, None, :, None] + x[:, None, :, None, :]                     # [R, S, S, 2 ratio, 2 ratio]
    weight = down[:, :, None, :, None] * across[:, None, :, None, :] / ratio ** 2
    bags = embedding_bag(index.reshape(-1, 4 * ratio ** 2), table, mode="sum",
                         per_sample_weights=weight.reshape(-1, 4 * ratio ** 2))
    return bags.reshape(len(rois), size, size, channels).permute(0, 3, 1, 2).to(features[0].dtype)


def pixels(start: Tensor, end: Tensor, length: Tensor, size: int, ratio: int) -> tuple[Tensor, Tensor]:
    """In one direction, pixels int64 [R, S, 2 ratio] that each cell reads, and their bilinear weights.

    A sample before the first pixel or after the last one reads that pixel; one more than a pixel away counts as 0.
    """
    step = (end - start).clamp(min=1) / size
    cell = torch.arange(size, device=start.device, dtype=start.dtype)[:, None]
    inner = torch.arange(ratio, device=start.device, dtype=start.dtype) + 0.5
    start, step, last = start[:, None, None], step[:, None, None], length[:, None, None] - 1
    place = start + cell * step + inner * step / ratio                          # [R, S, ratio]
    seen = (place >= -1) & (place <= last + 1)
    place = place.clamp(min=0)
    low = torch.minimum(place.long(), last).clamp(min=0)  # of a box that is not a number, too
    share = torch.where(low == last, 0, place - low)
    return (torch.stack([low, torch.minimum(low + 1, last)], dim=-1).flatten(2),
            (torch.stack([1 - share, share], dim=-1) * seen[..., None]).flatten(2))
