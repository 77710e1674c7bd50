"""A checkpoint in the layout of jwyang/faster-rcnn.pytorch's releases gives the detections of the model it was made from."""

import json
from dataclasses import dataclass
from pathlib import Path

import data_trees
import pytest
import torch
from test_rows import SMALL

from detector.__main__ import main
from detector.config.load import load_config
from detector.evaluation.evaluate_weights import config_for_weights
from launcher.reproduce import training_commands

pytestmark = pytest.mark.whole
ROW = "voc07-vgg16-g8-b16"
# The start of a tensor's name here, and in the released checkpoints.
NAMES = (("backbone.", "RCNN_base."), ("roi_heads.box_head.fc6.", "RCNN_top.0."), ("roi_heads.box_head.fc7.", "RCNN_top.3."),
         ("rpn.head.conv.0.0.", "RCNN_rpn.RPN_Conv."), ("rpn.head.cls_logits.", "RCNN_rpn.RPN_cls_score."),
         ("rpn.head.bbox_pred.", "RCNN_rpn.RPN_bbox_pred."), ("roi_heads.box_predictor.", "RCNN_"))


@dataclass(frozen=True)
class Released:
    overrides: list[str]  # of the row, for small images
    runs: Path            # folder with the run of the row
    weights: Path         # the run's weights in the layout of a released checkpoint


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Released:
    tmp = tmp_path_factory.mktemp("released")
    overrides = [*SMALL, f"data.root={data_trees.voc(tmp / 'voc')}", f"data.cache={tmp / 'cache'}", f"run.folder={tmp / 'runs'}"]
    command, = training_commands(ROW, 1, 1, overrides)
    assert main(command) == 0
    content = torch.load(tmp / "runs" / ROW / "checkpoints" / "best.pt", weights_only=True)
    state = {}
    for name, value in content["model"].items():
        start, released_start = next(pair for pair in NAMES if name.startswith(pair[0]))
        state[released_start + name[len(start):]] = value
    weights = tmp / "faster_rcnn_1_10_625.pth"
    torch.save({"session": 1, "epoch": 11, "model": state, "optimizer": {}, "pooling_mode": "align", "class_agnostic": False},
               weights)
    return Released(overrides, tmp / "runs", weights)


def test_released_weights_give_the_same_detections(released, capsys):
    weights = released.weights
    assert main(["evaluate", "--weights", str(weights), "--recipe", ROW, *released.overrides]) == 0, capsys.readouterr().err
    folder, run = released.runs / f"{ROW}-{weights.stem}", released.runs / ROW
    assert "tensors loaded" in capsys.readouterr().out
    detections = json.loads((folder / "detections.json").read_text())
    assert detections == json.loads((run / "detections.json").read_text())
    assert len(detections) == 15, "five of each of three images"
    results, run_results = (json.loads((place / "results.json").read_text()) for place in (folder, run))
    assert results["metrics"] == run_results["metrics"] and results["per_class"] == run_results["per_class"]
    assert len(results["per_class"]) == 20
    assert load_config(str(folder / "config.yaml")).model.weights == str(weights)


@pytest.mark.parametrize("override", ["model.roi_pooling=pool", "model.pooling=pool"], ids=["today's name", "old name"])
def test_settings_in_the_file_replace_those_of_the_recipe_and_overrides_replace_both(override, released, tmp_path):
    overrides, weights = released.overrides, str(released.weights)
    assert config_for_weights(weights, ROW, overrides).model.roi_pooling == "align_original"
    assert config_for_weights(weights, ROW, [*overrides, override]).model.roi_pooling == "pool"
    content = torch.load(weights, weights_only=True)
    torch.save({**content, "pooling_mode": "crop", "class_agnostic": True, "model": {"a": torch.zeros(1)}}, tmp_path / "a.pth")
    model = config_for_weights(str(tmp_path / "a.pth"), ROW, overrides).model
    assert model.roi_pooling == "crop" and model.class_agnostic


def test_the_recipe_can_be_any_config_and_the_run_is_named_after_both(released):
    weights = str(released.weights)
    assert config_for_weights(weights, "custom/bccd", ["data.root=/d"]).run.name == "bccd-faster_rcnn_1_10_625"
    assert config_for_weights(weights, "custom/bccd", ["data.root=/d", "run.name=mine"]).run.name == "mine"


def test_a_file_that_leaves_a_part_random_is_refused_with_the_names_of_its_tensors(released, tmp_path, capsys):
    content = torch.load(released.weights, weights_only=True)
    del content["model"]["RCNN_top.3.bias"]
    torch.save(content, tmp_path / "cut.pth")
    assert main(["evaluate", "--weights", str(tmp_path / "cut.pth"), "--recipe", ROW, *released.overrides]) == 2
    error = capsys.readouterr().err
    assert "does not fill 1 tensors" in error and "roi_heads.box_head.fc7.bias" in error
    assert not (released.runs / f"{ROW}-cut").exists()


@pytest.mark.parametrize("arguments, message", [
    (["--weights", "nowhere.pth", "--recipe", ROW], "no such file of weights: nowhere.pth"),
    (["--weights", "{weights}"], "--weights needs --recipe"),
    (["--weights", "{weights}", "--recipe", "voc08"], "no such config"),
    (["--weights", "{weights}", "--recipe", ROW, "data.val=[]"], "nothing to evaluate on"),
    ([], "evaluate: a run is missing")])
def test_arguments_that_cannot_work_are_an_error(released, capsys, arguments, message):
    assert main(["evaluate", *(word.replace("{weights}", str(released.weights)) for word in arguments)]) == 2
    assert message in capsys.readouterr().err
