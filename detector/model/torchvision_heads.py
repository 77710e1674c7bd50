"""torchvision's own RPN and RoI heads behind the same calls as ours: what ours are compared with."""

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from detector.config.model_schema import Model
from detector.config.schema import Evaluate
from detector.model.anchors import Anchors
from detector.model.backbones import Parts
from detector.model.ground_truth import Truth
from detector.model.poolers import RoiPooling


class ReferenceRpn(RegionProposalNetwork):
    """The score counts in evaluation only: in training a batch might be left without a proposal."""

    def forward(self, batch: ImageList, features: dict[str, Tensor], truth: Truth | None = None):
        wanted, self.score_thresh = self.score_thresh, 0.0 if self.training else self.score_thresh
        try:
            return super().forward(batch, features, truth.lists() if truth else None)
        finally:
            self.score_thresh = wanted


class ReferenceRoiHeads(RoIHeads):
    def forward(self, features: dict[str, Tensor], proposals: list[Tensor], image_sizes: list[tuple[int, int]],
                truth: Truth | None = None):
        return super().forward(features, proposals, image_sizes, truth.lists() if truth else None)


class ReferenceRpnHead(RPNHead):
    """With outputs in float32, as ours."""

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(features)
        return [level.float() for level in logits], [level.float() for level in deltas]


def torchvision_heads(parts: Parts, anchors: Anchors, pooling: RoiPooling, predictor: nn.Module, config: Model,
                      evaluate: Evaluate) -> tuple[ReferenceRpn, ReferenceRoiHeads]:
    rpn, roi = config.rpn, config.roi
    return (
        ReferenceRpn(
            anchors.generator(), ReferenceRpnHead(parts.body.out_channels, anchors.per_cell()[0]),
            rpn.positive_iou, rpn.negative_iou, rpn.batch, rpn.positive_share,
            {"training": rpn.before_nms_train, "testing": rpn.before_nms_eval},
            {"training": rpn.after_nms_train, "testing": rpn.after_nms_eval}, rpn.nms_iou, rpn.score),
        ReferenceRoiHeads(
            pooling, parts.head, predictor, roi.positive_iou, roi.negative_iou, roi.batch, roi.positive_share,
            tuple(roi.box_weights), evaluate.score, evaluate.nms_iou, evaluate.detections))
