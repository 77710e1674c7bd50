"""Asked to stop: note it, go on to the next step boundary, and leave there with everything saved."""

import signal
import sys
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """While this context is open, a signal only sets `asked`; a second Ctrl-C stops at once.

    Saving inside a handler corrupts files, so nothing else is done there. The old handlers come back at the end.
    """

    def __init__(self):
        self.asked = False
        self.by = ""
        self._old: dict = {}

    def __enter__(self) -> "StopRequest":
        self._old = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_exception) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.by == "SIGINT" == signal.Signals(number).name:
            raise KeyboardInterrupt
        self.asked, self.by = True, signal.Signals(number).name
        if number == signal.SIGINT:
            sys.stderr.write("\nstopping after this step; Ctrl-C again stops at once\n")
