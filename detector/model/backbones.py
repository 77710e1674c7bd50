"""The networks below the RPN, cut from torchvision's classifiers: what becomes the body, what the box head.

A body maps images [B, 3, H, W] to features by level, and says its `out_channels`; a box head maps pooled features
[R, F, S, S] to one vector for each box and says its `out_channels`.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.resnet import Bottleneck

from detector.config.model_schema import Model

LAYERS = ("layer1", "layer2", "layer3", "layer4")
VGG_STAGES = ((0, 5), (5, 10), (10, 17), (17, 24), (24, 30))  # of vgg16.features: conv1 ... conv5 with their pools
MOBILENET_STAGES = ((0, 2), (2, 4), (4, 7), (7, 13), (13, 16), (16, 17))  # each begins where the stride doubles


@dataclass(frozen=True)
class BackboneParts:
    """A body and its box head, with the numbers that the rest of the detector is built around."""

    body: nn.Module
    head: nn.Module
    strides: dict[str, int]              # of the levels that boxes are pooled from, pixels
    anchor_sizes: tuple[tuple, ...]      # usual sides for each level of the RPN, pixels
    stages: list[list[nn.Module]]        # from the image upwards, for model.frozen_stages


def build_backbone(config: Model) -> BackboneParts:
    name, _, kind = config.backbone.partition("_")
    if name == "vgg16":
        return vgg16(config)
    if name == "mobilenet":
        return mobilenet_fpn(config)
    return resnet_fpn(name, config) if kind == "fpn" else resnet_c4(name, config)


class OneLevel(nn.Sequential):
    """Layers whose output is the only level, with the name that torchvision's pooling and RPN know: 0."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"0": super().forward(images)}


class MeanHead(nn.Sequential):
    """A stage of the body as box head, then the mean over its cells (He et al. 2016, ResNet, "C4")."""

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


def vgg16(config: Model) -> BackboneParts:
    layers = list(models.vgg16(weights=None, init_weights=True).features)[:-1]  # without the last pool: stride 16
    body = OneLevel(*layers)
    body.out_channels = 512
    return BackboneParts(body, VggHead(config.roi_pooling_size ** 2, config.dropout), {"0": 16}, ((32, 64, 128, 256, 512),),
                 [layers[first:last] for first, last in VGG_STAGES])


def resnet(name: str, config: Model) -> nn.Module:
    """torchvision's classifier; with the stride and the pool where the networks of He et al. had them in Caffe."""
    network = models.get_model(name, weights=None)
    if config.stride_in_1x1 and isinstance(network.layer2[0], Bottleneck):
        for block in (getattr(network, layer)[0] for layer in LAYERS[1:]):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    if config.ceil_pool:
        network.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
    return network


def resnet_c4(name: str, config: Model) -> BackboneParts:
    network = resnet(name, config)
    body = OneLevel()
    for part in ("conv1", "bn1", "relu", "maxpool", *LAYERS[:3]):
        body.add_module(part, getattr(network, part))
    head = MeanHead()
    head.add_module("layer4", network.layer4)
    head.out_channels = network.fc.in_features
    body.out_channels = head.out_channels // 2
    return BackboneParts(body, head, {"0": 16}, ((32, 64, 128, 256, 512),), resnet_stages(network))


def resnet_fpn(name: str, config: Model) -> BackboneParts:
    network = resnet(name, config)
    top = network.fc.in_features
    body = BackboneWithFPN(network, {layer: str(i) for i, layer in enumerate(LAYERS)},
                           [top // 8, top // 4, top // 2, top], config.fpn_channels)
    return BackboneParts(body, two_layer_head(config), {"0": 4, "1": 8, "2": 16, "3": 32},
                 ((32,), (64,), (128,), (256,), (512,)), resnet_stages(network))


def mobilenet_fpn(config: Model) -> BackboneParts:
    # As in torchvision's detector: batch norms with epsilon 1e-5, though its classifier has 1e-3.
    features = models.mobilenet_v3_large(weights=None, norm_layer=nn.BatchNorm2d).features
    body = BackboneWithFPN(features, {"13": "0", "16": "1"}, [features[13].out_channels, features[16].out_channels],
                           config.fpn_channels)
    return BackboneParts(body, two_layer_head(config), {"0": 32, "1": 32}, ((32, 64, 128, 256, 512),) * 3,
                 [list(features[first:last]) for first, last in MOBILENET_STAGES])


def two_layer_head(config: Model) -> TwoMLPHead:
    head = TwoMLPHead(config.fpn_channels * config.roi_pooling_size ** 2, config.box_head_dim)
    head.out_channels = config.box_head_dim
    return head


def resnet_stages(network: nn.Module) -> list[list[nn.Module]]:
    return [[network.conv1, network.bn1], *([getattr(network, layer)] for layer in LAYERS)]


def freeze(parts: BackboneParts, stages: int) -> None:
    """The first stages learn no more, and neither do their batch norms."""
    for module in (module for stage in parts.stages[:stages] for module in stage):
        module.requires_grad_(False)
