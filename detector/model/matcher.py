"""Which anchors and proposals a step learns from: fixed sizes and masks, all images at once.

B images, M objects, N boxes of each, S samples of each. What is drawn depends on torch's generator alone, which is
seeded for each step (see detector/training/step.py).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from detector.model.box_coder import overlaps
from detector.model.ground_truth import GroundTruth


@dataclass(frozen=True)
class Match:
    """Each box and the object that it overlaps most."""

    overlap: Tensor  # float32 [B, N]; -1 in an image without objects
    which: Tensor    # int64 [B, N], a column of Truth
    best: Tensor     # bool [B, N]: no box overlaps some object more than this one does


@dataclass(frozen=True)
class Sample:
    """Rows of N, and what they are: int64 [B, S] and two masks bool [B, S]."""

    index: Tensor
    positive: Tensor
    real: Tensor  # False: there were not enough boxes; the row repeats another, which no loss counts


def match(truth: GroundTruth, boxes: Tensor, extent: int, allowed: Tensor | None = None, best: bool = False) -> Match:
    """boxes [B, N, 4], or [1, N, 4] shared by all images. Only `allowed` ones (bool [B, N]) compete to be the best.

    Several boxes can be equally good. An object that no box overlaps has no best box, though torchvision calls all
    boxes its best ones.
    """
    iou = overlaps(truth.boxes, boxes, extent)
    if allowed is not None:
        iou.masked_fill_(~allowed[:, None], -1)
    iou.masked_fill_(~truth.real[..., None], -1)
    overlap, which = iou.max(dim=1)
    if not best:
        return Match(overlap, which, torch.zeros_like(overlap, dtype=torch.bool))
    most = iou.amax(dim=2, keepdim=True)
    return Match(overlap, which, (iou == most.masked_fill_(most <= 0, 2)).any(dim=1))


def sample_boxes(positive: Tensor, negative: Tensor, batch: int, share: float, replacement: bool = False) -> Sample:
    """`batch` boxes of each image out of two masks bool [B, N], at most this share of them positive.

    Positives are drawn without replacement, and negatives fill the rest. With replacement (the original's RoIs, RECIPE
    3): negatives are drawn with it, so that the batch is full wherever there is one; where there is none, all are
    positives, drawn with replacement. Where there is neither, nothing is drawn; the original stops with an error.
    """
    slots = min(batch, positive.shape[1]) if not replacement else batch
    most = min(int(batch * share), positive.shape[1])
    positives, negatives = positive.sum(1, keepdim=True), negative.sum(1, keepdim=True)  # [B, 1]
    first = shuffled(positive, most)
    taken = positives.clamp(max=most)
    if replacement:
        second = drawn(negative, slots)
        full = (negatives > 0) | (positives > 0)
        lonely = (negatives == 0) & (positives > 0)
        first = torch.where(lonely, drawn(positive, slots), spread(first, slots))
        taken = torch.where(lonely, slots, taken)
        end = torch.where(full, slots, 0)
    else:
        second = shuffled(negative, slots)
        first = spread(first, slots)
        end = (taken + negatives).clamp(max=batch)
    slot = torch.arange(slots, device=positive.device)[None]
    index = torch.where(slot < taken, first, second.gather(1, (slot - taken).clamp(min=0)))
    index = index.gather(1, slot % end.clamp(min=1))
    return Sample(index, slot < taken, slot < end)


def shuffled(mask: Tensor, count: int) -> Tensor:
    """`count` rows int64 [B, count] of bool [B, N]: those of the mask first, in random order, then others."""
    return torch.rand(mask.shape, device=mask.device).masked_fill_(~mask, -1).topk(count, dim=1).indices


def drawn(mask: Tensor, count: int) -> Tensor:
    """`count` rows int64 [B, count] of a mask, each drawn among all of them; any row where the mask is empty."""
    there = mask.sum(1, keepdim=True)
    rows = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)  # those of the mask come first
    turn = (torch.rand((len(mask), count), device=mask.device) * there).long()
    return rows.gather(1, turn.minimum((there - 1).clamp(min=0)))


def spread(rows: Tensor, count: int) -> Tensor:
    """Rows [B, n], made [B, count] by repeating the last."""
    if rows.shape[1] == 0:
        return rows.new_zeros((len(rows), count))
    last = rows[:, -1:].expand(-1, max(0, count - rows.shape[1]))
    return torch.cat([rows[:, :count], last], dim=1)
