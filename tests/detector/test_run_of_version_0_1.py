"""A run folder of version 0.1 is resumed, evaluated and listed by today's code.

tests/fixtures/run_0_1 holds the files of such a run: four steps on the built-in data set. checkpoint.json is its
checkpoint with [dtype, shape] in the place of each tensor; the tensors are filled here.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import REPO

from detector import load
from detector.__main__ import main
from detector.config.aliases import PRINTED_NOTES
from detector.config.load import from_dict, load_config
from detector.data.read import read_datasets
from detector.model.faster_rcnn import build_model
from detector.run.checkpoint_files import checkpoint_path, mark_best, read_checkpoint
from detector.run.evaluation_history import evaluations_of, read_metrics
from detector.tables.measured import read_run
from launcher import cli

OLD = REPO / "tests" / "fixtures" / "run_0_1"
STORED = json.loads((OLD / "checkpoint.json").read_text())


@pytest.fixture(autouse=True)
def nothing_printed_yet(monkeypatch):
    monkeypatch.setenv(PRINTED_NOTES, "")


@pytest.fixture
def old_run(shapes_root, tmp_path) -> Path:
    """Returns the run folder of version 0.1, with a checkpoint of random weights and paths of this machine."""
    def localize(text: str) -> str:
        return (text.replace("/data/shapes", str(shapes_root)).replace("/cache", str(tmp_path / "cache"))
                .replace("/runs", str(tmp_path / "runs")))
    run = tmp_path / "runs" / "old"
    shutil.copytree(OLD, run, ignore=shutil.ignore_patterns("checkpoint.json", "options.json", "original.yaml"))
    (run / "config.yaml").write_text(localize((OLD / "config.yaml").read_text()))
    content = {**STORED, "config": json.loads(localize(json.dumps(STORED["config"])))}
    model = build_model(from_dict(content["config"], "old").model, from_dict(content["config"], "old").evaluate, 6)
    assert {name: [str(value.dtype).removeprefix("torch."), list(value.shape)] for name, value in model.state_dict().items()} \
        == STORED["model"], "the state dict has the names and shapes of version 0.1"
    content["model"] = model.state_dict()
    content["moments"] = {name: {key: torch.full(shape, 1e-3) for key, (_, shape) in state.items()}
                          for name, state in STORED["moments"].items()}
    path = checkpoint_path(run, 4)
    path.parent.mkdir()
    torch.save(content, path)
    mark_best(run, path)
    return run


def test_a_run_of_version_0_1_is_resumed(old_run, capfd):
    assert main(["train", str(old_run / "config.yaml"), "schedule.steps=6"]) == 0
    output = capfd.readouterr()
    assert output.err.count("note: ") == 1 and "saved by version 0.1" in output.err
    log = (old_run / "log.txt").read_text()
    assert "step-00000004.pt, after step 4" in log
    changed = [line.partition("changed since the last start: ")[2] for line in log.splitlines() if "changed since" in line]
    assert changed == ["schedule.steps: 4 -> 6"], "translated options have not changed"

    train_lines = [line for line in read_metrics(old_run) if line["kind"] == "train"]
    assert [line["step"] for line in train_lines] == [1, 2, 3, 4, 5, 6]
    assert [line["lr"] for line in train_lines][:4] == [2e-05, 0.01001, 0.02, 0.02] and all(line["lr"] for line in train_lines)
    assert '"rate"' not in (old_run / "metrics.jsonl").read_text()
    assert [step for step, _ in evaluations_of(old_run, "AP50")] == [3, 4, 6]

    content = read_checkpoint(checkpoint_path(old_run, 6))
    assert content["step"] == 6 and list(content["model"]) == list(STORED["model"])
    assert set(content["moments"]) == set(STORED["moments"])
    assert "lr: 0.02" in (old_run / "config.yaml").read_text() and "rate:" not in (old_run / "config.yaml").read_text()


def test_another_model_is_refused_under_the_new_name(old_run, capfd):
    assert main(["train", str(old_run / "config.yaml"), "schedule.steps=6", "model.pyramid_width=32"]) == 2
    assert "model.fpn_channels: 16 -> 32" in capfd.readouterr().err


def test_a_run_of_version_0_1_is_evaluated_and_loaded(old_run, capfd):
    assert main(["evaluate", str(old_run), "evaluate.detections=3"]) == 0
    assert "step 4, on coco val: 5 images" in capfd.readouterr().out
    _, val_data = read_datasets(load_config(str(old_run / "config.yaml")).data)
    detections = load(old_run)(val_data.path(0), score=0)
    assert len(detections.boxes) <= 5 and set(detections.names) <= {"circle", "square", "triangle", "star", "cross", "ring"}


def test_the_files_of_a_run_of_version_0_1_are_read(old_run, capfd):
    assert cli.main(["jobs", "--folder", str(old_run.parent)]) == 0
    row, = [line for line in capfd.readouterr().out.splitlines() if line.startswith("old ")]
    assert "finished" in row and "4" in row and "AP 0" in row
    last = {line["kind"]: line for line in read_metrics(old_run)}
    assert last["train"]["lr"] == 0.02 and "rate" not in last["train"] and last["evaluation"]["step"] == 4

    config = load_config(str(old_run / "config.yaml"))
    figures = read_run(old_run, config)
    assert figures is not None and figures.changes == () and figures.step == 4


def test_runs_of_version_0_1_are_compared(old_run, capfd):
    assert main(["compare", str(old_run), str(old_run), "--resamples", "20"]) == 0
    output = capfd.readouterr()
    assert "coco val: 5 images" in output.out and "0 of 6 classes differ" in output.out
    assert output.err.count("note: ") == 1, "several files of version 0.1 are told once"
