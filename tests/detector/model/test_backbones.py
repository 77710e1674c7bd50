"""Options of the model that contradict its backbone."""

import pytest

from detector.config.load import load_config
from detector.errors import BadInput
from detector.model.backbones import BACKBONES, check_backbone


@pytest.mark.parametrize("overrides, message", [
    (["model.backbone=resnet50fpn"], "model.backbone='resnet50fpn': one of vgg16, "),
    (["model.backbone=resnet50fpn"], "resnet152_fpn, mobilenet_v3_large_fpn (did you mean resnet50_fpn?)"),
    (["model.size_divisor=16"], "model.size_divisor=16: the levels of resnet18_fpn need multiples of 32"),
    (["model.anchor_sizes=[[8], [16]]"], "resnet18_fpn has 5 levels"),
    (["model.anchor_sizes=[[8], [16], [32], [64], [128, 256]]"], "equally long"),
    (["model.weights=imagenet", "model.frozen_stages=6"], "model.frozen_stages=6: resnet18_fpn has 5 stages")])
def test_options_that_contradict_the_backbone_are_refused(overrides, message):
    with pytest.raises(BadInput) as caught:
        check_backbone(load_config("shapes/demo", overrides).model)
    assert message in str(caught.value)


@pytest.mark.parametrize("overrides", [
    ["model.size_divisor=64"], ["model.weights=imagenet", "model.frozen_stages=5"], ["model.anchor_sizes=[[8, 16]]"],
    ["model.backbone=vgg16", "model.anchor_sizes=[]", "model.size_divisor=1"],
    ["model.backbone=mobilenet_v3_large_fpn", "model.weights=imagenet", "model.frozen_stages=6", "model.anchor_sizes=[]"]])
def test_the_edge_of_a_contradiction_is_allowed(overrides):
    config = load_config("shapes/demo", overrides)
    assert check_backbone(config.model) is BACKBONES[config.model.backbone]
