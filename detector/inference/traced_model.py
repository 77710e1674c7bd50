"""The detector as one graph that a trace can follow, for export to ONNX and TorchScript.

A trace records tensor operations; a number that Python reads from a tensor becomes a constant. Sizes are therefore
computed as tensors, and RPN and RoI heads are torchvision's, which can be traced. The layers with weights are the
model's.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from detector.config.schema import Evaluate, Model
from detector.model.anchors import build_anchors
from detector.model.faster_rcnn import Detector
from detector.model.poolers import RoiPooling
from detector.model.preprocessing import PIXEL_FORMATS


class TracedDetector(nn.Module):
    """One image uint8 [3, H, W] of any size -> boxes float32 [K, 4] in its pixels, scores [K], labels int64 [K]."""

    def __init__(self, model: Detector, config: Model, evaluate: Evaluate):
        super().__init__()
        rpn, roi = config.rpn, config.roi
        self.backbone = model.backbone
        self.rpn = RegionProposalNetwork(
            build_anchors(config).torchvision_generator(), model.rpn.head, rpn.fg_iou_thresh, rpn.bg_iou_thresh,
            rpn.batch_size_per_image, rpn.positive_fraction, {"training": 1, "testing": rpn.pre_nms_top_n_eval},
            {"training": 1, "testing": rpn.post_nms_top_n_eval}, rpn.nms_thresh, rpn.score_thresh)
        self.roi_heads = RoIHeads(
            TracedPooling(model.roi_heads.box_roi_pool), model.roi_heads.box_head, model.roi_heads.box_predictor,
            roi.fg_iou_thresh, roi.bg_iou_thresh, roi.batch_size_per_image, roi.positive_fraction,
            tuple(roi.bbox_reg_weights), evaluate.score_thresh, evaluate.nms_thresh, evaluate.max_detections)
        self.min_size, self.max_size = float(evaluate.min_size), float(evaluate.max_size or "inf")
        self.pixel_format, self.size_divisor = PIXEL_FORMATS[config.pixel_format], config.size_divisor
        self.register_buffer("mean", torch.tensor(self.pixel_format.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(self.pixel_format.std)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        original_size = torch._shape_as_tensor(image)[1:].double()
        size = self.resized_size(original_size)
        height, width = size[0], size[1]
        channels = (image.flip(0) if self.pixel_format.bgr else image).float()
        pixels = interpolate(((channels - self.mean) / self.std)[None], size=[height, width], mode="bilinear",
                             align_corners=False)
        divisor = self.size_divisor
        padded_size = torch.div(size + (divisor - 1), divisor, rounding_mode="floor") * divisor
        batch = ImageList(pad(pixels, [0, padded_size[1] - width, 0, padded_size[0] - height]), [(height, width)])
        features = self.backbone(batch.tensors)
        proposals, _ = self.rpn(batch, features)
        detections = self.roi_heads(features, proposals, batch.image_sizes)[0][0]
        scale = (original_size / size.double()).float()
        boxes = detections["boxes"] * torch.stack([scale[1], scale[0], scale[1], scale[0]])
        return boxes, detections["scores"], detections["labels"]

    def resized_size(self, size: Tensor) -> Tensor:
        """Computes detector.structures.scale_and_size with tensors: float64 [2] -> int64 [2], height and width.

        All intermediate values are vectors of length 1, because ONNX would compute scalars in float32.
        """
        height, width = size[:1], size[1:]
        min_size, max_size = (torch.tensor([length], dtype=torch.float64) for length in (self.min_size, self.max_size))
        scale = torch.minimum(min_size / torch.minimum(height, width), max_size / torch.maximum(height, width))
        return (size * scale).floor().clamp(min=1).long()


class TracedPooling(nn.Module):
    """RoiPooling of one image that keeps the number of boxes a tensor's shape, not a number."""

    def __init__(self, pooling: RoiPooling):
        super().__init__()
        self.pooling = pooling

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], _sizes: list) -> Tensor:
        rois = torch.cat([torch.zeros_like(boxes[0][:, :1]), boxes[0]], dim=1)
        levels = [(features[name], 1 / stride) for name, stride in self.pooling.strides.items()]
        if len(levels) == 1:
            return self.pooling.pool(*levels[0], rois)
        level, size = self.pooling.map_levels(boxes), self.pooling.size
        pooled = (0 * rois[:, :1, None, None]).expand(-1, levels[0][0].shape[1], size, size).clone()
        for number, (feature, scale) in enumerate(levels):
            rows = torch.where(level == number)[0]
            pooled = pooled.index_put((rows,), self.pooling.pool(feature, scale, rois[rows]))
        return pooled
