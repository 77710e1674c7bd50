"""Non-maximum suppression that answers with a mask of fixed size, so that a step need not learn how many are left.

G groups that do not see each other (an image, or one of its levels), K boxes in each, the best first.
"""

import torch
from torch import Tensor
from torchvision.ops import nms

from detector.model.coding import overlaps

PAIRS_AT_ONCE = 2 ** 28  # IoUs held at a time, 1 GiB each way in float32


def survivors(boxes: Tensor, threshold: float, rounds: int) -> Tensor:
    """Which boxes [G, K, 4] (exclusive x2 and y2; without area: not there) survive greedy NMS: bool [G, K].

    rounds = 0 is torchvision's kernel, group by group: the exact answer, and on a GPU one wait for its size each.
    Otherwise see `by_rounds`, which does not wait. On the CPU nothing is waited for, and the kernel is always used.
    """
    if rounds and boxes.is_cuda:
        at_once = max(1, PAIRS_AT_ONCE // boxes.shape[1] ** 2)
        return torch.cat([by_rounds(some, threshold, rounds) for some in boxes.split(at_once)])
    kept = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    falling = torch.arange(boxes.shape[1], 0, -1, device=boxes.device, dtype=torch.float32)
    for group, mask in zip(boxes, kept):
        mask[nms(group, falling, threshold)] = True
    return kept


def by_rounds(boxes: Tensor, threshold: float, rounds: int) -> Tensor:
    """Greedy NMS as a fixed point (Zheng et al. 2020, "Cluster-NMS"): a box is kept if no kept better box overlaps it.

    Starting from "all are kept", round n settles every box whose chain of better overlapping boxes is shorter than n;
    an even number of rounds leaves too many, an odd one too few. What is still open after the last round goes: the
    answer is part of that of greedy NMS, and all of it where no chain is longer than `rounds`.
    """
    above = torch.ones(boxes.shape[1:2] * 2, dtype=torch.bool, device=boxes.device).triu_(1)
    rivals = ((overlaps(boxes, boxes) > threshold) & above).to(torch.float16 if boxes.is_cuda else torch.float32)
    kept = rivals.new_ones((len(boxes), 1, boxes.shape[1]))
    with torch.autocast(boxes.device.type, enabled=False):  # it would copy the rivals in every round
        for _ in range(rounds + 1 - rounds % 2):
            kept = (torch.bmm(kept, rivals) == 0).to(rivals.dtype)
    return kept[:, 0] > 0
