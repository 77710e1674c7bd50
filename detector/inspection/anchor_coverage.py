"""Computes how well anchors cover the ground truth, and proposes anchor sizes and ratios that cover more.

Boxes [N, 4] and the padded size of the batch that each box is in, int [N, 2] (height, width), are in pixels of the
resized images. The recall at an IoU t is the fraction of boxes that some anchor overlaps by an IoU of t or more, as
model.rpn.fg_iou_thresh asks for.
"""

from dataclasses import dataclass, replace

import numpy as np

from detector.model.anchors import AnchorPlan

MAX_ROUNDS = 100  # of k-means; about ten are usually enough
FACTORS = 2.0 ** np.array([-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5])  # by which the current sizes are scaled


@dataclass(frozen=True)
class AnchorCoverage:
    """The best anchor of each box."""

    iou: np.ndarray         # float64 [N]
    level: np.ndarray       # int64 [N]
    size_ratio: np.ndarray  # float64 [N, 2], size and ratio of the anchor

    def recall_at(self, threshold: float, mask: np.ndarray | slice = slice(None)) -> float:
        """Returns the recall at an IoU, of all boxes or those where `mask` (bool [N]) is true; nan without boxes."""
        return float((self.iou[mask] >= threshold).mean()) if len(self.iou[mask]) else float("nan")


def compute_coverage(plan: AnchorPlan, boxes: np.ndarray, padded_sizes: np.ndarray) -> AnchorCoverage:
    """Finds the anchor with the highest IoU for each box.

    Anchors of one size and ratio form a grid, on which the nearest anchor has the highest IoU. So only one anchor of
    each size and ratio is compared with a box.

    Args:
        boxes: [N, 4], pixels.
        padded_sizes: int [N, 2], height and width of each box's batch.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    best = AnchorCoverage(np.zeros(len(boxes)), np.zeros(len(boxes), np.int64), np.ones((len(boxes), 2)))
    if not len(boxes):
        return best
    unique_sizes, size_index = np.unique(np.asarray(padded_sizes).reshape(-1, 2), axis=0, return_inverse=True)
    size_index = size_index.ravel()
    # Lists over the different padded sizes; each entry is a list over levels.
    grid_sizes = [plan.grid_sizes(int(height), int(width)) for height, width in unique_sizes]
    strides = [plan.anchors.strides(grid, tuple(map(int, size))) for grid, size in zip(grid_sizes, unique_sizes)]
    cell_anchors = [plan.cell_anchors([down for down, _ in levels]) for levels in strides]
    for level, size_ratios in enumerate(plan.size_ratio_pairs()):
        grid, stride = (np.array([levels[level] for levels in lists])[size_index] for lists in (grid_sizes, strides))
        for number, size_ratio in enumerate(size_ratios):
            anchor = np.array([levels[level][number] for levels in cell_anchors])[size_index]
            iou = best_grid_iou(boxes, anchor, grid, stride)
            better = iou > best.iou
            best.iou[better], best.level[better], best.size_ratio[better] = iou[better], level, size_ratio
    return best


def best_grid_iou(boxes: np.ndarray, anchor: np.ndarray, grid: np.ndarray, stride: np.ndarray) -> np.ndarray:
    """Returns the highest IoU of each box with the anchors of a grid, float64 [N].

    Args:
        anchor: [N, 4], the anchor of the first cell.
        grid: [N, 2], rows and columns.
        stride: [N, 2], pixels from row to row and from column to column.
    """
    inter = np.ones(len(boxes))
    for axis, low, high in ((0, 1, 3), (1, 0, 2)):  # rows and y, columns and x
        distance = (boxes[:, low] + boxes[:, high] - anchor[:, low] - anchor[:, high]) / 2
        shift = np.clip(np.round(distance / stride[:, axis]), 0, grid[:, axis] - 1) * stride[:, axis]
        start = np.maximum(boxes[:, low], anchor[:, low] + shift)
        end = np.minimum(boxes[:, high], anchor[:, high] + shift)
        inter *= np.clip(end - start, 0, None)
    box_areas, anchor_areas = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, anchor))
    return inter / np.maximum(box_areas + anchor_areas - inter, 1e-9)


def propose_anchors(plan: AnchorPlan, boxes: np.ndarray, padded_sizes: np.ndarray) -> tuple[AnchorPlan, AnchorCoverage]:
    """Proposes anchors with as many sizes for each level and as many ratios as `plan` has.

    Ratios and sizes are cluster centers of k-means on IoU (Redmon & Farhadi 2017, "YOLO9000", section 2): of boxes
    scaled to area 1 for the ratios, and of squares for the sizes. A level covers little if its stride is large compared
    with its size, so several candidates are tried: the centers spread over the first 1, 2, ... levels, after which the
    sizes double; and the current sizes times each of FACTORS.

    Args:
        boxes: [N, 4], pixels, N > 0.
        padded_sizes: int [N, 2], height and width of each box's batch.

    Returns:
        The candidate with the highest mean IoU, and its coverage.
    """
    heights = np.maximum(boxes[:, 3] - boxes[:, 1], 1e-3).astype(np.float64)
    widths = np.maximum(boxes[:, 2] - boxes[:, 0], 1e-3).astype(np.float64)
    current_sizes, box_size, root_ratio = plan.anchors.sizes, np.sqrt(heights * widths), np.sqrt(heights / widths)
    per_level = len(current_sizes[0])
    centers = cluster_shapes(np.stack([root_ratio, 1 / root_ratio], axis=1), len(plan.anchors.ratios))
    ratios = tuple(round(float(ratio), 2) for ratio in np.sort(centers[:, 0] / centers[:, 1]))
    candidates = [np.array(current_sizes) * factor for factor in FACTORS]
    for levels in range(1, len(current_sizes) + 1):
        centers = cluster_shapes(np.stack([box_size, box_size], axis=1), per_level * levels)
        sizes = list(np.sqrt(centers.prod(axis=1)).reshape(levels, per_level))
        while len(sizes) < len(current_sizes):
            sizes.append(2 * sizes[-1])
        candidates.append(np.array(sizes))
    plans = [replace(plan, anchors=replace(plan.anchors, sizes=tuple(map(tuple, sizes.round().clip(2).tolist())),
                                           ratios=ratios)) for sizes in candidates]
    return max(((candidate, compute_coverage(candidate, boxes, padded_sizes)) for candidate in plans),
               key=lambda pair: pair[1].iou.mean())


def cluster_shapes(shapes: np.ndarray, count: int) -> np.ndarray:
    """Clusters shapes by k-means with the distance 1 - IoU.

    The initial centers are evenly spaced quantiles, so that nothing is random.

    Args:
        shapes: float64 [N, 2], heights and widths.

    Returns:
        Cluster centers [count, 2], the smallest area first.
    """
    # Squares differ in area, and shapes of area 1 in their ratio; either sorts them.
    ordered = shapes[np.lexsort((shapes[:, 0] / shapes[:, 1], shapes.prod(axis=1).round(9)))]
    centers = ordered[((np.arange(count) + 0.5) / count * len(ordered)).astype(int)]
    cluster = np.full(len(shapes), -1)
    for _ in range(MAX_ROUNDS):
        previous, cluster = cluster, np.argmax(shape_iou(shapes, centers), axis=1)
        if np.array_equal(previous, cluster):
            break
        for number in np.unique(cluster):  # geometric mean: half and twice a size are equally far from it
            centers[number] = np.exp(np.log(shapes[cluster == number]).mean(axis=0))
    return centers[np.argsort(centers.prod(axis=1), kind="stable")]


def shape_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the IoU of shapes [N, 2] and [M, 2] (height, width) with a common center, [N, M]."""
    inter = np.minimum(a[:, None], b[None]).prod(axis=2)
    return inter / (a.prod(axis=1)[:, None] + b.prod(axis=1)[None] - inter)
