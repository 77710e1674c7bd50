"""A run that is stopped and resumed is sent once and whole, though it is sent in the middle as well."""

import importlib.util

import pytest
from processes import train
from wandb_files import history, offline_files

from launcher.cli import main

pytestmark = [pytest.mark.whole, pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="no W&B: pip install wandb")]


def test_each_step_of_a_stopped_and_resumed_run_is_sent_once(tiny, config_file, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    folder, overrides = tmp_path / "runs" / "tiny", [*tiny, "schedule.steps=5", "schedule.epochs=auto"]
    train(2, config_file, overrides)
    assert main(["sync", str(folder), "--to", "wandb"]) == 0
    train(0, config_file, overrides)
    assert main(["sync", str(folder), "--to", "wandb"]) == 0 == main(["sync", str(folder), "--to", "wandb"])
    first, second = offline_files(folder)
    assert first.name == second.name
    rows = [*history(first), *history(second)]
    assert [row["step"] for row in rows if "loss/train" in row] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in rows if "metrics/AP" in row] == [3, 5]
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    assert "tiny: 0 new lines of 7 and 0 files" in capfd.readouterr().out
