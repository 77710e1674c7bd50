"""status.json in the run folder: the state of a training, for the launcher and for `fleet-rcnn jobs`."""

import contextlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from detector.errors import BadInput
from detector.run.files import STATUS_FILE, read_json, write_whole

MIN_INTERVAL_S = 1.0  # between two writes while only the step changes


@dataclass(frozen=True)
class Status:
    """The content of status.json."""

    state: str = "starting"             # starting, training, evaluating, stopped, finished or failed
    step: int = 0                       # optimizer steps done
    total_steps: int = 0                # 0: not known yet
    saved_in_s: float | None = None     # seconds that the last checkpoint took until it was safe on disk
    by: str = ""                        # stopped: the name of the signal that requested it, such as SIGTERM
    at: float = 0.0                     # time of writing, seconds since 1970
    images_per_s: float | None = None
    seconds_left: float | None = None


class StatusFile:
    """Keeps status.json up to date; a context that writes `failed` when it is left by an error, `stopped` by Ctrl-C.

    Only rank 0 writes. No run folder is made for the file, except for the state `stopped`: bad input shall leave
    nothing behind. If the file cannot be written, training continues without it.
    """

    def __init__(self, folder: Path, is_main: bool):
        self.path, self.is_main = folder / STATUS_FILE, is_main
        self.is_new = not folder.is_dir()
        self.previous = read_previous_status(folder)
        self.current, self.written_at = self.previous, 0.0

    def __enter__(self) -> "StatusFile":
        return self

    def __exit__(self, kind, *_error) -> None:
        if kind is None:
            return
        is_refused = issubclass(kind, BadInput) and self.current.state == "starting"
        if is_refused and self.is_new:
            return  # if there is a folder now, another start has made it, and has refused this one
        if is_refused and self.previous.state != "starting":
            self.update(**asdict(self.previous))  # the arguments of this start are wrong, the run itself is not
        elif issubclass(kind, KeyboardInterrupt):  # the second Ctrl-C
            self.update("stopped", by="SIGINT")
        else:
            self.update("failed")

    def update(self, state: str, **changes) -> None:
        """Sets the state and the given fields of Status; other fields keep their value."""
        before = self.current
        self.current = replace(before, state=state, **changes)
        if not self.is_main:
            return
        only_step_changes = state == "training" and before.state == "training"
        if only_step_changes and time.time() - self.written_at < MIN_INTERVAL_S:
            return
        self.written_at = time.time()
        self.current = replace(self.current, at=self.written_at)
        with contextlib.suppress(OSError):
            if self.path.parent.is_dir() or state == "stopped":
                write_whole(self.path, json.dumps(asdict(self.current)) + "\n",
                            flush=state not in ("training", "evaluating"))


def read_status(folder: Path) -> dict:
    """Returns the content of status.json (the fields of Status); an empty dict if there is none.

    Values of another type than that of their field, as another version may write, are left out.
    """
    defaults = asdict(Status())
    return {name: value for name, value in read_json(folder / STATUS_FILE).items()
            if isinstance(value, str) == isinstance(defaults.get(name), str)
            and isinstance(value, (str, int, float, type(None)))}


def read_previous_status(folder: Path) -> Status:
    """Returns the status that an earlier start left, without its signal; the default where there is none.

    A start begins with these values, so that a start that is cut short does not seem to have lost steps.
    """
    try:
        return replace(Status(**read_status(folder)), by="")
    except TypeError:  # fields that are not known here
        return Status()
