"""The backbones: every network below the RPN, with all that the rest of the detector has to know of it.

BACKBONES defines every backbone; the names of the shipped ones are repeated in config/model_schema.py, so that configs
are checked without torch. Adding a backbone is adding an entry, also from user code:
`BACKBONES["mine"] = Backbone(build=..., ...)` before the config with model.backbone=mine is loaded.
"""

from dataclasses import dataclass
from functools import partial
from typing import Callable

from torch import Tensor, nn
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FeaturePyramidNetwork, Permute
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from detector.config.model_schema import Model
from detector.config.parsing import did_you_mean
from detector.errors import BadInput, combine_mistakes

LAYERS = ("layer1", "layer2", "layer3", "layer4")
VGG_STAGES = ((0, 5), (5, 10), (10, 17), (17, 24), (24, 30))  # of vgg16.features: conv1 ... conv5 with their pools
MOBILENET_STAGES = ((0, 2), (2, 4), (4, 7), (7, 13), (13, 16), (16, 17))  # each begins where the stride doubles
TINY_STAGES = ((0, 1), (1, 2), (2, 4), (4, 6), (6, 8))  # of ConvNeXt and Swin: the stem, four stages with their strides
TINY_LEVELS = {"1": 96, "3": 192, "5": 384, "7": 768}   # the last layer of each stage -> its channels


@dataclass(frozen=True)
class BackboneParts:
    """The modules of one backbone.

    backbone: images [B, 3, H, W] -> features [B, F, h, w] by level name; F is its attribute `out_channels`.
    box_head: pooled features [R, F, S, S] -> [R, D]; D is its attribute `out_channels`.
    stages: the modules of each stage from the image upwards, for model.frozen_stages.
    """

    backbone: nn.Module
    box_head: nn.Module
    stages: list[list[nn.Module]]


@dataclass(frozen=True)
class Backbone:
    """All that is particular to one backbone."""

    build: Callable[[Model], BackboneParts]      # returns modules with random weights
    strides: dict[str, int]                      # of the levels that boxes are pooled from, pixels
    anchor_sizes: tuple[tuple[float, ...], ...]  # default of model.anchor_sizes: a list for each level of the RPN
    num_stages: int                              # the largest model.frozen_stages
    size_divisor: int = 1                        # model.size_divisor has to be a multiple of this
    rpn_conv_depth: int = 1                      # 3 x 3 convolutions of the RPN's head
    is_traceable: bool = True                    # one graph for images of any size, for ONNX and TorchScript
    # Prefix of a name in the classifier's weights -> prefix in the detector; the first that fits counts.
    classifier_prefixes: tuple[tuple[str, str], ...] = ()
    imagenet_weights: str = ""                   # torchvision's weight entry for model.weights=imagenet; empty: none
    coco_weights: str = ""                       # torchvision's weight entry for model.weights=coco; empty: none
    coco_norm_eps: float | None = None           # epsilon of frozen batch norms with coco_weights; None: that of each


def check_backbone(config: Model) -> Backbone:
    """Returns the entry of model.backbone.

    Raises:
        BadInput: there is no such backbone, or other options of the model contradict it.
    """
    backbone = find_backbone(config)
    problems, levels, sizes = [], len(backbone.anchor_sizes), [list(level) for level in config.anchor_sizes]
    if config.size_divisor % backbone.size_divisor:
        problems.append(f"model.size_divisor={config.size_divisor}: the levels of {config.backbone} need multiples of "
                        f"{backbone.size_divisor}")
    if len(sizes) not in (0, 1, levels) or len({len(level) for level in sizes}) > 1:
        problems.append(f"model.anchor_sizes={sizes}: {config.backbone} has {levels} level{'s' if levels > 1 else ''}; "
                        "give a list for each, all equally long, or one list for all")
    if config.frozen_stages > backbone.num_stages:
        problems.append(f"model.frozen_stages={config.frozen_stages}: {config.backbone} has "
                        f"{backbone.num_stages} stages")
    if problems:
        raise combine_mistakes(f"model.backbone={config.backbone}", problems)
    return backbone


def find_backbone(config: Model) -> Backbone:
    """Returns the entry of model.backbone. Raises BadInput if there is none."""
    if config.backbone not in BACKBONES:
        raise BadInput(f"model.backbone={config.backbone!r}: one of {', '.join(BACKBONES)}"
                       f"{did_you_mean(config.backbone, BACKBONES)}")
    return BACKBONES[config.backbone]


def freeze(stages: list[list[nn.Module]], count: int) -> None:
    """Stops the training of the first `count` stages, their batch norms included."""
    for module in (module for stage in stages[:count] for module in stage):
        module.requires_grad_(False)


class SingleLevel(nn.Sequential):
    """Layers whose output is the only level; its name is 0, as in torchvision's pooling and RPN."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"0": super().forward(images)}


class MeanHead(nn.Sequential):
    """A stage of the classifier as box head, then the mean over all cells (He et al. 2016, ResNet, "C4")."""

    def forward(self, pooled: Tensor) -> Tensor:
        return super().forward(pooled).mean(dim=(2, 3))


class VggHead(nn.Module):
    """fc6 and fc7 with dropout (Simonyan & Zisserman 2015)."""

    def __init__(self, cells: int, dropout: float):
        super().__init__()
        self.fc6, self.fc7 = nn.Linear(512 * cells, 4096), nn.Linear(4096, 4096)
        self.relu, self.dropout = nn.ReLU(), nn.Dropout(dropout)
        self.out_channels = 4096

    def forward(self, pooled: Tensor) -> Tensor:
        hidden = self.dropout(self.relu(self.fc6(pooled.flatten(1))))
        return self.dropout(self.relu(self.fc7(hidden)))


def build_vgg16(config: Model) -> BackboneParts:
    layers = list(models.vgg16(weights=None, init_weights=True).features)[:-1]  # without the last pool: stride 16
    backbone = SingleLevel(*layers)
    backbone.out_channels = 512
    return BackboneParts(backbone, VggHead(config.roi_pooling_size ** 2, config.dropout),
                         [layers[first:last] for first, last in VGG_STAGES])


def build_resnet_c4(name: str, config: Model) -> BackboneParts:
    network = build_resnet(name, config)
    backbone = SingleLevel()
    for part in ("conv1", "bn1", "relu", "maxpool", *LAYERS[:3]):
        backbone.add_module(part, getattr(network, part))
    head = MeanHead()
    head.add_module("layer4", network.layer4)
    head.out_channels = network.fc.in_features
    backbone.out_channels = head.out_channels // 2
    return BackboneParts(backbone, head, resnet_stages(network))


def build_resnet_fpn(name: str, config: Model) -> BackboneParts:
    network = build_resnet(name, config)
    return BackboneParts(build_resnet_pyramid(network, config), build_two_layer_head(config), resnet_stages(network))


def build_resnet_fpn_v2(name: str, config: Model) -> BackboneParts:
    """Returns a ResNet with batch norms in its FPN, and four convolutions with batch norms in its box head, as in
    torchvision's fasterrcnn_resnet50_fpn_v2 (Li et al. 2021, arXiv 2111.11429, 3.2)."""
    network = build_resnet(name, config)
    channels, size = config.fpn_channels, config.roi_pooling_size
    head = FastRCNNConvFCHead((channels, size, size), [channels] * 4, [config.box_head_dim], nn.BatchNorm2d)
    head.out_channels = config.box_head_dim
    return BackboneParts(build_resnet_pyramid(network, config, nn.BatchNorm2d), head, resnet_stages(network))


def build_resnet_pyramid(network: nn.Module, config: Model, norm: type[nn.Module] | None = None) -> BackboneWithFPN:
    top = network.fc.in_features
    return BackboneWithFPN(network, {layer: str(i) for i, layer in enumerate(LAYERS)},
                           [top // 8, top // 4, top // 2, top], config.fpn_channels, norm_layer=norm)


def build_mobilenet_fpn(config: Model) -> BackboneParts:
    # As in torchvision's detector: batch norms with epsilon 1e-5, though its classifier has 1e-3.
    features = models.mobilenet_v3_large(weights=None, norm_layer=nn.BatchNorm2d).features
    backbone = BackboneWithFPN(features, {"13": "0", "16": "1"}, [features[13].out_channels, features[16].out_channels],
                               config.fpn_channels)
    return BackboneParts(backbone, build_two_layer_head(config),
                         [list(features[first:last]) for first, last in MOBILENET_STAGES])


class LevelNorms(nn.ModuleDict):
    """One norm for each level of a dict of features."""

    def forward(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: norm(levels[name]) for name, norm in self.items()}


def build_tiny_fpn(name: str, norm: Callable[[int], nn.Module], config: Model) -> BackboneParts:
    """Returns ConvNeXt-T or Swin-T below an FPN, with a layer norm between (Liu et al. 2021, arXiv 2103.14030, A2.2).

    Their stages end in a residual sum, which nothing has normalized.

    Args:
        norm: channels -> the norm of a level, whose output is [B, channels, h, w].
    """
    features = models.get_model(name, weights=None).features
    backbone = nn.Sequential()
    backbone.add_module("body", IntermediateLayerGetter(features, {key: str(i) for i, key in enumerate(TINY_LEVELS)}))
    backbone.add_module("norms", LevelNorms({str(i): norm(width) for i, width in enumerate(TINY_LEVELS.values())}))
    backbone.add_module("fpn", FeaturePyramidNetwork(list(TINY_LEVELS.values()), config.fpn_channels,
                                                     LastLevelMaxPool()))
    backbone.out_channels = config.fpn_channels
    return BackboneParts(backbone, build_two_layer_head(config),
                         [list(features[first:last]) for first, last in TINY_STAGES])


def swin_level_norm(channels: int) -> nn.Sequential:
    """Returns a layer norm of Swin's features [B, h, w, channels] that puts the channels first."""
    return nn.Sequential(nn.LayerNorm(channels), Permute([0, 3, 1, 2]))


def build_resnet(name: str, config: Model) -> nn.Module:
    """Returns torchvision's classifier; on request with the strides and the pool of the original Caffe networks."""
    network = models.get_model(name, weights=None)
    if config.stride_in_1x1 and isinstance(network.layer2[0], Bottleneck):
        for block in (getattr(network, layer)[0] for layer in LAYERS[1:]):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    if config.ceil_pool:
        network.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
    return network


def build_two_layer_head(config: Model) -> TwoMLPHead:
    head = TwoMLPHead(config.fpn_channels * config.roi_pooling_size ** 2, config.box_head_dim)
    head.out_channels = config.box_head_dim
    return head


def resnet_stages(network: nn.Module) -> list[list[nn.Module]]:
    return [[network.conv1, network.bn1], *([getattr(network, layer)] for layer in LAYERS)]


C4 = {"strides": {"0": 16}, "anchor_sizes": ((32, 64, 128, 256, 512),), "num_stages": 5,
      "classifier_prefixes": (("layer4.", "roi_heads.box_head.layer4."), ("fc.", "fc."), ("", "backbone."))}
TINY_FPN = {"strides": {"0": 4, "1": 8, "2": 16, "3": 32}, "anchor_sizes": ((32,), (64,), (128,), (256,), (512,)),
            "num_stages": 5, "size_divisor": 32}
FPN = {**TINY_FPN, "classifier_prefixes": (("fc.", "fc."), ("", "backbone.body."))}

BACKBONES = {
    "vgg16": Backbone(
        build_vgg16, strides={"0": 16}, anchor_sizes=((32, 64, 128, 256, 512),), num_stages=5,
        classifier_prefixes=(("features.", "backbone."), ("classifier.0.", "roi_heads.box_head.fc6."),
                             ("classifier.3.", "roi_heads.box_head.fc7.")),
        imagenet_weights="VGG16_Weights.IMAGENET1K_V1"),
    "resnet18_c4": Backbone(partial(build_resnet_c4, "resnet18"), **C4,
                            imagenet_weights="ResNet18_Weights.IMAGENET1K_V1"),
    "resnet34_c4": Backbone(partial(build_resnet_c4, "resnet34"), **C4,
                            imagenet_weights="ResNet34_Weights.IMAGENET1K_V1"),
    "resnet50_c4": Backbone(partial(build_resnet_c4, "resnet50"), **C4,
                            imagenet_weights="ResNet50_Weights.IMAGENET1K_V1"),
    "resnet101_c4": Backbone(partial(build_resnet_c4, "resnet101"), **C4,
                             imagenet_weights="ResNet101_Weights.IMAGENET1K_V1"),
    "resnet152_c4": Backbone(partial(build_resnet_c4, "resnet152"), **C4,
                             imagenet_weights="ResNet152_Weights.IMAGENET1K_V1"),
    "resnet18_fpn": Backbone(partial(build_resnet_fpn, "resnet18"), **FPN,
                             imagenet_weights="ResNet18_Weights.IMAGENET1K_V1"),
    "resnet34_fpn": Backbone(partial(build_resnet_fpn, "resnet34"), **FPN,
                             imagenet_weights="ResNet34_Weights.IMAGENET1K_V1"),
    "resnet50_fpn": Backbone(
        partial(build_resnet_fpn, "resnet50"), **FPN, imagenet_weights="ResNet50_Weights.IMAGENET1K_V1",
        # fasterrcnn_resnet50_fpn sets this epsilon in its last lines, for these weights only.
        coco_weights="FasterRCNN_ResNet50_FPN_Weights.COCO_V1", coco_norm_eps=0.0),
    "resnet50_fpn_v2": Backbone(
        partial(build_resnet_fpn_v2, "resnet50"), **FPN, rpn_conv_depth=2,
        imagenet_weights="ResNet50_Weights.IMAGENET1K_V1",
        coco_weights="FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1"),
    "resnet101_fpn": Backbone(partial(build_resnet_fpn, "resnet101"), **FPN,
                              imagenet_weights="ResNet101_Weights.IMAGENET1K_V1"),
    "resnet152_fpn": Backbone(partial(build_resnet_fpn, "resnet152"), **FPN,
                              imagenet_weights="ResNet152_Weights.IMAGENET1K_V1"),
    "mobilenet_v3_large_fpn": Backbone(
        build_mobilenet_fpn, strides={"0": 32, "1": 32}, anchor_sizes=((32, 64, 128, 256, 512),) * 3, num_stages=6,
        size_divisor=32, classifier_prefixes=(("features.", "backbone.body."),),
        imagenet_weights="MobileNet_V3_Large_Weights.IMAGENET1K_V1",
        coco_weights="FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1"),
    "convnext_tiny_fpn": Backbone(
        partial(build_tiny_fpn, "convnext_tiny", partial(LayerNorm2d, eps=1e-6)), **TINY_FPN,
        classifier_prefixes=(("features.", "backbone.body."),),
        imagenet_weights="ConvNeXt_Tiny_Weights.IMAGENET1K_V1"),
    "swin_t_fpn": Backbone(
        partial(build_tiny_fpn, "swin_t", swin_level_norm), **TINY_FPN, is_traceable=False,
        classifier_prefixes=(("features.", "backbone.body."), ("norm.", "backbone.norms.3.0.")),
        imagenet_weights="Swin_T_Weights.IMAGENET1K_V1"),
}
