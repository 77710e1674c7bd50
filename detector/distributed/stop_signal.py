"""Signals that request a stop: only noted when they arrive; the training loop then saves and stops on all ranks."""

import contextlib
import ctypes
import os
import signal
import time
from types import FrameType

from detector.errors import INTERRUPTED, interrupted_line

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  # of prctl(2)
END_AFTER_S = 3.0  # after Ctrl-C, for a verb with nothing to save
REPEATED_S = 2.0  # torchrun sends its processes the Ctrl-C that they have got from the terminal within this time


class StopRequest:
    """A context in which a signal of SIGNALS only sets `requested`; a second Ctrl-C raises KeyboardInterrupt.

    The handler does nothing else: code that saves files inside a handler could interrupt itself. A launcher may start
    the process with these signals blocked, so that none ends it too early. They are unblocked here, and those that are
    pending arrive at once. The former handlers and the former signal mask come back at the end. SIGHUP, sent when a
    terminal is closed, stays without effect where it is ignored, as below nohup.

    Attributes:
        created_at: when this object was made, in seconds of time.monotonic(): about when the process began.
        requested: a signal has arrived.
        signal_name: its name, such as SIGTERM; empty before. SIGINT is not replaced by a later signal.
    """

    def __init__(self):
        self.created_at = time.monotonic()
        self.requested = False
        self.signal_name = ""
        self._interrupted_at = 0.0  # when the first SIGINT came
        self._old_handlers: dict = {}
        self._old_mask: set = set()

    def __enter__(self) -> "StopRequest":
        self._old_handlers = {number: signal.signal(number, self._note) for number in signals_to_note()}
        self._old_mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def __exit__(self, *_exception) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old_mask)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    @property
    def reason(self) -> str:
        """The source of the stop request, for messages: the signal, or another rank."""
        return self.signal_name or "on another rank"

    def ignore_further_signals(self) -> None:
        """Ignores all SIGNALS until the process ends: everything is saved, and the exit status shall not change."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self._old_handlers = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name == "SIGINT":
            if is_below_torchrun() and time.monotonic() - self._interrupted_at < REPEATED_S:
                return
            raise KeyboardInterrupt
        self.requested = True
        # A terminal sends Ctrl-C to all processes; a launcher then sends SIGTERM too, which is no request of its own.
        if self.signal_name != "SIGINT":
            self.signal_name = signal.Signals(number).name
        if number == signal.SIGINT:
            self._interrupted_at = time.monotonic()
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")


class Interruption:
    """A context for a verb with nothing to save: Ctrl-C raises KeyboardInterrupt.

    A second Ctrl-C ends the process at once, and so does the first after END_AFTER_S where the exception was swallowed,
    as by a callback of a library. On a normal exit of the context nothing more happens.

    Attributes:
        requested: Ctrl-C was pressed. Libraries may turn the KeyboardInterrupt into an error of their own.
    """

    def __init__(self):
        self.requested = False
        self._old_handlers: dict = {}

    def __enter__(self) -> "Interruption":
        handlers = {signal.SIGINT: self._note, signal.SIGALRM: end_interrupted}
        self._old_handlers = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the launcher may have blocked them
        return self

    def __exit__(self, *_exception) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            end_interrupted(number, frame)
        self.requested = True
        signal.setitimer(signal.ITIMER_REAL, END_AFTER_S)
        raise KeyboardInterrupt


def end_interrupted(_number: int, _frame: FrameType | None) -> None:
    """Ends the process with the line and the status of Ctrl-C."""
    with contextlib.suppress(OSError):
        os.write(2, f"{interrupted_line()}\n".encode())
    os._exit(INTERRUPTED)


def signals_to_note() -> list[signal.Signals]:
    """Returns SIGNALS, without SIGHUP where it is ignored."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if number != signal.SIGHUP or not is_ignored]


def is_below_torchrun() -> bool:
    """Returns whether torchrun itself has started this process; the launcher does not set this variable."""
    return "TORCHELASTIC_RESTART_COUNT" in os.environ


def terminate_with_parent() -> None:
    """Lets the system send this process SIGTERM when its parent ends, even if the parent is killed; only on Linux."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
