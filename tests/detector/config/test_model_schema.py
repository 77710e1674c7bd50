"""Combinations of model options that are refused, each value being allowed by itself."""

import pytest

from detector.config.load import load_config
from detector.config.model_schema import Model, model_contradictions, native_head_options
from detector.errors import BadInput


@pytest.mark.parametrize("overrides, message", [
    (["model.roi.bg_iou_thresh_low=0.5"], "model.roi.bg_iou_thresh_low=0.5: must be below model.roi.bg_iou_thresh=0.5"),
    (["model.heads=torchvision", "model.rpn.softmax_objectness=true"], "model.heads=torchvision has no model.rpn.softmax_objectness:"),
    (["model.heads=torchvision", "model.inclusive_boxes=true", "model.roi.smooth_l1_beta=1"],
     "model.inclusive_boxes, model.roi.smooth_l1_beta:"),
])
def test_values_that_contradict_each_other_are_refused(overrides, message):
    with pytest.raises(BadInput) as caught:
        load_config("shapes/demo", overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("overrides", [
    ["model.heads=torchvision"],
    ["model.heads=torchvision", "model.roi.predictor_init=normal", "model.class_agnostic=true", "model.roi.bg_iou_thresh_low=0"],
    ["model.roi.bg_iou_thresh_low=0.4"], ["model.inclusive_boxes=true", "model.legacy_anchors=true", "model.rpn.softmax_objectness=true"],
])
def test_the_edge_of_a_contradiction_is_allowed(overrides):
    load_config("shapes/demo", overrides)


def test_the_defaults_are_torchvisions():
    assert all(value == usual for _, value, usual in native_head_options(Model()))
    assert model_contradictions(Model(heads="torchvision")) == []
