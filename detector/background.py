"""Work beside the training steps: one function at a time, in a thread of its own."""

import threading
from typing import Any, Callable


class Background:
    """What the function gives or raises waits here for whoever asks for it; nothing is lost."""

    def __init__(self, name: str):
        self.name = name
        self.error: Exception | None = None  # of the function that ended, until somebody waits for it
        self._thread: threading.Thread | None = None
        self._value: Any = None

    def start(self, function: Callable[[], Any]) -> None:
        """Nothing may be under way, and what the function before gave must have been fetched."""
        assert self._thread is None, f"{self.name} is still at work"

        def run() -> None:
            try:
                self._value = function()
            except Exception as error:  # whatever it is, all ranks must hear of it
                self.error = error
        self._thread = threading.Thread(target=run, name=self.name)
        self._thread.start()

    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> Any:
        """What the function gave, once; None where nothing was started. Raises what went wrong, once."""
        self.close()
        self._thread = None
        value, error = self._value, self.error
        self._value, self.error = None, None
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Until nothing is under way; whatever went wrong has been told, or another error is more important."""
        if self._thread is not None:
            self._thread.join()
