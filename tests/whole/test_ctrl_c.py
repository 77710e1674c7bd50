"""Ctrl-C in a real terminal: every verb ends with one line and status 130; train and evaluate save first, as they say."""

import json
import subprocess
import sys

import pytest
from conftest import REPO
from test_terminal import TerminalProcess, without_escapes

from detector.cli import SINGLE
from launcher import cli

pytestmark = pytest.mark.whole
# Runs a verb whose work is replaced by a line and a long sleep, and what may become of the KeyboardInterrupt in it.
WAITING = """
import sys, time
from detector import cli
from detector.__main__ import end_process, main

def wait(_args):
    try:
        print("begins", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        {after}

cli.SINGLE["{verb}"] = wait
end_process(main(sys.argv[1:]))
"""
ARGUMENTS = {"check": ["shapes/demo"], "evaluate": ["runs/a", "--time"], "score": ["a", "b"], "compare": ["a", "b"],
             "view": ["shapes/demo"], "anchors": ["shapes/demo"], "predict": ["a", "b"], "export": ["a"],
             "data": ["list"], "annotate": ["photos"], "sync": ["a", "--to", "wandb"], "convert": ["a", "--to", "coco", "b"]}


def lines_of(terminal: TerminalProcess) -> list[str]:
    return [line for line in without_escapes(terminal.output).replace("^C", "").splitlines() if line.strip()]


def waiting(verb: str, after: str) -> TerminalProcess:
    return TerminalProcess([sys.executable, "-c", WAITING.format(verb=verb, after=after), verb, *ARGUMENTS.get(verb, [])])


@pytest.mark.parametrize("verb", SINGLE)
def test_a_verb_ends_with_one_line(verb):
    terminal = waiting(verb, "raise")
    terminal.read_until("begins")
    terminal.press_ctrl_c()
    assert terminal.end() == 130 and lines_of(terminal) == ["begins", "interrupted"]


@pytest.mark.parametrize("after", ["raise ValueError('of a library') from None", "time.sleep(600)"])
def test_a_library_that_swallows_the_interrupt_or_makes_an_error_of_it_changes_nothing(after):
    terminal = waiting("view", after)
    terminal.read_until("begins")
    terminal.press_ctrl_c()
    assert terminal.end() == 130 and lines_of(terminal) == ["begins", "interrupted"]


@pytest.mark.parametrize("arguments, text", [
    (["check", "shapes/demo", "run.device=cpu"], "trial steps"), (["jobs", "--watch", "{runs}"], "no run in")])
def test_the_launcher_adds_no_line(arguments, text, tmp_path, shapes_root):
    overrides = [f"data.root={shapes_root}", f"data.cache={tmp_path}"] if arguments[0] == "check" else []
    (tmp_path / "runs").mkdir()
    terminal = TerminalProcess([sys.executable, "-m", "launcher.start",
                                *(word.format(runs=tmp_path / "runs") for word in arguments), *overrides])
    terminal.read_until(text)
    terminal.press_ctrl_c()
    assert terminal.end() == 130, terminal.output
    assert lines_of(terminal)[-1] == "interrupted" and terminal.output.count("interrupted") == 1 and "Traceback" not in terminal.output


@pytest.mark.slow
def test_the_second_ctrl_c_in_train_ends_at_once_and_the_run_counts_as_stopped(tiny, config_file, tmp_path, monkeypatch):
    monkeypatch.setenv("SLOW_STEP", "1")
    terminal = TerminalProcess([sys.executable, str(REPO / "tests" / "whole" / "hooked_run.py"), "train", str(config_file), *tiny])
    terminal.read_until("step begins")
    terminal.press_ctrl_c()
    terminal.read_until("stopping after this step; Ctrl-C again stops at once")
    terminal.press_ctrl_c()
    assert terminal.end() == 130, terminal.output
    assert lines_of(terminal)[-1] == "stopped at once: the same command continues from the newest checkpoint"
    assert "Traceback" not in terminal.output
    done = subprocess.run([sys.executable, "-m", "launcher.cli", "jobs", str(tmp_path / "runs"), "--json"], cwd=REPO, capture_output=True,
                          text=True)
    record, = json.loads(done.stdout)
    assert record["state"] == "stopped", record


def test_one_line_also_before_the_command_line_is_loaded(monkeypatch, capsys):
    from launcher import start

    def interrupt():
        raise KeyboardInterrupt
    monkeypatch.setattr(cli, "main", interrupt)
    assert start.main() == 130 and capsys.readouterr().err == "interrupted\n"
