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
from detector.model.backbones import Parts, build_body, freeze
from detector.model.box_coder import BoxCoding, grown
from detector.model.ground_truth import Truth, pad_truth
from detector.model.ops.frozen_batchnorm import fold_norms, freeze_norms
from detector.model.poolers import RoiPooling
from detector.model.preprocessing import PIXELS, Input, to_batch
from detector.model.roi_heads import Predictor, RoiHeads
from detector.model.rpn import Rpn, RpnHead
from detector.model.torchvision_heads import torchvision_heads
from detector.model.weights.load import frozen_eps
from detector.structures import Side, resized, scale_boxes

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")  # torchvision's names


class Detector(nn.Module):
    """Trained by calling it; used by `predict`. `extent`: see model/box_coder.py."""

    def __init__(self, backbone: nn.Module, rpn: nn.Module, roi_heads: nn.Module, extent: int = 0):
        super().__init__()
        self.backbone, self.rpn, self.roi_heads, self.extent = backbone, rpn, roi_heads, extent
        self.input = Input()

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]], side: Side,
                least: tuple[int, int] = (0, 0)) -> Tensor:
        """Images uint8 [3, H, W] and targets (boxes [N, 4], labels [N]) -> the four losses, float32 [4], as LOSSES.

        The canvas is at least as high and wide as `least`, in pixels.
        """
        batch = to_batch(images, side, self.input, [target.get("frame") for target in targets], least)
        return self.losses(batch, self.backbone(batch.tensors), self.truth(targets, images, side))

    def truth(self, targets: list[dict[str, Tensor]], images: list[Tensor], side: Side) -> Truth:
        """Objects in the pixels of the batch; boxes in a frame count from its corner already."""
        sizes = [tuple(image.shape[-2:]) for image in images]
        return pad_truth(targets, sizes, [resized(*size, side)[1] for size in sizes], self.extent)

    def losses(self, batch: ImageList, features: dict[str, Tensor], truth: Truth) -> Tensor:
        """float32 [4], as LOSSES, of objects in the pixels of the batch."""
        proposals, rpn_losses = self.rpn(batch, features, truth)
        _, roi_losses = self.roi_heads(features, proposals, batch.image_sizes, truth)
        return torch.stack([{**rpn_losses, **roi_losses}[name].float() for name in LOSSES])

    @torch.no_grad()
    def predict(self, images: list[Tensor], side: Side, targets: list[dict[str, Tensor]] | None = None
                ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        """Detections of each image: boxes [K, 4] in its own pixels, scores [K], labels [K]; with targets also losses.

        The losses share the features, and are drawn from the same samplers as in training; dropout stays off.
        """
        batch = to_batch(images, side, self.input)
        features = self.backbone(batch.tensors)
        proposals, _ = self.rpn(batch, features)
        found, _ = self.roi_heads(features, proposals, batch.image_sizes)
        for detections, image, size in zip(found, images, batch.image_sizes):
            boxes = scale_boxes(detections["boxes"], size, tuple(image.shape[-2:]))
            detections["boxes"] = grown(boxes, self.extent)
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
    parts = build_body(config)
    pooling = RoiPooling(config.pooling, config.pooling_size, parts.strides, config.sampling_ratio,
                         config.crop_max_pool)
    predictor = Predictor(parts.head.out_channels, classes, config.class_agnostic, config.roi.init)
    heads = our_heads if config.heads == "ours" else torchvision_heads
    rpn, roi_heads = heads(parts, anchors_of(config, parts), pooling, predictor, config, evaluate)
    freeze(parts, config.frozen_stages)
    model = Detector(parts.body, rpn, roi_heads, int(config.plus_one))
    model.input = Input(PIXELS[config.pixels], config.canvas_multiple)
    return fold_norms(freeze_norms(model, everywhere=config.norm == "frozen", eps=frozen_eps(config)))


def our_heads(parts: Parts, anchors: Anchors, pooling: RoiPooling, predictor: Predictor, config: Model,
              evaluate: Evaluate) -> tuple[Rpn, RoiHeads]:
    extent, channels = int(config.plus_one), parts.body.out_channels
    head = RpnHead(channels, config.rpn.width or channels, anchors.per_cell()[0], config.rpn.two_way)
    return (Rpn(head, anchors, config.rpn, BoxCoding(extent=extent, clamp=config.clamp_deltas)),
            RoiHeads(pooling, parts.head, predictor, config.roi, evaluate,
                     BoxCoding(tuple(config.roi.box_weights), extent, config.clamp_deltas)))


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
