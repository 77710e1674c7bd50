"""The whole detector: Faster R-CNN (Ren et al. 2015) from torchvision's parts, any body under any pooling.

Its state dict has torchvision's names, so `fasterrcnn_resnet50_fpn` and `fasterrcnn_mobilenet_v3_large_fpn` load.
"""

from contextlib import contextmanager
from dataclasses import replace
from typing import Iterator

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from detector.config.model import Model
from detector.config.schema import Evaluate
from detector.model.bodies import build_body, freeze, freeze_norms
from detector.model.input import PIXELS, Input, Side, scale_boxes, scale_targets, to_batch
from detector.model.pooling import RoiPooling
from detector.model.weights import frozen_eps

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")  # torchvision's names


class Detector(nn.Module):
    """Trained by calling it; used by `predict`."""

    def __init__(self, backbone: nn.Module, rpn: nn.Module, roi_heads: nn.Module):
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads
        self.input = Input()
        self.rpn_score = rpn.score_thresh  # holds in evaluation: in training a batch might be left without a proposal

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]], side: Side) -> Tensor:
        """Images uint8 [3, H, W] and targets (boxes [N, 4], labels [N]) -> the four losses, float32 [4], as LOSSES."""
        batch = to_batch(images, side, self.input, [target.get("frame") for target in targets])
        targets = scale_targets(targets, images, side)
        return self.losses(batch, self.backbone(batch.tensors), targets)

    def losses(self, batch: ImageList, features: dict[str, Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        """float32 [4], as LOSSES, of targets in the pixels of the batch."""
        self.rpn.score_thresh = 0.0
        proposals, rpn_losses = self.rpn(batch, features, targets)
        _, roi_losses = self.roi_heads(features, proposals, batch.image_sizes, targets)
        return torch.stack([{**rpn_losses, **roi_losses}[name].float() for name in LOSSES])

    @torch.no_grad()
    def predict(self, images: list[Tensor], side: Side, targets: list[dict[str, Tensor]] | None = None
                ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        """Detections of each image: boxes [K, 4] in its own pixels, scores [K], labels [K]; with targets also losses.

        The losses share the features, and are drawn from the same samplers as in training; dropout stays off.
        """
        batch = to_batch(images, side, self.input)
        features = self.backbone(batch.tensors)
        self.rpn.score_thresh = self.rpn_score
        proposals, _ = self.rpn(batch, features)
        found, _ = self.roi_heads(features, proposals, batch.image_sizes)
        for detections, image, size in zip(found, images, batch.image_sizes):
            detections["boxes"] = scale_boxes(detections["boxes"], size, tuple(image.shape[-2:]))
        if targets is None:
            return found, None
        with sampling(self.rpn), sampling(self.roi_heads):
            return found, self.losses(batch, features, scale_targets(targets, images, side))


@contextmanager
def sampling(module: nn.Module) -> Iterator[None]:
    """The module itself, but none of its layers, behaves as in training: it samples and gives losses."""
    module.training = True
    try:
        yield
    finally:
        module.training = False


class RpnHead(RPNHead):
    """torchvision's, with outputs in float32: boxes are decoded from them, and bf16 knows 8 bits of a coordinate."""

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(features)
        return [level.float() for level in logits], [level.float() for level in deltas]


class Predictor(nn.Module):
    """Class scores [R, C + 1] and box deltas [R, 4 (C + 1)] in float32; class 0 is the background.

    A class-agnostic predictor learns one box and shows it to every class.
    """

    def __init__(self, channels: int, classes: int, class_agnostic: bool):
        super().__init__()
        self.cls_score = nn.Linear(channels, classes + 1)
        self.bbox_pred = nn.Linear(channels, 4 if class_agnostic else 4 * (classes + 1))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = self.cls_score(hidden).float(), self.bbox_pred(hidden).float()
        return scores, deltas.repeat(1, 4 * scores.shape[1] // deltas.shape[1])


def build_model(config: Model, evaluate: Evaluate, classes: int) -> Detector:
    """A detector for this many classes (without background) with random weights."""
    parts = build_body(config)
    sizes = config.anchor_sizes or parts.anchor_sizes
    levels = len(parts.anchor_sizes)
    if len(sizes) != levels:
        sizes = sizes * levels if len(sizes) == 1 else sizes
    anchors = AnchorGenerator(tuple(map(tuple, sizes)), (tuple(config.anchor_ratios),) * len(sizes))
    rpn = RegionProposalNetwork(
        anchors, RpnHead(parts.body.out_channels, anchors.num_anchors_per_location()[0]),
        config.rpn.positive_iou, config.rpn.negative_iou, config.rpn.batch, config.rpn.positive_share,
        {"training": config.rpn.before_nms_train, "testing": config.rpn.before_nms_eval},
        {"training": config.rpn.after_nms_train, "testing": config.rpn.after_nms_eval},
        config.rpn.nms_iou, config.rpn.score)
    pooling = RoiPooling(config.pooling, config.pooling_size, parts.strides, config.sampling_ratio,
                         config.crop_max_pool)
    roi_heads = RoIHeads(
        pooling, parts.head, Predictor(parts.head.out_channels, classes, config.class_agnostic),
        config.roi.positive_iou, config.roi.negative_iou, config.roi.batch, config.roi.positive_share,
        tuple(config.roi.box_weights), evaluate.score, evaluate.nms_iou, evaluate.detections)
    freeze(parts, config.frozen_stages)
    model = Detector(parts.body, rpn, roi_heads)
    model.input = Input(PIXELS[config.pixels], config.canvas_multiple)
    return freeze_norms(model, everywhere=config.norm == "frozen", eps=frozen_eps(config))


def use_channels_last(model: Detector) -> Detector:
    """Weights and inputs in the layout that convolutions are fastest in."""
    model.input = replace(model.input, channels_last=True)
    return model.to(memory_format=torch.channels_last)
