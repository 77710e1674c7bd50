"""Milliseconds of an image: every stage is measured, and the stages add up to the total."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.errors import BadInput
from detector.inference import latency
from detector.inference.latency import measure_latency, percentiles, time_stages
from detector.inference.load_detector import find_checkpoint, load_detector
from detector.structures import Resize


def test_percentiles_by_hand():
    latency_ms = percentiles(np.arange(0, 0.11, 0.01))  # 0, 10, ... 100 ms
    assert (latency_ms.low, latency_ms.median, latency_ms.high) == (pytest.approx(10), pytest.approx(50), pytest.approx(90))


@pytest.mark.parametrize("slow, stage", [("backbone.body", 1), ("roi_heads.box_head", 1), ("roi_heads.box_predictor", 1)])
def test_a_slow_module_shows_in_its_stage(untrained_run, slow, stage):
    model = load_detector(find_checkpoint(untrained_run), torch.device("cpu"))[0]
    model.get_submodule(slow).register_forward_pre_hook(lambda *_: time.sleep(0.3))
    seconds = time_stages(model, torch.zeros((3, 60, 80), dtype=torch.uint8), Resize(64, 128), "fp32", torch.device("cpu"))
    assert len(seconds) == 3 and int(np.argmax(seconds)) == stage and seconds[stage] > 0.3


def test_slow_box_decoding_shows_in_post_processing(untrained_run, monkeypatch):
    model = load_detector(find_checkpoint(untrained_run), torch.device("cpu"))[0]
    original = type(model).predict

    def slow(*arguments):
        result = original(*arguments)
        time.sleep(0.3)
        return result
    monkeypatch.setattr(type(model), "predict", slow)
    seconds = time_stages(model, torch.zeros((3, 60, 80), dtype=torch.uint8), Resize(64, 128), "fp32", torch.device("cpu"))
    assert seconds[2] > 0.3


def test_the_table_and_the_file(untrained_run, monkeypatch, capsys):
    monkeypatch.setattr(latency, "TIMED", 4)
    monkeypatch.setattr(latency, "WARM_UP", 1)
    measure_latency(untrained_run, [], "best")
    output = capsys.readouterr().out
    for word in ("reading", "pre-processing", "model", "post-processing", "all", "median", "images/s", "CPU"):
        assert word in output
    stages = json.loads((Path(untrained_run) / "timing.json").read_text())["devices"]["cpu"]["milliseconds"]
    assert all(0 <= stage["low"] <= stage["median"] <= stage["high"] for stage in stages.values())
    assert stages["all"]["median"] >= stages["model"]["median"] > 0


def test_an_image_that_cannot_be_read_is_bad_input(untrained_run, tmp_path, shapes_root, monkeypatch):
    monkeypatch.setattr(latency, "read_image", lambda path: (_ for _ in ()).throw(BadInput(f"no such image {path}")))
    with pytest.raises(BadInput, match="cannot measure the latency: no such image"):
        measure_latency(untrained_run, [], "best")
