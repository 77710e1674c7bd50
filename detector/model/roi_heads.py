"""The second stage (Girshick 2015, Fast R-CNN; Ren et al. 2015): proposals -> classes and boxes, all images at once.

B images, M objects of each (padded), P proposals, R sampled RoIs of each image, C classes, class 0 the background.
Its state dict has the names of torchvision's RoIHeads, and its losses and detections are the same.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss
from torchvision.ops import batched_nms

from detector.config.model_schema import Roi as Config
from detector.config.schema import Evaluate
from detector.model.box_coder import BoxCoder, clipped, on_device, to_exclusive
from detector.model.ground_truth import GroundTruth
from detector.model.matcher import Sample, match, sample_boxes
from detector.model.poolers import RoiPooling
from detector.model.rpn import Proposals

SMALLEST = 1e-2  # pixels: what is narrower or lower is no detection


class FastRCNNPredictor(nn.Module):
    """Class scores [R, C + 1] and box deltas [R, 4 (C + 1)] in float32; class 0 is the background.

    A class-agnostic predictor learns one box and shows it to every class. init: uniform is PyTorch's own for linear
    layers, normal is N(0, 0.01) for the scores and N(0, 0.001) for the boxes without biases (Girshick 2015, 3.1).
    """

    def __init__(self, channels: int, classes: int, class_agnostic: bool, init: str = "uniform"):
        super().__init__()
        self.cls_score = nn.Linear(channels, classes + 1)
        self.bbox_pred = nn.Linear(channels, 4 if class_agnostic else 4 * (classes + 1))
        if init == "normal":
            for layer, deviation in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
                nn.init.normal_(layer.weight, std=deviation)
                nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = self.cls_score(hidden).float(), self.bbox_pred(hidden).float()
        return scores, deltas.repeat(1, 4 * scores.shape[1] // deltas.shape[1])


class RoiHeads(nn.Module):
    """In training, two losses; in evaluation, the detections of each image."""

    def __init__(self, pooling: RoiPooling, head: nn.Module, predictor: FastRCNNPredictor, config: Config, evaluate: Evaluate,
                 coding: BoxCoder):
        super().__init__()
        self.box_roi_pool, self.box_head, self.box_predictor = pooling, head, predictor
        self.config, self.coding = config, coding
        self.score_thresh, self.nms_thresh, self.detections = evaluate.score_thresh, evaluate.nms_thresh, evaluate.max_detections

    def forward(self, features: dict[str, Tensor], proposals: Proposals, image_sizes: list[tuple[int, int]],
                truth: GroundTruth | None = None) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        if self.training:
            boxes, labels, targets, sample = self.sample(proposals, truth)
            scores, deltas = self.predict(features, list(boxes), image_sizes)
            return [], self.losses(scores, deltas, labels.flatten(), targets.flatten(0, 1), sample.real.flatten())
        boxes = proposals.lists()
        scores, deltas = self.predict(features, boxes, image_sizes)
        return self.detect(scores, deltas, boxes, image_sizes), {}

    def predict(self, features: dict[str, Tensor], boxes: list[Tensor],
                image_sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        return self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, image_sizes)))

    @torch.no_grad()
    def sample(self, proposals: Proposals, truth: GroundTruth) -> tuple[Tensor, Tensor, Tensor, Sample]:
        """Boxes [B, R, 4] to learn from, their labels [B, R] and the deltas [B, R, 4] to their objects.

        The objects themselves are among the candidates.
        """
        config = self.config
        candidates = torch.cat([proposals.boxes, truth.boxes], dim=1)
        real = torch.cat([proposals.real, truth.real], dim=1)
        found = match(truth, candidates, self.coding.extent)
        overlap = found.overlap.clamp(min=0)  # without any object, all is background
        positive = real & (found.overlap >= config.fg_iou_thresh)
        negative = real & ~positive & (overlap < config.bg_iou_thresh) & (overlap >= config.bg_iou_thresh_low)
        sample = sample_boxes(positive, negative, config.batch_size_per_image, config.positive_fraction, config.sample_with_replacement)
        which = found.which.gather(1, sample.index)
        boxes = candidates.gather(1, sample.index[..., None].expand(-1, -1, 4))
        objects = truth.boxes.gather(1, which[..., None].expand(-1, -1, 4))
        targets = torch.where(sample.positive[..., None], self.coding.encode(objects, boxes), 0)
        return boxes, truth.labels.gather(1, which) * sample.positive, targets, sample

    def losses(self, scores: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor,
               real: Tensor) -> dict[str, Tensor]:
        """scores [B R, C + 1], deltas [B R, 4 (C + 1)], the rest [B R] and [B R, 4] -> torchvision's two terms.

        Both are means over all RoIs of the batch; only those with an object have a box to learn, that of its class.
        """
        real = real.float()
        count = real.sum().clamp(min=1)
        classes = cross_entropy(scores, labels, reduction="none")
        column = labels[:, None, None].expand(-1, 1, 4)
        boxes = deltas.reshape(len(deltas), -1, 4).gather(1, column)[:, 0]
        far = smooth_l1_loss(boxes, targets, reduction="none", beta=self.config.smooth_l1_beta).sum(-1)
        return {"loss_classifier": (classes * real).sum() / count,
                "loss_box_reg": (far * real * (labels > 0)).sum() / count}

    def detect(self, scores: Tensor, deltas: Tensor, boxes: list[Tensor],
               image_sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """scores [R, C + 1] and deltas [R, 4 (C + 1)] of all images' boxes -> detections, the surest first.

        Exactly `detections` are left where there are more; the original also keeps what ties with the last. Proposals
        that fill up a batch never come here; the original's zero boxes are scored like any other.
        """
        classes = scores.shape[1]
        references = torch.cat(boxes)[:, None].expand(-1, classes, -1)
        found = self.coding.decode(deltas.reshape(-1, classes, 4), references)
        scores = scores.softmax(dim=-1)
        counts = [len(some) for some in boxes]
        return [self.detect_one(one, some, on_device([list(size)], scores))
                for one, some, size in zip(found.split(counts), scores.split(counts), image_sizes)]

    def detect_one(self, boxes: Tensor, scores: Tensor, size: Tensor) -> dict[str, Tensor]:
        """boxes [R, C + 1, 4] and scores [R, C + 1] of one image of a size [1, 2]."""
        boxes = clipped(boxes.flatten(0, 1)[None], size, self.coding.extent)[0].reshape(boxes.shape)
        labels = torch.arange(1, scores.shape[1], device=scores.device).expand(len(scores), -1)
        boxes, scores, labels = boxes[:, 1:].flatten(0, 1), scores[:, 1:].flatten(), labels.flatten()
        whole = to_exclusive(boxes, self.coding.extent)
        rows = torch.where((scores > self.score_thresh) & (whole[:, 2:] - whole[:, :2] >= SMALLEST).all(-1))[0]
        kept = rows[batched_nms(whole[rows], scores[rows], labels[rows], self.nms_thresh)[:self.detections]]
        return {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}
