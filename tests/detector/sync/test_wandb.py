"""`sync --to wandb` in offline mode: what W&B's own files hold."""

import importlib.util
import json
import math

import pytest
from recorded_run import LINES, evaluation_line, make_run, train_line, write_lines
from wandb_files import history, offline_files, records_of

from detector.errors import BadInput
from detector.sync.sync import sync

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="no W&B: pip install wandb")]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    for name in ("WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def test_a_run_is_written_once_and_a_second_sync_writes_what_is_new(tmp_path, capfd):
    folder = make_run(tmp_path / "bccd")
    out = sync(str(folder), "wandb", project="cells")
    first, = offline_files(folder)
    assert out == ["bccd: 6 new lines of 6 and 7 files (config.yaml, environment.json, log.txt and 4 more) are in project cells",
                   f"upload it with: wandb sync {first.parent}"]
    rows = history(first)
    assert [(row["_step"], row["step"]) for row in rows] == [(0, 1), (1, 2), (2, 2), (3, 3), (4, 4), (5, 4), (6, 4)]
    assert rows[0]["loss/train"] == 3.0 and rows[0]["_timestamp"] == 1010 and math.isnan(rows[1]["loss/train"])
    assert rows[5]["metrics/AP"] == 0.125 and rows[5]["metrics/best so far"] == 0.25 and rows[5]["per class AP/a_b _old_ 2"] == 0.125
    assert rows[6]["plots/one/_type"] == rows[6]["pictures/one/_type"] == "image-file"
    run = next(record.run for record in records_of(first) if record.WhichOneof("record_type") == "run")
    assert (run.display_name, run.project, run.run_id) == ("bccd", "cells", first.stem.removeprefix("run-"))
    config = {item.key: json.loads(item.value_json) for record in records_of(first) if record.WhichOneof("record_type") == "config"
              for item in record.config.update}
    assert config["data.format"] == "shapes" and config["environment"]["torch"] == "2.9"
    saved = first.parent / "files" / "record"
    assert {path.name for path in saved.iterdir()} == {"config.yaml", "environment.json", "results.json", "usage.json", "log.txt"}
    assert not (saved / "log.txt").is_symlink() and (saved / "log.txt").stat().st_nlink == 1  # no link: the log grows

    assert sync(str(folder), "wandb", project="cells") == ["bccd: 0 new lines of 6 and 0 files are in project cells"]
    assert offline_files(folder) == [first] and capfd.readouterr().err == ""
    write_lines(folder, [*LINES, train_line(5), evaluation_line(5, 0.5)])
    assert sync(str(folder), "wandb", project="cells")[0].startswith("bccd: 2 new lines of 8 and 0 files")
    _, second = offline_files(folder)
    assert second.name == first.name, "the same run"
    assert [(row["_step"], row["step"]) for row in history(second)] == [(7, 5), (8, 5)]


def test_a_run_that_was_trained_again_from_an_earlier_step_is_a_new_run(tmp_path):
    folder = make_run(tmp_path / "run", [])
    assert sync(str(folder), "wandb")[0].startswith("run: 0 new lines of 0 and 7 files")  # nothing is logged yet
    write_lines(folder, LINES)
    sync(str(folder), "wandb")
    write_lines(folder, [*LINES[:3], train_line(3, 7.0)])
    assert "trained again from an earlier step" in sync(str(folder), "wandb")[0]
    first, second, third = offline_files(folder)
    assert first.name == second.name != third.name
    assert [row["step"] for row in history(third) if "loss/train" in row] == [1, 2, 3] and history(third)[3]["loss/train"] == 7.0


def test_a_disabled_tracker_is_refused_and_nothing_counts_as_sent(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr("detector.sync.sync.ensure_reachable", lambda *_: None)
    with pytest.raises(BadInput, match="WANDB_MODE=disabled sends nothing"):
        sync(str(folder), "wandb")
    assert not (folder / "sync.json").exists()
