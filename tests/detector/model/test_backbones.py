"""The dict of backbones: its names, contradictions to other options, and an entry of one's own."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from detector.config.load import load_config
from detector.config.model_schema import BACKBONE_NAMES, Model
from detector.config.schema import Evaluate
from detector.errors import BadInput
from detector.model import backbones
from detector.model.anchors import plan_anchors
from detector.model.backbones import BACKBONES, Backbone, BackboneParts, SingleLevel, check_backbone
from detector.model.faster_rcnn import build_model
from detector.model.weights.load import load_weights
from detector.structures import Resize


def test_an_unknown_name_is_refused_with_the_list_and_the_nearest_one():
    config = Model(backbone="resnet5_fpn")
    for use in (check_backbone, plan_anchors, lambda config: build_model(config, Evaluate(), 3)):
        with pytest.raises(BadInput, match=r"model\.backbone='resnet5_fpn': one of vgg16, .*resnet101_fpn.*"
                                           r"\(did you mean resnet50_fpn\?\)"):
            use(config)


def test_the_config_lists_the_names_of_the_entries():
    assert BACKBONE_NAMES == tuple(BACKBONES)


@pytest.mark.parametrize("overrides, message", [
    (["model.anchor_sizes=[[8], [16]]"], "resnet18_fpn has 5 levels"),
    (["model.backbone=vgg16", "model.anchor_sizes=[[8], [16]]"], "vgg16 has 1 level;"),
    (["model.backbone=mobilenet_v3_large_fpn", "model.anchor_sizes=[[8], [16]]"], "has 3 levels"),
    (["model.anchor_sizes=[[8], [16], [32], [64], [128, 256]]"], "equally long"),
    (["model.weights=imagenet", "model.frozen_stages=6"], "model.frozen_stages=6: resnet18_fpn has 5 stages"),
    (["model.weights=imagenet", "model.backbone=mobilenet_v3_large_fpn", "model.anchor_sizes=[]", "model.frozen_stages=7"],
     "model.frozen_stages=7: mobilenet_v3_large_fpn has 6 stages"),
    (["model.size_divisor=16"], "model.size_divisor=16: the levels of resnet18_fpn need multiples of 32")])
def test_options_that_contradict_the_backbone_are_refused(overrides, message):
    config = load_config("shapes/demo", overrides).model
    with pytest.raises(BadInput) as caught:
        build_model(config, Evaluate(), 3)
    assert message in str(caught.value)


def test_all_contradictions_are_in_one_error():
    with pytest.raises(BadInput, match="(?s)2 mistakes.*size_divisor=16.*frozen_stages=9"):
        check_backbone(Model(size_divisor=16, frozen_stages=9))


@pytest.mark.parametrize("overrides", [
    ["model.weights=imagenet", "model.norm=frozen", "model.frozen_stages=5"], ["model.size_divisor=64"],
    ["model.backbone=mobilenet_v3_large_fpn", "model.weights=imagenet", "model.frozen_stages=6", "model.anchor_sizes=[]"],
    ["model.backbone=vgg16", "model.size_divisor=1", "model.anchor_sizes=[]"], ["model.anchor_sizes=[[8, 16]]"]])
def test_the_edge_of_a_contradiction_is_allowed(overrides):
    check_backbone(load_config("shapes/demo", overrides).model)


@pytest.mark.parametrize("name", BACKBONES)
def test_an_entry_agrees_with_the_modules_it_builds(name):
    backbone = BACKBONES[name]
    with torch.device("meta"):
        parts = backbone.build(Model(backbone=name))
        levels = parts.backbone(torch.empty(1, 3, 64, 64))
    assert len(parts.stages) == backbone.num_stages
    assert len(levels) == len(backbone.anchor_sizes) and set(backbone.strides) <= set(levels)
    assert all(levels[level].shape[-1] == 64 // stride for level, stride in backbone.strides.items())


def build_tiny(config: Model) -> BackboneParts:
    stages = [[nn.Conv2d(3, 8, 3, stride=4, padding=1)], [nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1)]]
    backbone, head = SingleLevel(*stages[0], *stages[1]), nn.Sequential(nn.Flatten(), nn.Linear(8 * config.roi_pooling_size ** 2, 16))
    backbone.out_channels, head.out_channels = 8, 16
    return BackboneParts(backbone, head, stages)


def test_an_entry_of_ones_own_is_enough_to_train_and_to_load_weights(monkeypatch, tmp_path):
    monkeypatch.setitem(backbones.BACKBONES, "tiny", Backbone(
        build_tiny, strides={"0": 8}, anchor_sizes=((16, 32),), num_stages=2, size_divisor=8,
        classifier_prefixes=(("features.", "backbone."),)))
    config = load_config("shapes/demo", ["model.backbone=tiny", f"model.weights={tmp_path}/w.pth", "model.frozen_stages=1",
                                         "model.size_divisor=8", "model.roi_pooling_size=2", "model.anchor_sizes=[]"]).model
    torch.save({"features.0.weight": torch.ones(8, 3, 3, 3), "fc.weight": torch.ones(2)}, tmp_path / "w.pth")
    model = build_model(config, Evaluate(), 3).train()
    report = load_weights(model, config, ("a", "b", "c"))
    assert report.loaded == ["backbone.0.weight"] and report.unused == ["fc.weight"]
    targets = [{"boxes": torch.tensor([[5.0, 6, 40, 40]]), "labels": torch.tensor([2])}]
    losses = model([torch.randint(0, 256, (3, 50, 60), dtype=torch.uint8)], targets, Resize(64, 0))
    sum(losses.values()).backward()
    assert {name for name, weight in model.named_parameters() if weight.grad is None} == {"backbone.0.weight", "backbone.0.bias"}
    with pytest.raises(BadInput, match="model.frozen_stages=3: tiny has 2 stages"):
        build_model(replace(config, frozen_stages=3), Evaluate(), 3)
    for name in ("imagenet", "coco"):
        with pytest.raises(BadInput, match=f"torchvision has {name} weights for .*, not for tiny. Use "):
            build_model(replace(config, weights=name), Evaluate(), 3)
