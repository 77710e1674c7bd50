"""The second stage (Girshick 2015, Fast R-CNN; Ren et al. 2015): proposals -> classes and boxes, all images at once.

B images, M objects of each (padded), P proposals, R sampled RoIs of each image, C classes; class 0 is the background.
Its state dict has the names of torchvision's RoIHeads, and its losses and detections are the same.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss
from torchvision.ops import batched_nms

from detector.config.model_schema import Roi as RoiConfig
from detector.config.schema import Evaluate
from detector.model.box_coder import BoxCoder
from detector.model.ground_truth import GroundTruth
from detector.model.matcher import match
from detector.model.poolers import RoiPooling
from detector.model.precision import numbers_to_device
from detector.model.rpn import Proposals
from detector.model.sampling import Sample, sample_boxes

MIN_SIZE = 1e-2  # pixels: a box less wide or less high than this is dropped


class FastRCNNPredictor(nn.Module):
    """Class scores [R, C + 1] and box deltas [R, 4 (C + 1)] in float32; class 0 is the background.

    A class-agnostic predictor has one box, which is repeated for every class. init: uniform is PyTorch's default for
    linear layers; normal is N(0, 0.01) for scores and N(0, 0.001) for boxes, with biases of 0 (Girshick 2015, 3.1).
    """

    def __init__(self, in_channels: int, num_classes: int, class_agnostic: bool, init: str = "uniform"):
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes + 1)
        self.bbox_pred = nn.Linear(in_channels, 4 if class_agnostic else 4 * (num_classes + 1))
        if init == "normal":
            for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = self.cls_score(hidden).float(), self.bbox_pred(hidden).float()
        return scores, deltas.repeat(1, 4 * scores.shape[1] // deltas.shape[1])


class RoiHeads(nn.Module):
    """In training two losses; in evaluation the detections of each image."""

    def __init__(self, pooling: RoiPooling, head: nn.Module, predictor: FastRCNNPredictor, config: RoiConfig,
                 evaluate: Evaluate, box_coder: BoxCoder):
        super().__init__()
        self.box_roi_pool, self.box_head, self.box_predictor = pooling, head, predictor
        self.config, self.box_coder = config, box_coder
        self.score_thresh, self.nms_thresh = evaluate.score_thresh, evaluate.nms_thresh
        self.max_detections = evaluate.max_detections

    def forward(self, features: dict[str, Tensor], proposals: Proposals, image_sizes: list[tuple[int, int]],
                ground_truth: GroundTruth | None = None) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        if self.training:
            boxes, labels, targets, sample = self.sample(proposals, ground_truth)
            scores, deltas = self.predict(features, list(boxes), image_sizes)
            return [], self.losses(scores, deltas, labels.flatten(), targets.flatten(0, 1), sample.valid.flatten())
        boxes = proposals.per_image()
        scores, deltas = self.predict(features, boxes, image_sizes)
        return self.detect(scores, deltas, boxes, image_sizes), {}

    def predict(self, features: dict[str, Tensor], boxes: list[Tensor],
                image_sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        return self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, image_sizes)))

    @torch.no_grad()
    def sample(self, proposals: Proposals, ground_truth: GroundTruth) -> tuple[Tensor, Tensor, Tensor, Sample]:
        """Samples RoIs among the proposals and the objects themselves.

        Returns:
            Boxes [B, R, 4], their labels int64 [B, R], the deltas [B, R, 4] to their objects, and the sample.
        """
        config = self.config
        candidates = torch.cat([proposals.boxes, ground_truth.boxes], dim=1)
        valid = torch.cat([proposals.valid, ground_truth.valid], dim=1)
        matches = match(ground_truth, candidates, self.box_coder)
        iou = matches.iou.clamp(min=0)  # an image without objects has background only
        positive = valid & (matches.iou >= config.fg_iou_thresh)
        negative = valid & ~positive & (iou < config.bg_iou_thresh) & (iou >= config.bg_iou_thresh_low)
        sample = sample_boxes(positive, negative, config.batch_size_per_image, config.positive_fraction,
                              config.sample_with_replacement)
        matched_index = matches.matched_index.gather(1, sample.index)
        boxes = candidates.gather(1, sample.index[..., None].expand(-1, -1, 4))
        objects = ground_truth.boxes.gather(1, matched_index[..., None].expand(-1, -1, 4))
        targets = torch.where(sample.positive[..., None], self.box_coder.encode(objects, boxes), 0)
        return boxes, ground_truth.labels.gather(1, matched_index) * sample.positive, targets, sample

    def losses(self, scores: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor,
               valid: Tensor) -> dict[str, Tensor]:
        """Returns torchvision's two losses by its names, float32 [] each: means over all RoIs of the batch.

        Only RoIs with an object have a box loss, that of the object's class.

        Args:
            scores: [B R, C + 1].
            deltas: [B R, 4 (C + 1)].
            labels: int64 [B R].
            targets: [B R, 4].
            valid: bool [B R]; the other rows do not count.
        """
        valid = valid.float()
        num_sampled = valid.sum().clamp(min=1)
        classification = cross_entropy(scores, labels, reduction="none")
        column = labels[:, None, None].expand(-1, 1, 4)
        class_deltas = deltas.reshape(len(deltas), -1, 4).gather(1, column)[:, 0]
        box = smooth_l1_loss(class_deltas, targets, reduction="none", beta=self.config.smooth_l1_beta).sum(-1)
        return {"loss_classifier": (classification * valid).sum() / num_sampled,
                "loss_box_reg": (box * valid * (labels > 0)).sum() / num_sampled}

    def detect(self, scores: Tensor, deltas: Tensor, boxes: list[Tensor],
               image_sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Returns the detections of each image by falling score: boxes [K, 4], labels [K] and scores [K].

        At most max_detections remain; the original also keeps detections that tie with the last one, and scores the
        zero boxes that fill up its batch of proposals.

        Args:
            scores, deltas: [R, C + 1] and [R, 4 (C + 1)], of the proposals of all images.
            boxes: proposals [R_i, 4] of each image.
        """
        classes = scores.shape[1]
        references = torch.cat(boxes)[:, None].expand(-1, classes, -1)
        decoded = self.box_coder.decode(deltas.reshape(-1, classes, 4), references)
        scores = scores.softmax(dim=-1)
        counts = [len(image_boxes) for image_boxes in boxes]
        return [self.detect_one_image(image_boxes, image_scores, numbers_to_device([list(size)], scores))
                for image_boxes, image_scores, size in zip(decoded.split(counts), scores.split(counts), image_sizes)]

    def detect_one_image(self, boxes: Tensor, scores: Tensor, image_size: Tensor) -> dict[str, Tensor]:
        """Filters boxes [R, C + 1, 4] and scores [R, C + 1] of one image; image_size float32 [1, 2], height and
        width."""
        boxes = self.box_coder.clip(boxes.flatten(0, 1)[None], image_size)[0].reshape(boxes.shape)
        labels = torch.arange(1, scores.shape[1], device=scores.device).expand(len(scores), -1)
        boxes, scores, labels = boxes[:, 1:].flatten(0, 1), scores[:, 1:].flatten(), labels.flatten()
        exclusive = self.box_coder.to_exclusive(boxes)
        large_enough = (exclusive[:, 2:] - exclusive[:, :2] >= MIN_SIZE).all(-1)
        rows = torch.where((scores > self.score_thresh) & large_enough)[0]
        kept = rows[batched_nms(exclusive[rows], scores[rows], labels[rows], self.nms_thresh)[:self.max_detections]]
        return {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}
