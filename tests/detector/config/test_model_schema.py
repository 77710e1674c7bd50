"""Options of the RPN and RoI heads that are allowed alone and not together."""

import pytest

from detector.config.load import load_config
from detector.config.model_schema import Model, model_contradictions, of_our_heads
from detector.errors import BadInput


@pytest.mark.parametrize("overrides, said", [
    (["model.roi.background_from=0.5"], "model.roi.background_from=0.5: below model.roi.negative_iou=0.5"),
    (["model.heads=torchvision", "model.rpn.two_way=true"], "does not know model.rpn.two_way:"),
    (["model.heads=torchvision", "model.plus_one=true", "model.roi.box_beta=1"], "model.plus_one, model.roi.box_beta:"),
])
def test_values_that_contradict_each_other_are_refused(overrides, said):
    with pytest.raises(BadInput) as caught:
        load_config("shapes/demo", overrides)
    assert said in str(caught.value)


@pytest.mark.parametrize("overrides", [
    ["model.heads=torchvision"],
    ["model.heads=torchvision", "model.roi.init=normal", "model.class_agnostic=true", "model.roi.background_from=0"],
    ["model.roi.background_from=0.4"], ["model.plus_one=true", "model.legacy_anchors=true", "model.rpn.two_way=true"],
])
def test_the_edge_of_a_contradiction_is_allowed(overrides):
    load_config("shapes/demo", overrides)


def test_the_defaults_are_torchvisions():
    assert all(value == usual for _, value, usual in of_our_heads(Model()))
    assert model_contradictions(Model(heads="torchvision")) == []
