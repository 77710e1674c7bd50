"""Sampling of RoIs with replacement (model.roi.sample_with_replacement)."""

import torch
from torch import Tensor


def fill_with_replacement(positive: Tensor, negative: Tensor, positives: Tensor, num_positive: Tensor,
                          batch_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fills the batch of each image with negatives that are drawn with replacement.

    An image without negatives gets positives only, drawn with replacement. An image without both gets no sample; the
    original stops with an error there.

    Args:
        positive, negative: bool [B, N], the boxes to draw from.
        positives: int64 [B, P], positives that were drawn without replacement.
        num_positive: int64 [B, 1], how many of `positives` are to be used.
        batch_size: S, the samples of each image.

    Returns:
        Indices of positives and of negatives, int64 [B, S] each; the number of positives and of all samples,
        int64 [B, 1] each.
    """
    no_positive = positive.sum(1, keepdim=True) == 0
    no_negative = negative.sum(1, keepdim=True) == 0
    negatives = draw_with_replacement(negative, batch_size)
    only_positives = no_negative & ~no_positive
    positives = torch.where(only_positives, draw_with_replacement(positive, batch_size),
                            repeat_last(positives, batch_size))
    num_positive = torch.where(only_positives, batch_size, num_positive)
    num_sampled = torch.where(no_negative & no_positive, 0, batch_size)
    return positives, negatives, num_positive, num_sampled


def draw_with_replacement(mask: Tensor, count: int) -> Tensor:
    """Returns `count` columns int64 [B, count] of a mask bool [B, N], each drawn among all true ones.

    A row without a true column gives any column.
    """
    num_true = mask.sum(1, keepdim=True)
    columns = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)  # the true ones come first
    ranks = (torch.rand((len(mask), count), device=mask.device) * num_true).long()
    return columns.gather(1, ranks.minimum((num_true - 1).clamp(min=0)))


def repeat_last(columns: Tensor, count: int) -> Tensor:
    """Returns indices [B, n] as [B, count]: cut, or filled up by repeating the last; zeros for n = 0."""
    if columns.shape[1] == 0:
        return columns.new_zeros((len(columns), count))
    last = columns[:, -1:].expand(-1, max(0, count - columns.shape[1]))
    return torch.cat([columns[:, :count], last], dim=1)
