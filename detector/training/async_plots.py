"""Draws the plots of a run beside its steps, in a process that imports no torch: see visualization/plots.py."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Callable

import detector

NICE = 10           # added to the niceness of the process: training steps get a core first
MAX_WAIT_S = 120.0  # at the end of a run; the first plots of a machine wait for matplotlib's list of fonts
POLL_S = 0.05


class BackgroundPlots:
    """Runs one drawing process at a time; a request that comes meanwhile is kept until the next call. Rank 0 only.

    Training neither waits for the process nor ends with its errors; `take_note` tells the first one.
    """

    def __init__(self, folder: Path, best_metric: str, is_enabled: bool):
        self.folder, self.best_metric, self.is_enabled = folder, best_metric, is_enabled
        self.process: subprocess.Popen | None = None
        self.errors: IO[bytes] | None = None  # what the process writes to stderr
        self.is_due = self.has_failed = False
        self.note = ""

    def request(self) -> None:
        """Starts to draw, or lets the next `poll` start if an earlier process still draws."""
        self.is_due = self.is_enabled
        self.poll()

    def poll(self) -> bool:
        """Starts what is due; returns whether a process draws."""
        if self.process is not None and self.process.poll() is not None:
            self._end()
        if self.process is None and self.is_due and not self.has_failed:
            self._start()
        return self.process is not None

    def take_note(self) -> str:
        """Returns a sentence about the first error, once; empty if there is none."""
        note, self.note = self.note, ""
        return note

    def finish(self, stop_requested: Callable[[], bool]) -> None:
        """Draws once more, now without low priority, and waits for it, unless a stop is requested."""
        self.close()
        if self.is_enabled and not self.has_failed:
            self._start(nice=0)
        until = time.monotonic() + MAX_WAIT_S
        while self.poll() and not stop_requested() and time.monotonic() < until:
            time.sleep(POLL_S)
        self.close()

    def close(self) -> None:
        """Ends the process at once: files are replaced whole."""
        self.is_due = False
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.errors.close()

    def _start(self, nice: int = NICE) -> None:
        self.is_due = False
        root = str(Path(detector.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self.errors = tempfile.TemporaryFile()
        try:
            # A session of its own: Ctrl-C in the terminal is for the training, which ends this process.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "detector.visualization.plots", str(self.folder), self.best_metric, str(nice)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.errors, start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"})
        except OSError as error:
            self._fail(error.strerror or str(error))

    def _end(self) -> None:
        status, self.process = self.process.returncode, None
        with contextlib.suppress(OSError):
            self.errors.seek(0)
            lines = self.errors.read().decode(errors="replace").strip().splitlines()
            if status:
                self._fail(lines[-1] if lines else f"exit status {status}")
        self.errors.close()

    def _fail(self, reason: str) -> None:
        self.has_failed = True
        self.note = f"the plots cannot be drawn ({reason}); the run goes on without them"
