"""The annotated objects of a batch as tensors of one shape: padded, so that no image needs operations of its own."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detector.model.box_coder import BoxCoder
from detector.model.precision import numbers_to_device


@dataclass(frozen=True)
class GroundTruth:
    """Objects of B images; M is the largest number of objects in an image, at least 1."""

    boxes: Tensor      # float32 [B, M, 4], pixels of the batch; zeros where there is no object
    labels: Tensor     # int64 [B, M], 1 ... C; 0 where there is no object
    valid: Tensor      # bool [B, M], True where there is an object
    counts: list[int]  # objects of each image

    def per_image(self) -> list[dict[str, Tensor]]:
        """Returns torchvision's targets: boxes [N, 4] and labels [N] of each image."""
        return [{"boxes": boxes[:count], "labels": labels[:count]}
                for boxes, labels, count in zip(self.boxes, self.labels, self.counts)]


def pad_ground_truth(targets: list[dict[str, Tensor]], before: list[tuple[int, int]], after: list[tuple[int, int]],
                     box_coder: BoxCoder = BoxCoder()) -> GroundTruth:
    """Pads the objects of a batch and scales their boxes to the resized images. The host does not wait for the device.

    Args:
        targets: exclusive boxes [N, 4] and labels [N] of each image.
        before, after: (height, width) of each image, as annotated and resized.
        box_coder: the convention of the boxes that are returned; boxes are converted before they are scaled.
    """
    boxes = pad_sequence([target["boxes"].float() for target in targets], batch_first=True)
    labels = pad_sequence([target["labels"] for target in targets], batch_first=True)
    counts = [len(target["labels"]) for target in targets]
    if not boxes.shape[1]:
        boxes, labels = boxes.new_zeros((len(targets), 1, 4)), labels.new_zeros((len(targets), 1))
    scale = numbers_to_device([[new[1] / old[1], new[0] / old[0]] * 2 for old, new in zip(before, after)], boxes)
    valid = torch.arange(boxes.shape[1], device=boxes.device) < numbers_to_device(counts, boxes)[:, None]
    boxes = box_coder.from_exclusive(boxes) * scale[:, None] * valid[..., None]
    return GroundTruth(boxes, labels, valid, counts)
