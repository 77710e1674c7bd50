"""Faster R-CNN (Ren et al. 2015), assembled from a config: any backbone, any RoI pooling.

Its state dict has torchvision's names, so that weights of `fasterrcnn_resnet50_fpn`, `fasterrcnn_resnet50_fpn_v2` and
`fasterrcnn_mobilenet_v3_large_fpn` load.
"""

from contextlib import contextmanager
from dataclasses import replace
from typing import Iterator

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from detector.config.model_schema import Model
from detector.config.schema import Evaluate
from detector.model.anchors import Anchors, build_anchors
from detector.model.backbones import BackboneParts, check_backbone, find_backbone, freeze
from detector.model.box_coder import BoxCoder, build_box_coder
from detector.model.ground_truth import GroundTruth, pad_ground_truth
from detector.model.ops.frozen_batchnorm import fold_norms, freeze_norms
from detector.model.ops.synchronized_batchnorm import synchronize_norms, use_pytorchs_synchronization
from detector.model.poolers import RoiPooling
from detector.model.preprocessing import PIXEL_FORMATS, Preprocessing, to_batch
from detector.model.roi_heads import FastRCNNPredictor, RoiHeads
from detector.model.rpn import Rpn, RpnHead
from detector.model.torchvision_heads import torchvision_heads
from detector.model.weights.load import frozen_norm_eps
from detector.structures import Resize, scale_and_size, scale_boxes


class Detector(nn.Module):
    """A Faster R-CNN from uint8 images to losses (calling it) or detections (`predict`)."""

    def __init__(self, backbone: nn.Module, rpn: nn.Module, roi_heads: nn.Module, box_coder: BoxCoder = BoxCoder(),
                 preprocessing: Preprocessing = Preprocessing()):
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads
        self.box_coder, self.preprocessing = box_coder, preprocessing

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]], resize: Resize,
                min_padded_size: tuple[int, int] = (0, 0)) -> dict[str, Tensor]:
        """Returns the losses of a batch by torchvision's names, float32 [] each.

        The order is that of the two stages: objectness, rpn_box_reg, classifier, box_reg. Sum them in this order:
        another order rounds differently.

        Args:
            images: uint8 [3, H, W] each, RGB.
            targets: boxes [N, 4] and labels [N] of each image, in its pixels; with a `frame` (see to_batch), boxes
                are counted from the frame's upper left corner.
            resize: the resize rule of the images.
            min_padded_size: the batch is at least this high and wide.
        """
        frames = [target.get("frame") for target in targets]
        batch = to_batch(images, resize, self.preprocessing, frames, min_padded_size)
        return self.losses(batch, self.backbone(batch.tensors), self.ground_truth(targets, images, resize))

    def ground_truth(self, targets: list[dict[str, Tensor]], images: list[Tensor], resize: Resize) -> GroundTruth:
        """Returns the objects in pixels of the batch."""
        sizes = [tuple(image.shape[-2:]) for image in images]
        resized = [scale_and_size(*size, resize)[1] for size in sizes]
        return pad_ground_truth(targets, sizes, resized, self.box_coder)

    def losses(self, batch: ImageList, features: dict[str, Tensor], ground_truth: GroundTruth) -> dict[str, Tensor]:
        """Returns the losses of both stages, float32 [] each, for objects in pixels of the batch."""
        proposals, rpn_losses = self.rpn(batch, features, ground_truth)
        _, roi_losses = self.roi_heads(features, proposals, batch.image_sizes, ground_truth)
        return {name: loss.float() for name, loss in {**rpn_losses, **roi_losses}.items()}

    @torch.no_grad()
    def predict(self, images: list[Tensor], resize: Resize, targets: list[dict[str, Tensor]] | None = None,
                min_padded_size: tuple[int, int] = (0, 0)) -> tuple[list[dict[str, Tensor]], dict[str, Tensor] | None]:
        """Returns the detections of each image; with targets also the losses, else None.

        Losses use the same features as the detections, and sample boxes as in training; dropout stays off.

        Args:
            images, targets, min_padded_size: see `forward`; targets have no frame.
            resize: the resize rule of the images.

        Returns:
            For each image boxes [K, 4] in its own pixels, labels [K] and scores [K] by falling score; and the losses.
        """
        batch = to_batch(images, resize, self.preprocessing, min_padded_size=min_padded_size)
        features = self.backbone(batch.tensors)
        proposals, _ = self.rpn(batch, features)
        detections, _ = self.roi_heads(features, proposals, batch.image_sizes)
        for detected, image, size in zip(detections, images, batch.image_sizes):
            boxes = scale_boxes(detected["boxes"], size, tuple(image.shape[-2:]))
            detected["boxes"] = self.box_coder.to_exclusive(boxes)
        if targets is None:
            return detections, None
        with sampling_enabled(self.rpn), sampling_enabled(self.roi_heads):
            return detections, self.losses(batch, features, self.ground_truth(targets, images, resize))


@contextmanager
def sampling_enabled(module: nn.Module) -> Iterator[None]:
    """Sets the module to training, but none of its layers: it samples and returns losses."""
    module.training = True
    try:
        yield
    finally:
        module.training = False


def build_model(config: Model, evaluate: Evaluate, classes: int) -> Detector:
    """Returns a detector with random weights.

    Args:
        evaluate: thresholds and limits of its detections.
        classes: number of classes without background.

    Raises:
        BadInput: model.backbone does not exist, or other options contradict it.
    """
    backbone = check_backbone(config)
    parts = backbone.build(config)
    pooling = RoiPooling(config.roi_pooling, config.roi_pooling_size, backbone.strides, config.sampling_ratio,
                         config.crop_max_pool)
    predictor = FastRCNNPredictor(parts.box_head.out_channels, classes, config.class_agnostic,
                                  config.roi.predictor_init)
    build_heads = native_heads if config.heads == "native" else torchvision_heads
    rpn, roi_heads = build_heads(parts, build_anchors(config), pooling, predictor, config, evaluate)
    freeze(parts.stages, config.frozen_stages)
    model = Detector(parts.backbone, rpn, roi_heads, build_box_coder(config),
                     Preprocessing(PIXEL_FORMATS[config.pixel_format], config.size_divisor))
    fold_norms(freeze_norms(model, everywhere=config.norm == "frozen", eps=frozen_norm_eps(config)))
    return synchronize_norms(model) if config.norm == "synchronized" else model


def native_heads(parts: BackboneParts, anchors: Anchors, pooling: RoiPooling, predictor: FastRCNNPredictor,
                 config: Model, evaluate: Evaluate) -> tuple[Rpn, RoiHeads]:
    channels = parts.backbone.out_channels
    rpn_head = RpnHead(channels, config.rpn.conv_channels or channels, anchors.num_anchors_per_location()[0],
                       config.rpn.softmax_objectness, find_backbone(config).rpn_conv_depth)
    return (Rpn(rpn_head, anchors, config.rpn, build_box_coder(config)),
            RoiHeads(pooling, parts.box_head, predictor, config.roi, evaluate,
                     build_box_coder(config, config.roi.bbox_reg_weights)))


def use_channels_last(model: Detector) -> Detector:
    """Sets the memory layout of weights and batches to channels_last, in place."""
    model.preprocessing = replace(model.preprocessing, channels_last=True)
    return model.to(memory_format=torch.channels_last)


def is_channels_last_fast(device: torch.device) -> bool:
    """Returns whether channels_last is no slower than PyTorch's own layout: on GPUs, and on CPUs with AVX-512.

    A CPU without 512-bit instructions is slower: with AVX2 a step of ResNet-50 FPN at 800 pixels took 1.3 times as
    long.
    """
    return device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def to_device_and_layout(model: Detector, channels_last: bool, device: torch.device) -> Detector:
    """Moves a model to its device; with channels_last where that is wanted (run.channels_last) and not slower."""
    if device.type == "cuda":
        use_pytorchs_synchronization(model)
    return (use_channels_last(model) if channels_last and is_channels_last_fast(device) else model).to(device)
