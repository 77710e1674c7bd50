"""Signals that request a stop: only noted when they arrive; the training loop then saves and stops on all ranks."""

import signal
import sys
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """A context in which a signal of SIGNALS only sets `requested`; a second Ctrl-C raises KeyboardInterrupt.

    The handler does nothing else: code that saves files inside a handler could interrupt itself. A launcher may start
    the process with these signals blocked, so that none ends it too early. They are unblocked here, and those that are
    pending arrive at once. The former handlers and the former signal mask come back at the end.

    Attributes:
        requested: a signal has arrived.
        signal_name: its name, such as SIGTERM; empty before. SIGINT is not replaced by a later signal.
    """

    def __init__(self):
        self.requested = False
        self.signal_name = ""
        self._old_handlers: dict = {}
        self._old_mask: set = set()

    def __enter__(self) -> "StopRequest":
        self._old_handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        self._old_mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def __exit__(self, *_exception) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old_mask)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    def ignore_further_signals(self) -> None:
        """Ignores all SIGNALS until the process ends: everything is saved, and the exit status shall not change."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self._old_handlers = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name == "SIGINT":
            raise KeyboardInterrupt
        self.requested = True
        # A terminal sends Ctrl-C to all processes; a launcher then sends SIGTERM too, which is no request of its own.
        if self.signal_name != "SIGINT":
            self.signal_name = signal.Signals(number).name
        if number == signal.SIGINT:
            sys.stderr.write("\nstopping after this step; Ctrl-C again stops at once\n")
