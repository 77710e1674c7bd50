"""Matching of boxes to objects, for all images of a batch at once.

B images, M objects, N boxes of each. Results have fixed shapes and masks, so that matching does not make the host wait
for the device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from detector.model.box_coder import BoxCoder
from detector.model.ground_truth import GroundTruth

MAX_OVERLAPS = 1 << 26  # of objects and boxes that are computed at once, 256 MiB; ordinary images have fewer


@dataclass(frozen=True)
class Match:
    """Each box and the object with which it has the highest IoU."""

    iou: Tensor            # float32 [B, N]; -1 in an image without objects
    matched_index: Tensor  # int64 [B, N], a column of GroundTruth
    is_best: Tensor        # bool [B, N]: the box has the highest IoU of all boxes with at least one object that it
                           # overlaps


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
    overlaps = len(ground_truth.boxes) * boxes.shape[1]  # with one object of each image
    part = max(1, MAX_OVERLAPS // max(1, overlaps))  # objects; images of more are matched in several parts
    matches = [match_part(objects, valid, boxes, box_coder, allowed, find_best)
               for objects, valid in zip(ground_truth.boxes.split(part, dim=1), ground_truth.valid.split(part, dim=1))]
    merged = matches[0]
    for number, other in enumerate(matches[1:], start=1):
        is_higher = other.iou > merged.iou
        merged = Match(torch.where(is_higher, other.iou, merged.iou),
                       torch.where(is_higher, other.matched_index + number * part, merged.matched_index),
                       merged.is_best | other.is_best)
    return merged


def match_part(objects: Tensor, valid: Tensor, boxes: Tensor, box_coder: BoxCoder, allowed: Tensor | None,
               find_best: bool) -> Match:
    """Returns what `match` returns, for objects [B, M, 4] of which `valid` (bool [B, M]) exist."""
    iou = box_coder.iou(objects, boxes)
    if allowed is not None:
        iou.masked_fill_(~allowed[:, None], -1)
    iou.masked_fill_(~valid[..., None], -1)
    highest_of_box, matched_index = iou.max(dim=1)
    if not find_best:
        return Match(highest_of_box, matched_index, torch.zeros_like(highest_of_box, dtype=torch.bool))
    highest_of_object = iou.amax(dim=2, keepdim=True)
    is_best = (iou == highest_of_object.masked_fill_(highest_of_object <= 0, 2)).any(dim=1)
    return Match(highest_of_box, matched_index, is_best)
