"""Combinations of options for resizing, batching and the backbone that are refused."""

import pytest

from detector.config.load import load_config
from detector.errors import BadInput

STATIC = ["batch.aspect_ratio_groups=static", "batch.crop_to_group=true", "augment.mirrored_copies=true", "augment.hflip_prob=0"]


@pytest.mark.parametrize("overrides, message", [
    (["augment.max_size=31"], "augment.max_size=31: 32 pixels or more, or 0"),
    (["evaluate.max_size=1"], "evaluate.max_size=1: 32 pixels or more, or 0"),
    (["augment.mirrored_copies=true"], "set augment.hflip_prob=0"),
    (["batch.crop_to_group=true"], "set batch.aspect_ratio_groups=static"),
    ([*STATIC, "augment.min_size=[128, 160]"], "augment.min_size=[128, 160]"),
    ([*STATIC, "augment.scale_jitter=[0.5, 1]"], "augment.scale_jitter=[0.5, 1.0]"),
    (["model.size_divisor=0"], "at least 1"),
    (["model.backbone=vgg16", "model.anchor_sizes=[]", "model.size_divisor=1", "model.heads=torchvision"], "whole cells"),
    (["schedule.period=0"], "at least 1"), (["model.roi_pooling=align_v2"], "align_original"),
    (["model.pixel_format=bgr"], "torchvision, caffe, caffe_rgb, detectron2")])
def test_contradictions_are_refused(overrides, message):
    with pytest.raises(BadInput) as caught:
        load_config("shapes/demo", overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("overrides", [
    STATIC, ["batch.aspect_ratio_groups=static"], ["augment.max_size=0", "evaluate.max_size=0"], ["augment.max_size=32"],
    ["model.size_divisor=64"], ["model.stride_in_1x1=true"],
    ["model.backbone=vgg16", "model.ceil_pool=true", "model.anchor_sizes=[]"],
    ["model.backbone=vgg16", "model.size_divisor=1", "model.anchor_sizes=[]"],
    ["model.backbone=resnet152_c4", "model.stride_in_1x1=true", "model.ceil_pool=true", "model.anchor_sizes=[]"]])
def test_the_edge_of_a_contradiction_is_allowed(overrides):
    load_config("shapes/demo", overrides)
