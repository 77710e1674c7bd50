"""Asked to stop: note it, go on to where all ranks can leave together, and leave there with everything saved."""

import signal
import sys
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """While this context is open, a signal only sets `asked`; a second Ctrl-C stops at once.

    Saving inside a handler corrupts files, so nothing else is done there. Whoever starts the process may have blocked
    the signals, so that none comes before it can be noted; those that came are noted now. The old handlers and the old
    mask come back at the end.
    """

    def __init__(self):
        self.requested = False
        self.by = ""
        self._old: dict = {}
        self._blocked: set = set()

    def __enter__(self) -> "StopRequest":
        self._old = {number: signal.signal(number, self._note) for number in SIGNALS}
        self._blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def __exit__(self, *_exception) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def ignore_from_here(self) -> None:
        """All is saved and the exit status is known: no later signal may put another in its place."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self._old = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.by == "SIGINT" == signal.Signals(number).name:
            raise KeyboardInterrupt
        # A launcher hands Ctrl-C on as SIGTERM to processes that a terminal may have told already.
        self.requested, self.by = True, self.by if self.by == "SIGINT" else signal.Signals(number).name
        if number == signal.SIGINT:
            sys.stderr.write("\nstopping after this step; Ctrl-C again stops at once\n")
