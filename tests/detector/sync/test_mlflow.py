"""`sync --to mlflow` into a real server on this machine."""

import importlib.util
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from recorded_run import LINES, evaluation_line, make_run, train_line, write_lines

from detector.sync.progress import read_progress, write_progress
from detector.sync.record import read_record
from detector.sync.sync import sync

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("mlflow", "sqlalchemy", "flask"))), reason="no MLflow server: pip install mlflow")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Returns the address of an MLflow server with an empty store."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True,
                                   env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"})
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while True:
            assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/health").close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


class Remote:
    """What the server has of one experiment."""

    def __init__(self, server: str, project: str):
        from mlflow import MlflowClient
        self.client, self.server, self.project = MlflowClient(server), server, project

    def runs(self) -> list:
        experiment = self.client.get_experiment_by_name(self.project)
        return self.client.search_runs([experiment.experiment_id])

    def steps(self, run, tag: str) -> list[int]:
        return [metric.step for metric in self.client.get_metric_history(run.info.run_id, tag)]

    def sync(self, folder) -> list[str]:
        return sync(str(folder), "mlflow", self.server, self.project)


@pytest.fixture
def remote(server, request) -> Remote:
    return Remote(server, request.node.name[:60])


def test_a_run_is_there_once_and_whole_and_a_second_sync_adds_what_is_new(remote, tmp_path):
    folder = make_run(tmp_path / "bccd", state="stopped")
    out = remote.sync(folder)
    assert out[0].startswith("bccd: 6 new lines of 6 and 7 files") and out[-1].startswith(f"{remote.server}/#/experiments/")
    run, = remote.runs()
    assert (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time) == ("bccd", "KILLED", 1000_000, 1040_000)
    assert run.data.params["data.format"] == "shapes" and run.data.params["run.name"] == "bccd"
    assert run.data.tags["environment.torch"] == "2.9" and run.data.tags["mlflow.source.git.commit"] == "1234abcd"
    history = remote.client.get_metric_history(run.info.run_id, "loss/train")
    assert [(metric.step, metric.timestamp) for metric in history] == [(1, 1010_000), (2, 1020_000), (3, 1030_000), (4, 1040_000)]
    assert history[0].value == 3.0 and math.isnan(history[1].value)
    assert run.data.metrics["metrics/AP"] == 0.125 and run.data.metrics["metrics/best so far"] == 0.25
    assert run.data.metrics["per class AP/a_b _old_ 2"] == 0.125
    files = {item.path for folder in (None, "plots", "pictures") for item in remote.client.list_artifacts(run.info.run_id, folder)}
    assert files >= {"config.yaml", "environment.json", "results.json", "log.txt", "plots/one.png", "pictures/one.jpg"}

    assert remote.sync(folder)[0].startswith("bccd: 0 new lines of 6 and 0 files")
    write_lines(folder, [*LINES, train_line(5), evaluation_line(5, 0.5)])
    (folder / "status.json").write_text('{"state": "finished"}')
    assert remote.sync(folder)[0].startswith("bccd: 2 new lines of 8 and 0 files")
    run, = remote.runs()
    assert run.info.status == "FINISHED" and run.data.metrics["metrics/best so far"] == 0.5
    assert remote.steps(run, "loss/train") == [1, 2, 3, 4, 5] and remote.steps(run, "metrics/AP") == [2, 4, 5]


def test_a_run_that_was_trained_again_from_an_earlier_step_is_sent_anew(remote, tmp_path):
    folder = make_run(tmp_path / "run")
    remote.sync(folder)
    first, = remote.runs()
    write_lines(folder, [*LINES[:3], train_line(3, 7.0), train_line(4, 8.0)])
    out = remote.sync(folder)
    assert first.info.run_id in out[0] and "trained again from an earlier step" in out[0] and "5 new lines of 5" in out[1]
    second, = [run for run in remote.runs() if run.info.run_id != first.info.run_id]
    assert remote.steps(second, "loss/train") == [1, 2, 3, 4] and second.data.metrics["loss/train"] == 8.0
    assert remote.sync(folder)[0].startswith("run: 0 new lines of 5") and len(remote.runs()) == 2


@pytest.mark.parametrize("has_arrived", [True, False])
def test_a_sync_that_was_cut_short_neither_doubles_nor_skips(has_arrived, remote, tmp_path):
    folder = make_run(tmp_path / "run", LINES if has_arrived else LINES[:4])
    remote.sync(folder)
    write_lines(folder, LINES)
    progress = read_progress(folder, "mlflow", remote.server, remote.project, "run")
    begun = progress.with_lines(read_record(folder), 4)
    write_progress(folder, type(begun)(**{**vars(begun), "begun": 6}))  # the answer of the server was not received
    usage = (folder / "usage.json").read_text()
    (folder / "usage.json").write_text(usage.replace("1040.0", "1060.0"))  # times differ, because the start goes on
    remote.sync(folder)
    run, = remote.runs()
    assert remote.steps(run, "loss/train") == [1, 2, 3, 4] and remote.steps(run, "metrics/AP") == [2, 4]


def test_a_remote_run_that_was_deleted_is_made_again_and_changed_options_are_named(remote, tmp_path):
    folder = make_run(tmp_path / "run")
    remote.sync(folder)
    make_run(tmp_path / "later", overrides=("optim.lr=0.5",))
    (folder / "config.yaml").write_text((tmp_path / "later" / "config.yaml").read_text())
    assert "first value of options that have changed since: run.name, optim.lr" in remote.sync(folder)[1]
    first, = remote.runs()
    remote.client.delete_run(first.info.run_id)
    assert remote.sync(folder)[0].startswith("run: 6 new lines of 6")
    run, = remote.runs()
    assert run.data.params["optim.lr"] == "0.5" and remote.steps(run, "loss/train") == [1, 2, 3, 4]


def test_a_run_that_logged_nothing_is_there_with_its_options(remote, tmp_path):
    remote.sync(make_run(tmp_path / "run", [], "failed"))
    run, = remote.runs()
    assert run.info.status == "FAILED" and run.data.metrics == {} and run.data.params["data.format"] == "shapes"
