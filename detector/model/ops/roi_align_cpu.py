"""RoIAlign on the CPU as one embedding_bag: several times as fast as torchvision's loops, on all cores both ways.

Every output bin is a weighted sum of the feature vectors at a few pixels. The whole pyramid is one table of vectors,
and pooling is one `embedding_bag` on it, whose backward pass PyTorch also shares among cores. The channels_last layout
avoids a copy, because the vector of each pixel is contiguous there. R boxes, F channels, S bins in each direction.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def roi_align_cpu(features: list[Tensor], strides: list[int], level: Tensor, rois: Tensor, size: int,
                  sampling_ratio: int) -> Tensor:
    """Pools every box from its level, as torchvision's roi_align(aligned=False). No gradient flows into the boxes.

    Args:
        features: [B, F, h, w] of each level.
        strides: of each level, pixels.
        level: int64 [R], the level of each box.
        rois: [R, 5], index of the image and box in pixels of the batch.
        size: S.
        sampling_ratio: samples of a bin in each direction, at least 1.

    Returns:
        [R, F, S, S] in the dtype of the features; sums are in float32.
    """
    channels, rois = features[0].shape[1], rois.detach()
    table = torch.cat([feature.permute(0, 2, 3, 1).reshape(-1, channels) for feature in features]).float()
    rows = [feature.shape[0] * feature.shape[2] * feature.shape[3] for feature in features]
    shapes = torch.tensor([[sum(rows[:n]), *feature.shape[-2:]] for n, feature in enumerate(features)])
    first_row, height, width = shapes.to(rois.device)[level].unbind(1)
    scale = torch.tensor([1 / stride for stride in strides], dtype=rois.dtype, device=rois.device)[level]
    y, y_weight = bilinear_pixels(rois[:, 2] * scale, rois[:, 4] * scale, height, size, sampling_ratio)
    x, x_weight = bilinear_pixels(rois[:, 1] * scale, rois[:, 3] * scale, width, size, sampling_ratio)
    y = (first_row + rois[:, 0].long() * height * width)[:, None, None] + y * width[:, None, None]
    index = y[:, :, None, :, None] + x[:, None, :, None, :]          # [R, S, S, 2 sampling_ratio, 2 sampling_ratio]
    weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :] / sampling_ratio ** 2
    sums = embedding_bag(index.reshape(-1, 4 * sampling_ratio ** 2), table, mode="sum",
                         per_sample_weights=weight.reshape(-1, 4 * sampling_ratio ** 2))
    return sums.reshape(len(rois), size, size, channels).permute(0, 3, 1, 2).to(features[0].dtype)


def bilinear_pixels(start: Tensor, end: Tensor, length: Tensor, size: int,
                    sampling_ratio: int) -> tuple[Tensor, Tensor]:
    """Returns the pixels that each bin reads in one direction, and their weights: [R, S, 2 sampling_ratio] each.

    A sample before the first pixel or after the last one reads that pixel; more than one pixel away it counts as 0.

    Args:
        start, end: [R], of each box, in pixels of its level.
        length: int64 [R], pixels of the level.
    """
    step = (end - start).clamp(min=1) / size
    bin_index = torch.arange(size, device=start.device, dtype=start.dtype)[:, None]
    sample = torch.arange(sampling_ratio, device=start.device, dtype=start.dtype) + 0.5
    start, step, last = start[:, None, None], step[:, None, None], length[:, None, None] - 1
    position = start + bin_index * step + sample * step / sampling_ratio        # [R, S, sampling_ratio]
    inside = (position >= -1) & (position <= last + 1)
    position = position.clamp(min=0)
    low = torch.minimum(position.long(), last).clamp(min=0)  # also valid for a NaN coordinate
    fraction = torch.where(low == last, 0, position - low)
    return (torch.stack([low, torch.minimum(low + 1, last)], dim=-1).flatten(2),
            (torch.stack([1 - fraction, fraction], dim=-1) * inside[..., None]).flatten(2))
