"""How much of the ground truth the anchors reach, and which sides and ratios would reach more.

N boxes and their canvases are in the pixels that the network sees. A box is reached at t if some anchor overlaps it by
an IoU of t or more: what model.rpn.fg_iou_thresh asks for.
"""

from dataclasses import dataclass, replace

import numpy as np

from detector.model.anchors import AnchorPlan

ROUNDS = 100  # of k-means, at most; it usually stands still after ten
FACTORS = 2.0 ** np.array([-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5])  # that the present sides are multiplied by


@dataclass(frozen=True)
class Reach:
    """Of each box its best anchor: overlap float64 [N], level int64 [N] and shape (side, ratio) float64 [N, 2]."""

    iou: np.ndarray
    level: np.ndarray
    shape: np.ndarray

    def share(self, threshold: float, which: np.ndarray | slice = slice(None)) -> float:
        """Of the boxes that some anchor reaches; nan without boxes."""
        return float((self.iou[which] >= threshold).mean()) if len(self.iou[which]) else float("nan")


def reach(plan: AnchorPlan, boxes: np.ndarray, canvases: np.ndarray) -> Reach:
    """The best anchor of each of boxes [N, 4] on its canvas, canvases int [N, 2] (height, width).

    Anchors of one shape lie on a grid, and of those the nearest one overlaps most: so each shape is tried once.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    best = Reach(np.zeros(len(boxes)), np.zeros(len(boxes), np.int64), np.ones((len(boxes), 2)))
    if not len(boxes):
        return best
    kinds, kind_of = np.unique(np.asarray(canvases).reshape(-1, 2), axis=0, return_inverse=True)
    kind_of = kind_of.ravel()
    cells = [plan.cells(int(height), int(width)) for height, width in kinds]
    strides = [plan.anchors.strides(grid, tuple(map(int, canvas))) for grid, canvas in zip(cells, kinds)]
    first = [plan.first_cells([down for down, _ in levels]) for levels in strides]
    for level, shapes in enumerate(plan.shapes()):
        grid, stride = (np.array([levels[level] for levels in each])[kind_of] for each in (cells, strides))
        for number, shape in enumerate(shapes):
            anchor = np.array([levels[level][number] for levels in first])[kind_of]
            overlap = best_overlap(boxes, anchor, grid, stride)
            better = overlap > best.iou
            best.iou[better], best.level[better], best.shape[better] = overlap[better], level, shape
    return best


def best_overlap(boxes: np.ndarray, anchor: np.ndarray, grid: np.ndarray, stride: np.ndarray) -> np.ndarray:
    """The highest IoU [N] of each box with the anchors that begin with `anchor` [N, 4] in the first cell of a grid
    [N, 2] (rows, columns), and go on by stride [N, 2]."""
    inter = np.ones(len(boxes))
    for axis, low, high in ((0, 1, 3), (1, 0, 2)):  # rows and y, columns and x
        apart = (boxes[:, low] + boxes[:, high] - anchor[:, low] - anchor[:, high]) / 2
        moved = np.clip(np.round(apart / stride[:, axis]), 0, grid[:, axis] - 1) * stride[:, axis]
        shared = np.minimum(boxes[:, high], anchor[:, high] + moved) - np.maximum(boxes[:, low], anchor[:, low] + moved)
        inter *= np.clip(shared, 0, None)
    areas, own = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, anchor))
    return inter / np.maximum(areas + own - inter, 1e-9)


def propose(plan: AnchorPlan, boxes: np.ndarray, canvases: np.ndarray) -> tuple[AnchorPlan, Reach]:
    """As many sides for each level and as many ratios as there are, by k-means on the IoU (Redmon & Farhadi 2017,
    "YOLO9000", section 2) of squares for the sides, and of shapes of area 1 for the ratios; and what they reach.

    A side that is right on average is of no use on a level whose cells are too far apart for it. So the clusters are
    spread over the first levels only, which go on by doubling; all numbers of levels are tried, and the present sides
    times one factor, too. The highest mean IoU wins.
    """
    high = np.maximum(boxes[:, 3] - boxes[:, 1], 1e-3).astype(np.float64)
    wide = np.maximum(boxes[:, 2] - boxes[:, 0], 1e-3).astype(np.float64)
    sizes, side, root = plan.anchors.sizes, np.sqrt(high * wide), np.sqrt(high / wide)
    each = len(sizes[0])
    shapes = cluster(np.stack([root, 1 / root], axis=1), len(plan.anchors.ratios))
    ratios = tuple(round(float(ratio), 2) for ratio in np.sort(shapes[:, 0] / shapes[:, 1]))
    tried = [np.array(sizes) * factor for factor in FACTORS]
    for levels in range(1, len(sizes) + 1):
        found = list(np.sqrt(cluster(np.stack([side, side], axis=1), each * levels).prod(axis=1)).reshape(levels, each))
        while len(found) < len(sizes):
            found.append(2 * found[-1])
        tried.append(np.array(found))
    plans = [replace(plan, anchors=replace(plan.anchors, sizes=tuple(map(tuple, sides.round().clip(2).tolist())),
                                           ratios=ratios)) for sides in tried]
    return max(((one, reach(one, boxes, canvases)) for one in plans), key=lambda pair: pair[1].iou.mean())


def cluster(shapes: np.ndarray, count: int) -> np.ndarray:
    """k-means of shapes [N, 2] (height, width) with the distance 1 - IoU: centres [count, 2], the smallest first.

    Begins at evenly spaced quantiles, so nothing is random.
    """
    # Of squares the area differs and of shapes of one area the ratio, so either alone gives the order.
    order = shapes[np.lexsort((shapes[:, 0] / shapes[:, 1], shapes.prod(axis=1).round(9)))]
    centres = order[((np.arange(count) + 0.5) / count * len(order)).astype(int)]
    mine = np.full(len(shapes), -1)
    for _ in range(ROUNDS):
        before, mine = mine, np.argmax(shape_iou(shapes, centres), axis=1)
        if np.array_equal(before, mine):
            break
        for number in np.unique(mine):  # geometric means: twice as large and half as large are equally far away
            centres[number] = np.exp(np.log(shapes[mine == number]).mean(axis=0))
    return centres[np.argsort(centres.prod(axis=1), kind="stable")]


def shape_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of shapes laid upon each other's centre: [N, 2] x [M, 2] -> [N, M]."""
    inter = np.minimum(a[:, None], b[None]).prod(axis=2)
    return inter / (a.prod(axis=1)[:, None] + b.prod(axis=1)[None] - inter)
