"""The detector as one graph that a trace can follow: what is exported to ONNX and TorchScript.

A trace records tensor operations: a length that Python reads becomes a constant. So sizes are computed as tensors
here, and RPN and heads are torchvision's own, which are written to be traced; the layers with weights are the model's.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from detector.config.schema import Evaluate, Model
from detector.model.anchors import plan_anchors
from detector.model.faster_rcnn import Detector
from detector.model.poolers import RoiPooling
from detector.model.preprocessing import PIXELS


class Portable(nn.Module):
    """One image uint8 [3, H, W] of any size -> boxes float32 [K, 4] in its pixels, scores [K], labels int64 [K]."""

    def __init__(self, model: Detector, config: Model, evaluate: Evaluate):
        super().__init__()
        self.backbone = model.backbone
        self.rpn = RegionProposalNetwork(
            plan_anchors(config).anchors.generator(), model.rpn.head, config.rpn.fg_iou_thresh, config.rpn.bg_iou_thresh,
            config.rpn.batch_size_per_image, config.rpn.positive_fraction, {"training": 1, "testing": config.rpn.pre_nms_top_n_eval},
            {"training": 1, "testing": config.rpn.post_nms_top_n_eval}, config.rpn.nms_thresh, config.rpn.score_thresh)
        self.roi_heads = RoIHeads(
            TracedPooling(model.roi_heads.box_roi_pool), model.roi_heads.box_head, model.roi_heads.box_predictor,
            config.roi.fg_iou_thresh, config.roi.bg_iou_thresh, config.roi.batch_size_per_image, config.roi.positive_fraction,
            tuple(config.roi.bbox_reg_weights), evaluate.score_thresh, evaluate.nms_thresh, evaluate.max_detections)
        self.min_size, self.max_size = float(evaluate.min_size), float(evaluate.max_size or "inf")
        self.pixels, self.multiple = PIXELS[config.pixel_format], config.size_divisor
        self.register_buffer("mean", torch.tensor(self.pixels.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(self.pixels.std)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        before = torch._shape_as_tensor(image)[1:].double()
        after = self.resized(before)
        height, width = after[0], after[1]
        colours = (image.flip(0) if self.pixels.bgr else image).float()
        pixels = interpolate(((colours - self.mean) / self.std)[None], size=[height, width], mode="bilinear",
                             align_corners=False)
        canvas = torch.div(after + (self.multiple - 1), self.multiple, rounding_mode="floor") * self.multiple
        batch = ImageList(pad(pixels, [0, canvas[1] - width, 0, canvas[0] - height]), [(height, width)])
        features = self.backbone(batch.tensors)
        proposals, _ = self.rpn(batch, features)
        found = self.roi_heads(features, proposals, batch.image_sizes)[0][0]
        back = (before / after.double()).float()
        return found["boxes"] * torch.stack([back[1], back[0], back[1], back[0]]), found["scores"], found["labels"]

    def resized(self, before: Tensor) -> Tensor:
        """model.input.resized for float64 [2]; vectors of one, because ONNX would compute single numbers in float32."""
        first, second = before[:1], before[1:]
        short, long = (torch.tensor([side], dtype=torch.float64) for side in (self.min_size, self.max_size))
        scale = torch.minimum(short / torch.minimum(first, second), long / torch.maximum(first, second))
        return (before * scale).floor().clamp(min=1).long()


class TracedPooling(nn.Module):
    """RoiPooling of one image; the number of boxes stays a tensor's shape throughout."""

    def __init__(self, pooling: RoiPooling):
        super().__init__()
        self.pooling = pooling

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], _sizes: list) -> Tensor:
        rois = torch.cat([torch.zeros_like(boxes[0][:, :1]), boxes[0]], dim=1)
        levels = [(features[name], 1 / stride) for name, stride in self.pooling.strides.items()]
        if len(levels) == 1:
            return self.pooling.pool(*levels[0], rois)
        level, size = self.pooling.level_of(boxes), self.pooling.size
        pooled = (0 * rois[:, :1, None, None]).expand(-1, levels[0][0].shape[1], size, size).clone()
        for number, (feature, scale) in enumerate(levels):
            rows = torch.where(level == number)[0]
            pooled = pooled.index_put((rows,), self.pooling.pool(feature, scale, rois[rows]))
        return pooled
