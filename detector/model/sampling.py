"""Sampling of the positive and negative boxes that the losses of a step use, for all images of a batch at once.

B images, N boxes of each, S samples of each. Results have fixed shapes and masks, so that the host never waits for the
device. The sampled boxes depend on torch's generator alone, which training seeds at each step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from detector.py_faster_rcnn.sampling import fill_with_replacement, repeat_last


@dataclass(frozen=True)
class Sample:
    """The sampled boxes of each image."""

    index: Tensor     # int64 [B, S], a column of N
    positive: Tensor  # bool [B, S]
    valid: Tensor     # bool [B, S]; False: the image had too few boxes, `index` repeats another and no loss counts it


def sample_boxes(positive: Tensor, negative: Tensor, batch_size: int, positive_fraction: float,
                 with_replacement: bool = False) -> Sample:
    """Samples boxes of each image: positives up to a fraction of the batch, then negatives.

    Args:
        positive, negative: bool [B, N], the boxes to draw from.
        batch_size: samples of each image.
        positive_fraction: at most this fraction of the batch is positive.
        with_replacement: see py_faster_rcnn/sampling.py.

    Returns:
        S = batch_size samples of each image, or N if that is smaller and nothing is drawn twice.
    """
    max_positives = min(int(batch_size * positive_fraction), positive.shape[1])
    positives = draw_without_replacement(positive, max_positives)
    num_positive = positive.sum(1, keepdim=True).clamp(max=max_positives)  # [B, 1]
    if with_replacement:
        positives, negatives, num_positive, num_sampled = fill_with_replacement(
            positive, negative, positives, num_positive, batch_size)
    else:
        size = min(batch_size, positive.shape[1])
        negatives = draw_without_replacement(negative, size)
        positives = repeat_last(positives, size)
        num_sampled = (num_positive + negative.sum(1, keepdim=True)).clamp(max=batch_size)
    slot = torch.arange(positives.shape[1], device=positive.device)[None]
    index = torch.where(slot < num_positive, positives, negatives.gather(1, (slot - num_positive).clamp(min=0)))
    index = index.gather(1, slot % num_sampled.clamp(min=1))
    return Sample(index, slot < num_positive, slot < num_sampled)


def draw_without_replacement(mask: Tensor, count: int) -> Tensor:
    """Returns `count` columns int64 [B, count] of a mask bool [B, N]: the true ones in random order, then others."""
    return torch.rand(mask.shape, device=mask.device).masked_fill_(~mask, -1).topk(count, dim=1).indices
