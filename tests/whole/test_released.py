"""A checkpoint in the layout of the original's releases, scored with a row's recipe, finds what the model it was made of finds."""

import json

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
NAMES = (("backbone.", "RCNN_base."), ("roi_heads.box_head.fc6.", "RCNN_top.0."), ("roi_heads.box_head.fc7.", "RCNN_top.3."),
         ("rpn.head.conv.0.0.", "RCNN_rpn.RPN_Conv."), ("rpn.head.cls_logits.", "RCNN_rpn.RPN_cls_score."),
         ("rpn.head.bbox_pred.", "RCNN_rpn.RPN_bbox_pred."), ("roi_heads.box_predictor.", "RCNN_"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Overrides, the folder of a run of the row, and its weights as the original would have saved them."""
    tmp = tmp_path_factory.mktemp("released")
    overrides = [*SMALL, f"data.root={data_trees.voc(tmp / 'voc')}", f"data.cache={tmp / 'cache'}", f"run.folder={tmp / 'runs'}"]
    command, = training_commands(ROW, 1, 1, overrides)
    assert main(command) == 0
    content = torch.load(tmp / "runs" / ROW / "checkpoints" / "best.pt", weights_only=True)
    state = {}
    for name, value in content["model"].items():
        start, theirs = next(pair for pair in NAMES if name.startswith(pair[0]))
        state[theirs + name[len(start):]] = value
    file = tmp / "faster_rcnn_1_10_625.pth"
    torch.save({"session": 1, "epoch": 11, "model": state, "optimizer": {}, "pooling_mode": "align", "class_agnostic": False},
               file)
    return overrides, tmp / "runs", file


def test_it_finds_the_same(trained, capsys):
    overrides, runs, file = trained
    assert main(["evaluate", "--weights", str(file), "--recipe", ROW, *overrides]) == 0, capsys.readouterr().err
    folder = runs / f"{ROW}-{file.stem}"
    assert "tensors loaded" in capsys.readouterr().out
    found = [json.loads((place / "detections.json").read_text()) for place in (folder, runs / ROW)]
    assert found[0] == found[1] and len(found[0]) == 15, "five of each of three images"
    mine, run = (json.loads((place / "results.json").read_text()) for place in (folder, runs / ROW))
    assert mine["metrics"] == run["metrics"] and mine["per_class"] == run["per_class"] and len(mine["per_class"]) == 20
    assert load_config(str(folder / "config.yaml")).model.weights == str(file)


def test_what_it_says_of_its_model_holds_unless_one_says_otherwise(trained, tmp_path):
    overrides, _, file = trained
    assert config_for_weights(str(file), ROW, overrides).model.roi_pooling == "align_original"
    assert config_for_weights(str(file), ROW, [*overrides, "model.roi_pooling=pool"]).model.roi_pooling == "pool"
    content = torch.load(file, weights_only=True)
    torch.save({**content, "pooling_mode": "crop", "class_agnostic": True, "model": {"a": torch.zeros(1)}}, tmp_path / "a.pth")
    model = config_for_weights(str(tmp_path / "a.pth"), ROW, overrides).model
    assert model.roi_pooling == "crop" and model.class_agnostic
    assert config_for_weights(str(file), "custom/bccd", ["data.root=/d"]).run.name == "bccd-faster_rcnn_1_10_625", "any config does"


def test_a_file_that_leaves_a_part_random_is_refused_by_name(trained, tmp_path, capsys):
    overrides, runs, file = trained
    content = torch.load(file, weights_only=True)
    del content["model"]["RCNN_top.3.bias"]
    torch.save(content, tmp_path / "cut.pth")
    assert main(["evaluate", "--weights", str(tmp_path / "cut.pth"), "--recipe", ROW, *overrides]) == 2
    assert "does not fill 1 tensors" in (said := capsys.readouterr().err) and "roi_heads.box_head.fc7.bias" in said
    assert not (runs / f"{ROW}-cut").exists()


@pytest.mark.parametrize("arguments, said", [
    (["--weights", "nowhere.pth", "--recipe", ROW], "no such file of weights: nowhere.pth"),
    (["--weights", "{file}"], "--weights needs --recipe"), (["--weights", "{file}", "--recipe", "voc08"], "no such config"),
    (["--weights", "{file}", "--recipe", ROW, "data.val=[]"], "nothing to evaluate on"), ([], "evaluate what?")])
def test_what_cannot_be_meant_is_told(trained, capsys, arguments, said):
    assert main(["evaluate", *(word.replace("{file}", str(trained[2])) for word in arguments)]) == 2
    assert said in capsys.readouterr().err
