"""Milliseconds an image: every stage is there, its parts make up the whole, and what is timed is what is done."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.errors import BadInput
from detector.inference import latency
from detector.inference.latency import spread, time_run, time_stages
from detector.inference.predictor import find_checkpoint, load_detector
from detector.structures import Resize


def test_spread_by_hand():
    one = spread(np.arange(0, 0.11, 0.01))  # 0, 10, ... 100 ms
    assert (one.low, one.median, one.high) == (pytest.approx(10), pytest.approx(50), pytest.approx(90))


@pytest.mark.parametrize("slow, stage", [("backbone.body", 1), ("roi_heads.box_head", 1), ("roi_heads.box_predictor", 1)])
def test_a_slow_part_is_seen_in_its_stage(untrained_run, slow, stage):
    model = load_detector(find_checkpoint(untrained_run), torch.device("cpu"))[0]
    model.get_submodule(slow).register_forward_pre_hook(lambda *_: time.sleep(0.3))
    seconds = time_stages(model, torch.zeros((3, 60, 80), dtype=torch.uint8), Resize(64, 128), "fp32", torch.device("cpu"))
    assert len(seconds) == 3 and int(np.argmax(seconds)) == stage and seconds[stage] > 0.3


def test_slow_boxes_are_post_processing(untrained_run, monkeypatch):
    model = load_detector(find_checkpoint(untrained_run), torch.device("cpu"))[0]
    original = type(model).predict

    def slow(*arguments):
        found = original(*arguments)
        time.sleep(0.3)
        return found
    monkeypatch.setattr(type(model), "predict", slow)
    seconds = time_stages(model, torch.zeros((3, 60, 80), dtype=torch.uint8), Resize(64, 128), "fp32", torch.device("cpu"))
    assert seconds[2] > 0.3


def test_the_table_and_the_record(untrained_run, monkeypatch, capsys):
    monkeypatch.setattr(latency, "TIMED", 4)
    monkeypatch.setattr(latency, "WARM_UP", 1)
    time_run(untrained_run, [], "best")
    said = capsys.readouterr().out
    for word in ("reading", "pre-processing", "model", "post-processing", "all", "median", "images/s", "CPU"):
        assert word in said
    stages = json.loads((Path(untrained_run) / "timing.json").read_text())["devices"]["cpu"]["milliseconds"]
    assert all(0 <= one["low"] <= one["median"] <= one["high"] for one in stages.values())
    assert stages["all"]["median"] >= stages["model"]["median"] > 0


def test_an_image_that_cannot_be_read_is_bad_input(untrained_run, tmp_path, shapes_root, monkeypatch):
    monkeypatch.setattr(latency, "read_image", lambda path: (_ for _ in ()).throw(BadInput(f"no such image {path}")))
    with pytest.raises(BadInput, match="cannot time: no such image"):
        time_run(untrained_run, [], "best")
