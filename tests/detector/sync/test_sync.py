"""`sync` without a tracker: errors before anything is sent."""

import fcntl
import importlib.util
import os
import socket

import pytest
from recorded_run import make_run

from detector.__main__ import main
from detector.errors import BadInput
from detector.sync.sync import TARGETS, only_sync_of, sync


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_BASE_URL", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("to, package", [("mlflow", "mlflow-skinny"), ("wandb", "wandb")])
def test_a_missing_package_is_one_error_with_the_command_that_installs_it(to, package, tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["sync", str(run), "--to", to]) == 2
    error, = capsys.readouterr().err.splitlines()
    assert error == f"error: sync --to {to} needs {to}, which is not installed: pip install {package}"
    assert not (run / "sync.json").exists()


@pytest.mark.parametrize("to", TARGETS)
def test_a_server_that_cannot_be_reached_is_one_error(to, installed, tmp_path, capsys):
    run, address = make_run(tmp_path / "run"), free_address()
    assert main(["sync", str(run), "--to", to, "--url", address]) == 2
    error, = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {address} cannot be reached: ") and "--url" in error
    assert ("WANDB_MODE=offline" in error) == (to == "wandb") and not (run / "sync.json").exists()


def test_mlflow_without_a_server_is_told_how_to_name_one(installed, tmp_path):
    with pytest.raises(BadInput, match="needs a server: --url .* or the environment variable MLFLOW_TRACKING_URI"):
        sync(str(make_run(tmp_path / "run")), "mlflow")


@pytest.mark.parametrize("to, url", [("mlflow", "localhost:5000"), ("wandb", "localhost"), ("wandb", "sqlite:///a.db")])
def test_an_address_that_is_none_is_refused(to, url, installed, tmp_path):
    with pytest.raises(BadInput, match=f"--url {url}: an address is expected, such as http://localhost:5000"):
        sync(str(make_run(tmp_path / "run")), to, url)


def test_a_run_folder_that_cannot_be_written_is_refused_before_anything_is_sent(installed, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(BadInput, match="run cannot be written, and sync.json in it keeps what was sent"):
        sync(str(run), "mlflow", "sqlite:///not-opened.db")


def test_two_syncs_of_one_run_do_not_send_the_same_at_once(tmp_path):
    with only_sync_of(tmp_path):
        with pytest.raises(BadInput, match="another process syncs"), only_sync_of(tmp_path):
            pass
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is free again
    os.close(handle)
