"""What a terminal shows, what a pipe gets, and the variables that decide about colors."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

from detector.loggers import terminal
from detector.loggers.run_log import RunLog
from detector.loggers.terminal import is_live, open_console, show

VALUES = {"epoch": 2.0, "loss": 1.25, "loss_objectness": 1.25, "lr": 0.01, "images_per_s": 10.0, "data_wait": 0.1}
ESCAPE = "\x1b["


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch) -> Terminal:
    """Returns a terminal, 80 columns wide; every change of its live lines is written."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(terminal, "REFRESH_S", 0.0)
    return Terminal()


def log_a_run(folder: Path, stream: io.StringIO) -> None:
    with contextlib.redirect_stdout(stream):
        run_log = RunLog(folder, 0, 100, is_main=True)
        run_log.begin({"data": ["shapes: 10 images"]}, ["note:" + " few images" * 10])
        run_log.start_progress(10)
        run_log.advance(1, {"loss_objectness": 2.5})
        run_log.train_step(20, VALUES)
        assert list(run_log.evaluating(range(3))) == [0, 1, 2]
        run_log.evaluation(20, {"AP": 0.5, "loss": 1.0}, {"cat": {"AP": 0.5}, "dog": {"AP": 0.1}})
        run_log.message("a path of [brackets] :smile:")
        run_log.finish(100, "AP", "photo.jpg")
        run_log.close()


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_has_live_lines_and_log_txt_has_the_steps(screen, tmp_path):
    log_a_run(tmp_path, screen)
    out, log = screen.getvalue(), (tmp_path / "log.txt").read_text()
    shown = without_escapes(out)
    for text in ("epoch 0.1/10  step 1/100", "loss 2.500  objectness 2.500", "epoch 2.0/10  step 20/100", "evaluating  batch 1/3",
                 "evaluation at step 20 (epoch 2)", "a path of [brackets] :smile:", "finished: 100 of 100 steps"):
        assert text in shown, text
    assert "step 20/100 epoch 2.00 loss 1.2500" in log and "step 20/100 epoch" not in shown.replace("step 20/100  ", "")
    assert ESCAPE not in log and "─" not in log
    assert out.rfind("\x1b[?25l") < out.rfind("\x1b[?25h"), "the cursor is there"
    assert max(len(line) for line in shown.replace("\r", "\n").splitlines() if str(tmp_path) not in line) <= 80


def test_a_short_evaluation_is_shown_though_lines_are_renewed_seldom(screen, tmp_path, monkeypatch):
    monkeypatch.setattr(terminal, "REFRESH_S", 3600.0)
    log_a_run(tmp_path, screen)
    assert "evaluating  batch 0/3" in without_escapes(screen.getvalue())


def test_log_txt_is_what_a_pipe_gets(screen, tmp_path):
    pipe = io.StringIO()
    log_a_run(tmp_path / "a", screen)
    log_a_run(tmp_path / "b", pipe)
    stamp = len("2000-01-01 00:00:00 ")
    logs = [[re.sub(r"\d:\d\d:\d\d left|/\S*/[ab]\b", "", line[stamp:]) for line in (tmp_path / name / "log.txt").read_text().splitlines()]
            for name in "ab"]
    printed = [re.sub(r"\d:\d\d:\d\d left|/\S*/[ab]\b", "", line) for line in pipe.getvalue().splitlines()]
    assert logs[0] == logs[1] == printed


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()


def test_without_colors_a_terminal_still_has_live_lines(screen, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    log_a_run(tmp_path, screen)
    assert not re.search(r"\x1b\[[0-9;]*3\dm", screen.getvalue()) and "step 20/100" in screen.getvalue()


def test_forced_colors_reach_a_pipe_without_live_lines(screen, tmp_path, monkeypatch):
    pipe = io.StringIO()
    monkeypatch.setenv("FORCE_COLOR", "1")
    log_a_run(tmp_path, pipe)
    assert "\x1b[1;36m" in pipe.getvalue() and "\x1b[2K" not in pipe.getvalue() and "step 20/100 epoch 2.00" in pipe.getvalue()
    assert ESCAPE not in (tmp_path / "log.txt").read_text()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(screen, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert not is_live(open_console(screen))
    log_a_run(tmp_path, screen)
    assert ESCAPE not in screen.getvalue() and "step 20/100 epoch 2.00" in screen.getvalue()


def test_a_terminal_without_utf8_gets_ascii(screen, tmp_path):
    screen.encoding = "latin-1"
    log_a_run(tmp_path, screen)
    assert screen.getvalue().isascii() and "----------" in screen.getvalue() and "==" in without_escapes(screen.getvalue())


def test_no_stdout_is_no_terminal(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", None)
    assert open_console() is None


def shown_on(stream: io.StringIO, *parts) -> str:
    with contextlib.redirect_stdout(stream):
        show(*parts)
    return stream.getvalue()


def test_messages_and_tables_are_shown_one_after_another(screen):
    parts = "first", "", lambda width: [terminal.Text(f"a table of {width} columns", "cyan")]
    out = shown_on(screen, *parts)
    assert without_escapes(out) == "first\n\na table of 80 columns\n" != out
    assert shown_on(io.StringIO(), *parts) == "first\n\na table of None columns\n"


@pytest.mark.parametrize("columns", [60, 140, 300])
def test_lines_are_as_wide_as_the_terminal_up_to_200_columns(screen, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    widest = max(map(len, shown_on(screen, "word " * 200).splitlines()))
    assert min(columns, 200) - 5 <= widest <= min(columns, 200)
