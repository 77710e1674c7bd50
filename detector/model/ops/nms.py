"""Non-maximum suppression that answers with a mask of fixed size, so that a step need not learn how many are left.

G groups that do not see each other (an image, or one of its levels), K boxes in each, the best first.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torchvision.ops import nms

from detector.model.box_coder import overlaps

CHUNK = 128  # boxes settled together, or more where that would be more than TURNS: fewer need fewer rounds
TURNS = 32   # each costs as many small kernels as there are rounds


def nms_mask(boxes: Tensor, threshold: float, rounds: int) -> Tensor:
    """Which boxes [G, K, 4] (exclusive x2 and y2; without area: not there) survive greedy NMS: bool [G, K].

    rounds = 0 is torchvision's kernel, group by group: the exact answer, and on a GPU one wait for its size each.
    Otherwise see `by_rounds`, which does not wait. On the CPU nothing is waited for, and the kernel is always used; it
    computes on one core, so that groups are shared among as many threads as PyTorch may use.
    """
    if rounds and boxes.is_cuda:
        return by_rounds(boxes, threshold, rounds)
    kept = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    falling = torch.arange(boxes.shape[1], 0, -1, device=boxes.device, dtype=torch.float32)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        alone = boxes.is_cuda or torch.get_num_threads() == 1
        found = (map if alone else threads.map)(lambda group: nms(group, falling, threshold), boxes)
        for mask, rows in zip(kept, found):
            mask[rows] = True
    return kept


def by_rounds(boxes: Tensor, threshold: float, rounds: int) -> Tensor:
    """Greedy NMS in a fixed number of steps: a chunk of the best boxes settles its own, then removes from the rest.

    Within a chunk it is a fixed point (Zheng et al. 2020, "Cluster-NMS"): a box is kept if no kept better box overlaps
    it. Starting from "all are kept", round n settles every box whose chain of better overlapping boxes, each a rival of
    the next, is shorter than n. As many rounds as a chunk holds give greedy NMS. With fewer, where a chain is
    longer, what lies behind its end is left out, and what that would have removed may stay: at 32, a dozen of 2,000
    anchors whose scores fall along a line, and none under any other scores that were tried.
    """
    kind = torch.float16 if boxes.is_cuda else torch.float32  # of counts, for a fast product
    kept = boxes.new_ones((len(boxes), 1, boxes.shape[1]), dtype=kind)
    size = max(CHUNK, -(-boxes.shape[1] // TURNS))
    with torch.autocast(boxes.device.type, enabled=False):  # it would copy the rivals in every round
        for first in range(0, boxes.shape[1], size):
            chunk = boxes[:, first:first + size]
            rivals = (overlaps(chunk, boxes[:, first:]) > threshold).to(kind)  # [G, chunk, K - first]
            inside, beyond = rivals[..., :size].triu(1), rivals[..., size:]
            left = kept[..., first:first + size]
            settled = left
            for _ in range(rounds + 1 - rounds % 2):  # after an odd number, what is open is out
                settled = without(left, settled, inside)
            kept[..., first:first + size] = settled
            kept[..., first + size:] = without(kept[..., first + size:], settled, beyond)
    return kept[:, 0] > 0


def without(left: Tensor, settled: Tensor, rivals: Tensor) -> Tensor:
    """Zeros and ones [G, 1, N]: what is left [G, 1, N] of what no settled [G, 1, M] box overlaps [G, M, N]."""
    return torch.baddbmm(left, settled, rivals, alpha=-1).clamp_(min=0)
