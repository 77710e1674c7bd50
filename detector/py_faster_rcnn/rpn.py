"""The RPN's two scores for each anchor (model.rpn.softmax_objectness) and its divisor of the box loss."""

import torch
from torch import Tensor


def softmax_logit(scores: Tensor, dim: int) -> Tensor:
    """Returns one logit for each anchor from two scores: the difference of object and background.

    The first half of dimension `dim` holds the scores of background, the second half those of object. The sigmoid of
    the difference is the softmax of the two scores.
    """
    background, objectness = scores.chunk(2, dim=dim)
    return objectness - background


def two_scores(weights: Tensor) -> Tensor:
    """Converts rows of a one-logit layer [A, ...] to rows [2 A, ...] with the same softmax: background is 0."""
    return torch.cat([torch.zeros_like(weights), weights])


def last_image_normalizer(sampled: Tensor) -> Tensor:
    """Returns the divisor of the box loss for model.rpn.box_loss_normalizer=last_image, float32 [].

    The original divides the loss of every image by the sampled anchors of the last image of the batch. A second oddity
    of the original, that the size of the first image counts for all images, is not reproduced.

    Args:
        sampled: float32 [B, S], 1 where a slot holds a sampled anchor.
    """
    return len(sampled) * sampled[-1].sum().clamp(min=1)
