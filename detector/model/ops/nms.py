"""Non-maximum suppression whose result is a mask of fixed size, so that the host need not learn how many boxes remain.

G groups that are suppressed independently (an image, or one level of an image), K boxes in each, by falling score.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torchvision.ops import nms

from detector.model.box_coder import box_iou
from detector.structures import ceil_div

CHUNK = 128      # boxes that are decided at once; small chunks need few rounds
MAX_CHUNKS = 32  # more boxes make larger chunks, because each chunk costs dozens of small kernels


def nms_mask(boxes: Tensor, threshold: float, rounds: int) -> Tensor:
    """Returns the boxes that greedy NMS keeps, as a mask bool [G, K].

    On a CPU torchvision's kernel is used whatever `rounds` is. The kernel uses one core, so the groups are shared among
    as many threads as PyTorch may use.

    Args:
        boxes: [G, K, 4], exclusive, by falling score. A box without area suppresses nothing.
        threshold: a box is dropped if its IoU with a kept box of higher score is above this.
        rounds: 0: torchvision's kernel for each group, exact, for whose result the host waits on a GPU. Otherwise
            `nms_by_rounds`, for which the host does not wait.
    """
    if rounds and boxes.is_cuda:
        return nms_by_rounds(boxes, threshold, rounds)
    kept = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    scores = torch.arange(boxes.shape[1], 0, -1, device=boxes.device, dtype=boxes.dtype)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        sequential = boxes.is_cuda or torch.get_num_threads() == 1
        kept_rows = (map if sequential else threads.map)(lambda group: nms(group, scores, threshold), boxes)
        for mask, rows in zip(kept, kept_rows):
            mask[rows] = True
    return kept


def nms_by_rounds(boxes: Tensor, threshold: float, rounds: int) -> Tensor:
    """Returns the boxes that NMS keeps, as a mask bool [G, K], after a fixed number of operations.

    Greedy NMS is the only fixed point of "a box is kept if no kept box of higher score overlaps it" (Zheng et al. 2020,
    "Cluster-NMS"). The fixed point is computed for one chunk of boxes after the other:

        kept = all boxes
        for chunk in chunks of `kept`, by falling score:
            candidates = kept[chunk]
            repeat `rounds` times, once more if that is even:
                kept[chunk] = candidates that no higher-scored box of kept[chunk] overlaps
            drop every later box that a box of kept[chunk] overlaps

    Guarantee: after n rounds a box is decided correctly if every chain of overlapping boxes of its chunk that leads
    from it to ever higher scores has at most n boxes. With as many rounds as a chunk has boxes, the result is greedy
    NMS.

    Difference: boxes at the end of a longer chain may still be undecided after the last round. The number of rounds is
    odd, so that an undecided box is dropped; a box of lower score that it would have suppressed may stay. With 32
    rounds about 12 of 2,000 anchors differ if scores decrease steadily along a row of overlapping anchors; none
    differed with the other score patterns that were tried.

    Args: see `nms_mask`.
    """
    dtype = torch.float16 if boxes.is_cuda else torch.float32  # of small counts, in a fast matrix product
    kept = boxes.new_ones((boxes.shape[0], 1, boxes.shape[1]), dtype=dtype)
    size = max(CHUNK, ceil_div(boxes.shape[1], MAX_CHUNKS))
    with torch.autocast(boxes.device.type, enabled=False):  # autocast would copy the overlaps in every round
        for first in range(0, boxes.shape[1], size):
            chunk = boxes[:, first:first + size]
            overlaps = (box_iou(chunk, boxes[:, first:]) > threshold).to(dtype)  # [G, chunk, K - first]
            in_chunk, in_later = overlaps[..., :size].triu(1), overlaps[..., size:]
            candidates = kept[..., first:first + size]
            kept_of_chunk = candidates
            for _ in range(rounds + 1 - rounds % 2):
                kept_of_chunk = drop_overlapped(candidates, kept_of_chunk, in_chunk)
            kept[..., first:first + size] = kept_of_chunk
            kept[..., first + size:] = drop_overlapped(kept[..., first + size:], kept_of_chunk, in_later)
    return kept[:, 0] > 0


def drop_overlapped(candidates: Tensor, kept: Tensor, overlaps: Tensor) -> Tensor:
    """Returns the candidates [G, 1, N] that no box of kept [G, 1, M] overlaps; overlaps [G, M, N]. All are 0 or 1."""
    return torch.baddbmm(candidates, kept, overlaps, alpha=-1).clamp_(min=0)
