"""torchvision's RPN and RoI heads with the calls of the native ones (model.heads=torchvision), to compare with."""

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from detector.config.model_schema import Model
from detector.config.schema import Evaluate
from detector.model.anchors import Anchors
from detector.model.backbones import BackboneParts, find_backbone
from detector.model.ground_truth import GroundTruth
from detector.model.poolers import RoiPooling


class TorchvisionRpn(RegionProposalNetwork):
    """In training there is no score threshold, which might leave a batch without a proposal."""

    def forward(self, batch: ImageList, features: dict[str, Tensor], ground_truth: GroundTruth | None = None):
        configured, self.score_thresh = self.score_thresh, 0.0 if self.training else self.score_thresh
        try:
            return super().forward(batch, features, ground_truth.per_image() if ground_truth else None)
        finally:
            self.score_thresh = configured


class TorchvisionRoiHeads(RoIHeads):
    def forward(self, features: dict[str, Tensor], proposals: list[Tensor], image_sizes: list[tuple[int, int]],
                ground_truth: GroundTruth | None = None):
        return super().forward(features, proposals, image_sizes, ground_truth.per_image() if ground_truth else None)


class TorchvisionRpnHead(RPNHead):
    """With outputs in float32, as those of the native head."""

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(features)
        return [level.float() for level in logits], [level.float() for level in deltas]


def torchvision_heads(parts: BackboneParts, anchors: Anchors, pooling: RoiPooling, predictor: nn.Module, config: Model,
                      evaluate: Evaluate) -> tuple[TorchvisionRpn, TorchvisionRoiHeads]:
    rpn, roi = config.rpn, config.roi
    return (
        TorchvisionRpn(
            anchors.torchvision_generator(),
            TorchvisionRpnHead(parts.backbone.out_channels, anchors.num_anchors_per_location()[0],
                               find_backbone(config).rpn_conv_depth),
            rpn.fg_iou_thresh, rpn.bg_iou_thresh, rpn.batch_size_per_image, rpn.positive_fraction,
            {"training": rpn.pre_nms_top_n_train, "testing": rpn.pre_nms_top_n_eval},
            {"training": rpn.post_nms_top_n_train, "testing": rpn.post_nms_top_n_eval}, rpn.nms_thresh,
            rpn.score_thresh),
        TorchvisionRoiHeads(
            pooling, parts.box_head, predictor, roi.fg_iou_thresh, roi.bg_iou_thresh, roi.batch_size_per_image,
            roi.positive_fraction, tuple(roi.bbox_reg_weights), evaluate.score_thresh, evaluate.nms_thresh,
            evaluate.max_detections))
