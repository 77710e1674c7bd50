"""A training in a real terminal: what it shows, what it leaves behind, and what Ctrl-C does to it."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from conftest import REPO

pytestmark = [pytest.mark.whole, pytest.mark.slow]
COLUMNS = 80
HIDDEN_CURSOR, CURSOR = "\x1b[?25l", "\x1b[?25h"


class TerminalProcess:
    """A program in a terminal of its own, 80 columns wide, where Ctrl-C is not ignored as it is below nohup.

    The program's end of the terminal stays open here as well: Linux may report a terminal that was closed (EIO) before it has handed
    over what was written last.
    """

    def __init__(self, command: list[str]):
        self.terminal, end = pty.openpty()
        self._program_end = end
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
        self.process = subprocess.Popen(
            command, cwd=REPO, stdin=end, stdout=end, stderr=end,
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0), signal.signal(signal.SIGINT, signal.SIG_DFL)),
            env={**kept, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)})
        self.output = ""

    def read_until(self, text: str = "", timeout_s: float = 240) -> None:
        """Reads the output until it holds this text, or until the program has ended."""
        until = time.monotonic() + timeout_s
        while not text or text not in self.output:
            assert time.monotonic() < until, self.output
            has_ended = self.process.poll() is not None  # before the wait: what it wrote last is there then
            if select.select([self.terminal], [], [], 0 if has_ended else 0.1)[0]:
                self.output += os.read(self.terminal, 1 << 16).decode(errors="replace")
            elif has_ended:
                return

    def end(self) -> int:
        self.read_until()
        for end in (self.terminal, self._program_end):
            os.close(end)
        return self.process.wait(60)

    def press_ctrl_c(self) -> None:
        os.write(self.terminal, b"\x03")


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


def test_a_training_in_a_terminal_shows_its_progress_and_ends_with_a_summary(tiny, config_file, tmp_path):
    command = [sys.executable, "-m", "detector", "train", str(config_file), *tiny, "schedule.steps=4", "run.plots=true"]
    terminal = TerminalProcess(command)
    assert terminal.end() == 0, terminal.output
    shown, folder = without_escapes(terminal.output), tmp_path / "runs" / "tiny"
    for text in ("data    coco train: 10 images", "epoch 0.3/1.33  step 1/4", "objectness", "evaluating  batch 0/",
                 "evaluation at step 4 (epoch 1.33)", "finished: 4 of 4 steps",
                 "plots/ (losses, metrics, curves, confusion)",
                 "fleet-rcnn predict "):
        assert text in shown, f"{text}: {shown}"
    assert terminal.output.rfind(HIDDEN_CURSOR) < terminal.output.rfind(CURSOR)
    wide = [line for line in shown.splitlines() if len(line) > COLUMNS and str(tmp_path) not in line]
    assert not wide
    assert {path.name for path in (folder / "plots").glob("*.png")} == {"losses.png", "metrics.png", "pr_curves.png", "confusion.png"}
    log = (folder / "log.txt").read_text()
    assert "\x1b" not in log and log.count("step 1/4 epoch 0.33 loss ") == 1 and "finished: 4 of 4 steps" in log


def test_ctrl_c_in_the_terminal_saves_and_leaves_no_process(tiny, config_file, tmp_path):
    terminal = TerminalProcess([sys.executable, "-m", "detector", "train", str(config_file), *tiny, "schedule.steps=500",
                                "run.plots=true", "run.num_workers=1"])
    terminal.read_until("evaluation at step 3")
    terminal.press_ctrl_c()
    assert terminal.end() == 75, terminal.output
    shown = without_escapes(terminal.output)
    assert "stopping after this step; Ctrl-C again stops at once" in shown and "stop requested (SIGINT)" in shown
    assert "Traceback" not in shown
    assert not plotting(tmp_path / "runs" / "tiny")


def plotting(run: Path) -> list[str]:
    """Returns the processes that draw plots of a run."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            commands.append(path.read_bytes().decode(errors="replace"))
    return [command for command in commands if "detector.visualization.plots" in command and str(run) in command]
