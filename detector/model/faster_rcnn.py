"""The whole detector: Faster R-CNN (Ren et al. 2015), any body under any pooling.

Its state dict has torchvision's names, so `fasterrcnn_resnet50_fpn` and `fasterrcnn_mobilenet_v3_large_fpn` load.
"""

from contextlib import contextmanager
from dataclasses import replace
from typing import Iterator

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from detector.config.model_schema import Model
from detector.config.schema import Evaluate
from detector.model.anchors import Anchors, anchors_of
from detector.model.backbones import BackboneParts, build_backbone, freeze
from detector.model.box_coder import BoxCoder, to_exclusive
from detector.model.ground_truth import GroundTruth, pad_ground_truth
from detector.model.ops.frozen_batchnorm import fold_norms, freeze_norms
from detector.model.poolers import RoiPooling
from detector.model.preprocessing import PIXELS, Input, to_batch
from detector.model.roi_heads import FastRCNNPredictor, RoiHeads
from detector.model.rpn import Rpn, RpnHead
from detector.model.torchvision_heads import torchvision_heads
from detector.model.weights.load import frozen_eps
from detector.structures import Resize, scale_and_size, scale_boxes



class Detector(nn.Module):
    """Trained by calling it; used by `predict`. `extent`: see model/box_coder.py."""

    def __init__(self, backbone: nn.Module, rpn: nn.Module, roi_heads: nn.Module, extent: int = 0):
        super().__init__()
        self.backbone, self.rpn, self.roi_heads, self.extent = backbone, rpn, roi_heads, extent
        self.input = Input()

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]], side: Resize,
                least: tuple[int, int] = (0, 0)) -> dict[str, Tensor]:
        """Images uint8 [3, H, W] and targets (boxes [N, 4], labels [N]) -> the losses by name, float32 [] each.

        The canvas is at least as high and wide as `least`, in pixels.
        """
        batch = to_batch(images, side, self.input, [target.get("frame") for target in targets], least)
        return self.losses(batch, self.backbone(batch.tensors), self.truth(targets, images, side))

    def truth(self, targets: list[dict[str, Tensor]], images: list[Tensor], side: Resize) -> GroundTruth:
        """Objects in the pixels of the batch; boxes in a frame count from its corner already."""
        sizes = [tuple(image.shape[-2:]) for image in images]
        return pad_ground_truth(targets, sizes, [scale_and_size(*size, side)[1] for size in sizes], self.extent)

    def losses(self, batch: ImageList, features: dict[str, Tensor], truth: GroundTruth) -> dict[str, Tensor]:
        """The losses of both stages by torchvision's names, float32 [] each, for objects in the pixels of the batch."""
        proposals, rpn_losses = self.rpn(batch, features, truth)
        _, roi_losses = self.roi_heads(features, proposals, batch.image_sizes, truth)
        return {name: loss.float() for name, loss in {**rpn_losses, **roi_losses}.items()}

    @torch.no_grad()
    def predict(self, images: list[Tensor], side: Resize, targets: list[dict[str, Tensor]] | None = None
                ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor] | None]:
        """Detections of each image: boxes [K, 4] in its own pixels, scores [K], labels [K]; with targets also losses.

        The losses share the features, and are drawn from the same samplers as in training; dropout stays off.
        """
        batch = to_batch(images, side, self.input)
        features = self.backbone(batch.tensors)
        proposals, _ = self.rpn(batch, features)
        found, _ = self.roi_heads(features, proposals, batch.image_sizes)
        for detections, image, size in zip(found, images, batch.image_sizes):
            boxes = scale_boxes(detections["boxes"], size, tuple(image.shape[-2:]))
            detections["boxes"] = to_exclusive(boxes, self.extent)
        if targets is None:
            return found, None
        with sampling(self.rpn), sampling(self.roi_heads):
            return found, self.losses(batch, features, self.truth(targets, images, side))


@contextmanager
def sampling(module: nn.Module) -> Iterator[None]:
    """The module itself, but none of its layers, behaves as in training: it samples and gives losses."""
    module.training = True
    try:
        yield
    finally:
        module.training = False


def build_model(config: Model, evaluate: Evaluate, classes: int) -> Detector:
    """A detector for this many classes (without background) with random weights."""
    parts = build_backbone(config)
    pooling = RoiPooling(config.roi_pooling, config.roi_pooling_size, parts.strides, config.sampling_ratio,
                         config.crop_max_pool)
    predictor = FastRCNNPredictor(parts.head.out_channels, classes, config.class_agnostic, config.roi.predictor_init)
    heads = native_heads if config.heads == "native" else torchvision_heads
    rpn, roi_heads = heads(parts, anchors_of(config, parts), pooling, predictor, config, evaluate)
    freeze(parts, config.frozen_stages)
    model = Detector(parts.body, rpn, roi_heads, int(config.inclusive_boxes))
    model.input = Input(PIXELS[config.pixel_format], config.size_divisor)
    return fold_norms(freeze_norms(model, everywhere=config.norm == "frozen", eps=frozen_eps(config)))


def native_heads(parts: BackboneParts, anchors: Anchors, pooling: RoiPooling, predictor: FastRCNNPredictor, config: Model,
              evaluate: Evaluate) -> tuple[Rpn, RoiHeads]:
    extent, channels = int(config.inclusive_boxes), parts.body.out_channels
    head = RpnHead(channels, config.rpn.conv_channels or channels, anchors.per_cell()[0], config.rpn.softmax_objectness)
    return (Rpn(head, anchors, config.rpn, BoxCoder(extent=extent, clamp=config.clamp_deltas)),
            RoiHeads(pooling, parts.head, predictor, config.roi, evaluate,
                     BoxCoder(tuple(config.roi.bbox_reg_weights), extent, config.clamp_deltas)))


def use_channels_last(model: Detector) -> Detector:
    """Weights and inputs in the layout in which the channels of a pixel are side by side."""
    model.input = replace(model.input, channels_last=True)
    return model.to(memory_format=torch.channels_last)


def placed(model: Detector, channels_last: bool, device: torch.device) -> Detector:
    """Moved there; channels_last, where it is wanted and is not slower.

    Without 512-bit instructions it is: a step of ResNet-50 FPN at 800 took 1.3 times as long with AVX2.
    """
    fast = device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return (use_channels_last(model) if channels_last and fast else model).to(device)
