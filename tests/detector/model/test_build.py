"""The assembled detector: the same as torchvision's where torchvision has it, and sound in every other combination."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn, fasterrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

from detector.config.load import load_config
from detector.config.schema import BODIES, Config, Evaluate, Model, Roi, Rpn
from detector.model.build import LOSSES, build_model, use_channels_last
from detector.model.input import Side
from detector.model.weights import load_weights

SIDE = Side(64, 96)
SMALL = Model(body="resnet18_fpn", weights="", norm="trained", frozen_stages=0, pooling_size=3, pyramid_width=16,
              head_width=32, rpn=Rpn(before_nms_train=100, after_nms_train=50, before_nms_eval=100, after_nms_eval=50),
              roi=Roi(batch=32))
PEERS = {"resnet50_fpn": fasterrcnn_resnet50_fpn, "mobilenet_v3_large_fpn": fasterrcnn_mobilenet_v3_large_fpn}


def randomise(model: nn.Module) -> None:
    """Weights as of a trained network: norms that matter, and a predictor that is sure of something."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            module.weight.data.uniform_(0.4, 0.9)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    for name, weight in model.named_parameters():
        if name.startswith(("rpn.head.cls_logits.w", "roi_heads.box_predictor.cls_score.w")):
            weight.data.normal_(0, 1 / weight.shape[1] ** 0.5)


def pictures(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]


def target(*boxes: tuple, label: int = 1) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.full((len(boxes),), label)}


def one_step(model: nn.Module, targets: list[dict]) -> torch.Tensor:
    """Losses of one optimiser step on two pictures."""
    torch.manual_seed(1)
    losses = model.train()(pictures((64, 90), (80, 64)), targets, SIDE)
    losses.sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01).step()
    return losses.detach()


def learning(model: nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def assert_same_detections(ours: list[dict], theirs: list[dict]) -> None:
    assert all(len(one["scores"]) > 20 for one in theirs)  # else this would compare nothing with nothing
    for mine, one in zip(ours, theirs, strict=True):
        assert torch.equal(mine["labels"], one["labels"])
        torch.testing.assert_close(mine["scores"], one["scores"], atol=1e-4, rtol=0)
        torch.testing.assert_close(mine["boxes"], one["boxes"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("body", PEERS)
def test_torchvisions_detector_loads_completely_and_detects_the_same(body):
    torch.manual_seed(0)
    size = {"min_size": 96, "max_size": 128}
    peer = PEERS[body](weights=None, weights_backbone=None, num_classes=6, box_score_thresh=0, **size).eval()
    randomise(peer)
    # The recipe's RPN numbers: torchvision keeps other proposals of a MobileNet, which the recipe has to follow.
    recipe = load_config(f"coco/{body}").model
    if body.startswith("mobilenet"):
        recipe = replace(recipe, rpn=replace(recipe.rpn, before_nms_eval=150, after_nms_eval=150))
    images = pictures((100, 140), (120, 90))
    with torch.no_grad():
        theirs = peer([image / 255 for image in images])
    for norm in ("trained", "frozen"):
        ours = build_model(replace(recipe, weights="", norm=norm, frozen_stages=0), Evaluate(score=0), classes=5).eval()
        kept = {key: value for key, value in peer.state_dict().items()
                if norm == "trained" or not key.endswith("num_batches_tracked")}
        ours.load_state_dict(kept, strict=True)
        assert_same_detections(ours.predict(images, Side(96, 128))[0], theirs)
    assert_same_detections(use_channels_last(ours).predict(images, Side(96, 128))[0], theirs)


def test_coco_weights_are_read_as_torchvision_reads_them(monkeypatch):
    """torchvision sets the epsilon of the norms to 0 for these weights and no others."""
    torch.manual_seed(0)
    source = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    randomise(source)
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(1e-5, 1e-4)  # so small that an epsilon of 1e-5 would be seen
            module.weight.data.uniform_(0.002, 0.006)
    state = source.state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *args, **kwargs: dict(state))
    peer = fasterrcnn_resnet50_fpn(weights="COCO_V1", min_size=64, max_size=96, box_score_thresh=0).eval()
    config = load_config("coco/resnet50_fpn", ["model.weights=coco"]).model
    ours = build_model(config, Evaluate(score=0), classes=90).eval()
    report = load_weights(ours, config, coco_names())
    assert not report.left_out and not report.other_shape and not report.fresh
    images = pictures((64, 80))
    with torch.no_grad():
        assert_same_detections(ours.predict(images, SIDE)[0], peer([images[0] / 255]))


def coco_names() -> tuple[str, ...]:
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
    return tuple(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:])
