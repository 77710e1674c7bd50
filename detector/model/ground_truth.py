"""The objects of a batch as tensors of one shape: padded, so that no image needs a turn of its own."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detector.model.box_coder import on_device


@dataclass(frozen=True)
class GroundTruth:
    """B images, M the most objects that one of them has, at least 1."""

    boxes: Tensor      # float32 [B, M, 4], pixels of the batch; zeros where there is no object
    labels: Tensor     # int64 [B, M], 1 ... C; 0 where there is no object
    real: Tensor       # bool [B, M]
    counts: list[int]  # objects of each image

    def lists(self) -> list[dict[str, Tensor]]:
        """As torchvision's modules want it: a dict for each image."""
        return [{"boxes": boxes[:count], "labels": labels[:count]}
                for boxes, labels, count in zip(self.boxes, self.labels, self.counts)]


def pad_ground_truth(targets: list[dict[str, Tensor]], before: list[tuple[int, int]], after: list[tuple[int, int]],
              extent: int) -> GroundTruth:
    """Targets (boxes [N, 4], labels [N]) in images of one (height, width) -> in their copies of another.

    With an extent of 1, x2 and y2 become the last pixel before they are scaled. Does not wait for the device.
    """
    boxes = pad_sequence([target["boxes"].float() for target in targets], batch_first=True)
    labels = pad_sequence([target["labels"] for target in targets], batch_first=True)
    counts = [len(target["labels"]) for target in targets]
    if not boxes.shape[1]:
        boxes, labels = boxes.new_zeros((len(targets), 1, 4)), labels.new_zeros((len(targets), 1))
    scale = on_device([[new[1] / old[1], new[0] / old[0]] * 2 for old, new in zip(before, after)], boxes)
    real = torch.arange(boxes.shape[1], device=boxes.device) < on_device(counts, boxes)[:, None]
    last = torch.cat([boxes[..., :2], boxes[..., 2:] - extent], dim=-1) if extent else boxes
    return GroundTruth(last * scale[:, None] * real[..., None], labels, real, counts)
