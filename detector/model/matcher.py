"""Matching of boxes to objects, and sampling of the boxes that a training step uses: all images of a batch at once.

B images, M objects, N boxes of each, S samples of each. Results have fixed shapes and masks, so that the host never
waits for the device. The sampled boxes depend on torch's generator alone, which training seeds at each step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from detector.model.box_coder import BoxCoder
from detector.model.ground_truth import GroundTruth
from detector.py_faster_rcnn.sampling import fill_with_replacement, repeat_last


@dataclass(frozen=True)
class Match:
    """Each box and the object with which it has the highest IoU."""

    iou: Tensor            # float32 [B, N]; -1 in an image without objects
    matched_index: Tensor  # int64 [B, N], a column of GroundTruth
    is_best: Tensor        # bool [B, N]: no other box has a higher IoU with some object


@dataclass(frozen=True)
class Sample:
    """The sampled boxes of each image."""

    index: Tensor     # int64 [B, S], a column of N
    positive: Tensor  # bool [B, S]
    valid: Tensor     # bool [B, S]; False: the image had too few boxes, `index` repeats another and no loss counts it


def match(ground_truth: GroundTruth, boxes: Tensor, box_coder: BoxCoder, allowed: Tensor | None = None,
          find_best: bool = False) -> Match:
    """Returns for each box the object with the highest IoU.

    Args:
        boxes: float32 [B, N, 4], or [1, N, 4] for all images.
        box_coder: the convention of the boxes.
        allowed: bool [B, N]; boxes where it is False match nothing. None: all are allowed.
        find_best: also fill `is_best` (torchvision's allow_low_quality_matches). Several boxes can have the same
            highest IoU with an object; an object that no box overlaps has no best box (in torchvision, every box is its
            best).
    """
    iou = box_coder.iou(ground_truth.boxes, boxes)
    if allowed is not None:
        iou.masked_fill_(~allowed[:, None], -1)
    iou.masked_fill_(~ground_truth.valid[..., None], -1)
    highest_of_box, matched_index = iou.max(dim=1)
    if not find_best:
        return Match(highest_of_box, matched_index, torch.zeros_like(highest_of_box, dtype=torch.bool))
    highest_of_object = iou.amax(dim=2, keepdim=True)
    is_best = (iou == highest_of_object.masked_fill_(highest_of_object <= 0, 2)).any(dim=1)
    return Match(highest_of_box, matched_index, is_best)


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
