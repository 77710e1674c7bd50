"""What of the options for bodies, pixels and feeding does not go together."""

import pytest

from detector.config.load import load_config
from detector.errors import BadInput

STATIC = ["batch.groups=static", "batch.frame=chunk", "augment.mirrored_copies=true", "augment.flip=0"]


@pytest.mark.parametrize("overrides, said", [
    (["augment.long_side=31"], "augment.long_side=31: 32 pixels or more, or 0"),
    (["evaluate.long_side=1"], "evaluate.long_side=1: 32 pixels or more, or 0"),
    (["augment.mirrored_copies=true"], "set augment.flip=0"),
    (["batch.frame=chunk"], "set batch.groups=static"),
    ([*STATIC, "augment.short_sides=[128, 160]"], "augment.short_sides=[128, 160]"),
    ([*STATIC, "augment.jitter=[0.5, 1]"], "augment.jitter=[0.5, 1.0]"),
    (["model.canvas_multiple=16"], "multiples of 32 only"), (["model.canvas_multiple=0"], "at least 1"),
    (["model.body=vgg16", "model.anchor_sizes=[]", "model.canvas_multiple=1", "model.heads=torchvision"], "whole cells"),
    (["schedule.period=0"], "at least 1"), (["model.pooling=align_v2"], "align_original"),
    (["model.pixels=bgr"], "torchvision, caffe, caffe_rgb, detectron2")])
def test_what_does_not_go_together_is_refused(overrides, said):
    with pytest.raises(BadInput) as caught:
        load_config("shapes/demo", overrides)
    assert said in str(caught.value)


@pytest.mark.parametrize("overrides", [
    STATIC, ["batch.groups=static"], ["augment.long_side=0", "evaluate.long_side=0"], ["augment.long_side=32"],
    ["model.canvas_multiple=64"], ["model.stride_in_1x1=true"],
    ["model.body=vgg16", "model.ceil_pool=true", "model.anchor_sizes=[]"],
    ["model.body=vgg16", "model.canvas_multiple=1", "model.anchor_sizes=[]"],
    ["model.body=resnet152_c4", "model.stride_in_1x1=true", "model.ceil_pool=true", "model.anchor_sizes=[]"]])
def test_the_edge_of_it_is_allowed(overrides):
    load_config("shapes/demo", overrides)
