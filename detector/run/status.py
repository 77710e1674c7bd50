"""status.json of the run folder: what a run is doing, for whoever launched it. Rank 0 writes it, by rename."""

import contextlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from detector.errors import BadInput
from detector.run.files import write_whole

AT_MOST_EVERY_S = 1.0  # while only the step changes


@dataclass(frozen=True)
class Status:
    state: str = "starting"             # starting, training, evaluating, stopped, finished or failed
    step: int = 0                       # steps done
    total_steps: int = 0                # 0: not known yet
    saved_in_s: float | None = None     # how long the last checkpoint took until it was safe on disk
    by: str = ""                        # the signal that asked for the stop, where there was one
    at: float = 0.0                     # when this was written, seconds since 1970
    images_per_s: float | None = None
    seconds_left: float | None = None


class StatusFile:
    """Keeps status.json up to date; leaving the context on an error says that the run has failed.

    Except for a stop, it makes no run folder where there is none yet: bad input leaves nothing behind. Nor is it worth
    a run: where it cannot be written, training goes on.
    """

    def __init__(self, folder: Path, main: bool):
        self.path, self.main = folder / "status.json", main
        self.said, self.written_at = last_status(self.path), 0.0
        self.found = self.said  # of an earlier start

    def __enter__(self) -> "StatusFile":
        return self

    def __exit__(self, kind, *_error) -> None:
        if kind is None:
            return
        if issubclass(kind, BadInput) and self.said.state == "starting" != self.found.state:
            self.tell(**asdict(self.found))  # what was asked for is wrong, not the run
        else:
            self.tell("failed")

    def tell(self, state: str, **changes) -> None:
        """`changes` are fields of Status; the others keep their value."""
        before = self.said
        self.said = replace(before, state=state, **changes)
        if not self.main or not self.path.parent.is_dir() and state != "stopped":
            return
        if state == before.state == "training" and time.time() - self.written_at < AT_MOST_EVERY_S:
            return
        self.written_at = time.time()
        self.said = replace(self.said, at=self.written_at)
        with contextlib.suppress(OSError):
            write_whole(self.path, json.dumps(asdict(self.said)) + "\n", flush=state not in ("training", "evaluating"))


def last_status(path: Path) -> Status:
    """What an earlier start left, so that a start that is cut short does not seem to have lost steps."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return replace(Status(**json.loads(path.read_text(encoding="utf-8"))), by="")
    return Status()
