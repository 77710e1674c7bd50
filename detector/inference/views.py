"""Test-time augmentation (evaluate.tta): flipped views of an image, and merging the detections of all its views."""

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from detector.structures import flip_boxes

View = tuple[bool, bool, bool]  # whether x and y change places, then left and right, then top and bottom
FLIPS: tuple[View, ...] = ((False, False, False), (False, True, False), (False, False, True), (False, True, True))
VIEWS: dict[str, tuple[View, ...]] = {  # by the value of evaluate.tta; the first view is the image itself
    "none": FLIPS[:1], "hflip": FLIPS[:2], "flips": FLIPS,
    "symmetries": FLIPS + tuple((True, *view[1:]) for view in FLIPS)}


def view_of(image: Tensor, view: View) -> Tensor:
    """Returns the view of an image [3, H, W]."""
    transposed, mirrored, upside_down = view
    image = image.transpose(-2, -1) if transposed else image
    axes = [axis for axis, is_flipped in ((-1, mirrored), (-2, upside_down)) if is_flipped]
    return image.flip(axes) if axes else image


def boxes_in_image(boxes: Tensor, view: View, image: Tensor) -> Tensor:
    """Returns the boxes [K, 4] of a view in pixels of its image [3, H, W].

    With model.inclusive_boxes they are off by less than a pixel where the image was made smaller for the network, as
    the width of a pixel is added after the resize.
    """
    transposed, mirrored, upside_down = view
    height, width = reversed(image.shape[-2:]) if transposed else image.shape[-2:]
    boxes = flip_boxes(boxes, width, 0) if mirrored else boxes
    boxes = flip_boxes(boxes, height, 1) if upside_down else boxes
    return boxes[:, [1, 0, 3, 2]] if transposed else boxes


def merge_views(detections: list[dict[str, Tensor]], nms_thresh: float, score_thresh: float,
                max_detections: int) -> dict[str, Tensor]:
    """Returns the merged detections of all views of an image, after weighted boxes fusion (Solovyev et al. 2021).

    Objects are told apart by NMS here, in place of clusters that grow, and a view counts once for an object.
    NMS over all views gives the best detection of each object. Each other detection joins the best one of its class
    that it overlaps most, by more than nms_thresh. Boxes are averaged, weighted by their scores. The score is the mean
    over the views of the best score that joined, 0 for a view without one.

    Args:
        detections: of each view, on the CPU, where sums have one order: boxes float32 [K, 4] in pixels of the image,
            scores float32 [K], labels int64 [K].
        score_thresh: merged detections below this score are dropped.
        max_detections: most merged detections.

    Returns:
        Boxes, scores and labels, best score first.
    """
    boxes, scores, labels = (torch.cat([view[key] for view in detections]) for key in ("boxes", "scores", "labels"))
    counts = torch.tensor([len(view["scores"]) for view in detections])
    best = batched_nms(boxes, scores, labels, nms_thresh)
    if not len(best):
        return {"boxes": boxes, "scores": scores, "labels": labels}
    overlaps = box_iou(boxes[best], boxes).nan_to_num(0) * (labels[best][:, None] == labels)  # NaN: boxes without area
    overlaps[torch.arange(len(best)), best] = 2.0  # a best detection joins itself
    largest, objects = overlaps.max(0)
    members = torch.where(largest > nms_thresh, scores, 0)
    sums = members.new_zeros(len(best)).index_add_(0, objects, members)
    averages = boxes.new_zeros(len(best), 4).index_add_(0, objects, boxes * members[:, None]) / sums[:, None]
    score_of_view = members.new_zeros(len(best) * len(detections)).scatter_reduce_(
        0, objects * len(detections) + torch.repeat_interleave(counts), members, "amax").view(len(best), -1)
    merged = score_of_view.mean(1)
    order = merged.argsort(descending=True, stable=True)
    order = order[merged[order] >= score_thresh][:max_detections]
    return {"boxes": averages[order], "scores": merged[order], "labels": labels[best][order]}
