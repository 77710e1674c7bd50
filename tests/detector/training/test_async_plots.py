"""Plots are drawn beside the training, which neither waits for them nor ends with their errors."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from detector.training import async_plots
from detector.training.async_plots import BackgroundPlots


@pytest.fixture
def run(tmp_path) -> Path:
    lines = [{"kind": "train", "step": step, "loss": 1.0, "lr": 0.1} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def never() -> bool:
    return False


def use_program(monkeypatch, code: str) -> None:
    """Lets the drawing process run this code instead of the plots."""
    popen = async_plots.subprocess.Popen
    monkeypatch.setattr(async_plots.subprocess, "Popen", lambda _command, **options: popen([sys.executable, "-c", code], **options))


def wait_until(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_a_finished_run_has_its_plots(run):
    plots = BackgroundPlots(run, "AP", True)
    started_at = time.monotonic()
    plots.request()
    assert time.monotonic() - started_at < 1, "starting waits for nothing"
    plots.finish(never)
    assert (run / "plots" / "losses.png").is_file() and plots.process is None and plots.take_note() == ""


def test_without_the_option_nothing_starts(run):
    plots = BackgroundPlots(run, "AP", False)
    plots.request()
    plots.finish(never)
    assert plots.process is None and not (run / "plots").exists()


def test_a_request_while_a_process_draws_is_kept(run, monkeypatch):
    use_program(monkeypatch, f"open({str(run / 'count')!r}, 'a').write('x'); import time; time.sleep(0.5)")
    plots = BackgroundPlots(run, "AP", True)
    for _ in range(3):
        plots.request()
    wait_until(lambda: not plots.poll())
    assert (run / "count").read_text() == "xx"


def test_an_error_is_told_once_and_ends_the_plots_only(run, monkeypatch):
    use_program(monkeypatch, "raise SystemExit('no room for plots')")
    plots = BackgroundPlots(run, "AP", True)
    plots.request()
    wait_until(lambda: not plots.poll())
    assert plots.take_note() == "the plots cannot be drawn (no room for plots); the run goes on without them"
    plots.request()
    plots.finish(never)
    assert plots.process is None and plots.take_note() == ""


def test_a_process_that_cannot_start_is_told_once(run, monkeypatch):
    monkeypatch.setattr(async_plots.sys, "executable", str(run / "nothing"))
    plots = BackgroundPlots(run, "AP", True)
    plots.request()
    assert "No such file" in plots.take_note() and plots.process is None


@pytest.mark.parametrize("end", ["stop", "close"])
def test_a_stop_does_not_wait_for_plots(run, monkeypatch, end):
    use_program(monkeypatch, "import time; time.sleep(60)")
    plots = BackgroundPlots(run, "AP", True)
    plots.request()
    process, started_at = plots.process, time.monotonic()
    plots.finish(lambda: True) if end == "stop" else plots.close()
    assert process.returncode == -signal.SIGKILL and time.monotonic() - started_at < 30


def test_ctrl_c_in_the_terminal_is_not_for_the_process(run, monkeypatch):
    use_program(monkeypatch, "import time; time.sleep(60)")
    plots = BackgroundPlots(run, "AP", True)
    plots.request()
    assert os.getsid(plots.process.pid) == plots.process.pid
    plots.close()
