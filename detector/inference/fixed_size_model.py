"""The detector as a graph of fixed shapes, for `torch.export`: images padded to one size, detections to one number.

No operation's shape depends on the values of a tensor. Stages of the model are used as they are; what is particular to
the graph is the resize (a product with hat functions, because sizes differ from image to image) and the last NMS.

B images, [H, W] the padded size, R proposals of an image, C classes, D detections.
"""

from functools import partial

import torch
from torch import Tensor, nn

from detector.config.schema import Evaluate, Model
from detector.model.faster_rcnn import Detector
from detector.model.ops.nms import nms_by_rounds
from detector.model.preprocessing import PIXEL_FORMATS, normalise
from detector.model.roi_heads import MIN_SIZE
from detector.model.rpn import Proposals
from detector.structures import round_up

NMS_ROUNDS = 32     # see nms_by_rounds
CANDIDATES = 1000   # boxes of an image with the highest scores, over all classes, that enter the last NMS


class FixedSizeDetector(nn.Module):
    """uint8 images [B, 3, h, w] and their sizes -> boxes [B, D, 4], scores [B, D], labels [B, D], count [B].

    Args:
        model: with native heads.
        padded_size: height and width that resized images are padded to; an image that would not fit is resized to fit.
    """

    def __init__(self, model: Detector, config: Model, evaluate: Evaluate, padded_size: tuple[int, int]):
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = model.backbone, model.rpn, model.roi_heads
        self.box_coder = model.box_coder
        self.padded_size = tuple(round_up(length, config.size_divisor) for length in padded_size)
        self.max_detections, self.pixel_format = evaluate.max_detections, PIXEL_FORMATS[config.pixel_format]
        lengths = [evaluate.min_size, evaluate.max_size or max(self.padded_size), *self.padded_size]
        self.register_buffer("lengths", torch.tensor(lengths, dtype=torch.float64), persistent=False)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detects objects.

        Args:
            images: uint8 [B, 3, h, w], RGB, each image in the upper left corner; what lies beyond it is not read.
            sizes: int64 [B, 2], height and width of each image.

        Returns:
            boxes: float32 [B, D, 4], x1, y1, x2, y2 in pixels of the image; zeros beyond `count`.
            scores: float32 [B, D], falling; 0 beyond `count`.
            labels: int64 [B, D], from 1; 0 beyond `count`.
            count: int64 [B], the number of detections.
        """
        resized = self.resized_sizes(sizes)
        features = self.backbone(self.resize(images, sizes, resized))
        proposals = self.propose(features, resized.float())
        boxes, scores = self.classify(features, proposals, resized.float())
        boxes, scores, labels = self.select(boxes, scores)
        scale = (sizes.double() / resized.double()).float().flip(1).repeat(1, 2)[:, None]
        valid = scores > 0
        boxes = self.box_coder.to_exclusive(boxes * scale) * valid[..., None]
        return boxes, scores, labels * valid, valid.sum(1)

    def resized_sizes(self, sizes: Tensor) -> Tensor:
        """Computes scale_and_size of structures.py, with the padded size as a limit: int64 [B, 2] -> int64 [B, 2].

        Tensors are divided by tensors: PyTorch divides a number by a tensor as a product, which rounds differently.
        """
        exact = sizes.double()
        sides = torch.stack([exact.amin(1), exact.amax(1), exact[:, 0], exact[:, 1]], dim=1)
        scale = (self.lengths / sides).amin(1, keepdim=True)
        return (exact * scale).floor().clamp(min=1).long()

    def resize(self, images: Tensor, sizes: Tensor, resized: Tensor) -> Tensor:
        """Returns float32 [B, 3, H, W]: normalised, resized bilinearly without antialiasing, zeros around it."""
        rows, columns = (interpolation_weights(self.padded_size[axis], images.shape[2 + axis], sizes[:, axis],
                                               resized[:, axis]) for axis in (0, 1))
        return rows[:, None] @ normalise(images, self.pixel_format) @ columns[:, None].transpose(2, 3)

    def propose(self, features: dict[str, Tensor], sizes: Tensor) -> Proposals:
        """Returns the proposals of each image, [B, R]."""
        suppress = partial(nms_by_rounds, rounds=NMS_ROUNDS)
        return self.rpn.propose(*self.rpn.predict_anchors(features, self.padded_size), sizes, suppress)

    def classify(self, features: dict[str, Tensor], proposals: Proposals, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Returns boxes [B, R, C, 4] and scores [B, R, C]; scores of what is not a detection are 0."""
        heads, count = self.roi_heads, proposals.boxes.shape[1]
        scores, deltas = heads.box_predictor(heads.box_head(self.pool(features, proposals.boxes)))
        scores = scores.softmax(-1).unflatten(0, (-1, count))
        deltas = deltas.unflatten(1, (-1, 4)).unflatten(0, (-1, count))
        boxes = heads.box_coder.decode(deltas, proposals.boxes[:, :, None].expand_as(deltas))
        boxes = heads.box_coder.clip(boxes.flatten(1, 2), sizes).unflatten(1, (count, -1))[:, :, 1:]
        exclusive = self.box_coder.to_exclusive(boxes)
        large_enough = (exclusive[..., 2:] - exclusive[..., :2] >= MIN_SIZE).all(-1)
        scores = scores[..., 1:]
        return boxes, scores * ((scores > heads.score_thresh) & large_enough & proposals.valid[..., None])

    def pool(self, features: dict[str, Tensor], proposals: Tensor) -> Tensor:
        """Returns the pooled features [B R, F, S, S]."""
        pooling = self.roi_heads.box_roi_pool
        image = torch.arange(proposals.shape[0], device=proposals.device, dtype=proposals.dtype)
        image = image[:, None, None].expand(-1, proposals.shape[1], 1)
        rois = torch.cat([image, proposals], dim=2).flatten(0, 1)
        levels = [(features[name], 1 / stride) for name, stride in pooling.strides.items()]
        if len(levels) == 1:
            return pooling.pool(*levels[0], rois)
        return pooling.sum_of_levels(levels, pooling.map_levels([proposals.flatten(0, 1)]), rois, None)

    def select(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the best detections after NMS within each class: boxes [B, D, 4], scores and labels [B, D]."""
        classes = scores.shape[2]
        top, index = scores.flatten(1).topk(min(CANDIDATES, scores.shape[1] * classes), dim=1)
        boxes = boxes.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 4))
        labels = index % classes + 1
        # Boxes of different classes are moved far from each other, so that none suppresses another.
        apart = self.box_coder.to_exclusive(boxes) + (labels * (max(self.padded_size) + 1))[..., None]
        apart = apart * (top > 0)[..., None]
        kept = top * nms_by_rounds(apart, self.roi_heads.nms_thresh, NMS_ROUNDS)
        kept, order = kept.topk(min(self.max_detections, kept.shape[1]), dim=1)
        return boxes.gather(1, order[..., None].expand(-1, -1, 4)), kept, labels.gather(1, order)


def interpolation_weights(length: int, source_length: int, size: Tensor, resized: Tensor) -> Tensor:
    """Returns the weights of bilinear `interpolate`, align_corners=False, along one axis: float32 [B, length, s].

    Output pixel r of an image is the sum of its s source pixels by these weights; rows beyond its resized length are 0.

    Args:
        source_length: s.
        size, resized: int64 [B], length of each image before and after the resize.
    """
    scale = (size.float() / resized.float())[:, None]
    pixel = torch.arange(length, device=size.device, dtype=torch.float32)[None]
    position = torch.minimum(((pixel + 0.5) * scale - 0.5).clamp(min=0), size.float()[:, None] - 1)
    source = torch.arange(source_length, device=size.device, dtype=torch.float32)
    weights = (1 - (position[..., None] - source).abs()).clamp(min=0)
    return weights * (pixel < resized[:, None])[..., None]
