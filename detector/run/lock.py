"""RUN/owner.lock: held by the process that trains a run, so that a second start of it is refused.

The lock is the operating system's, and ends with the process that holds it, whatever ended that. Not every network
disk tells one machine of the locks of another: so the file also says whose it is, and where that is another machine,
the run is another's as long as its heartbeats move.
"""

import contextlib
import fcntl
import os
import re
import socket
import time
from pathlib import Path
from typing import TextIO

from detector.errors import BadInput

NAME = "owner.lock"
WATCH_S = 5.0  # a heartbeat is at most a second old while its rank moves


class RunLock:
    """Of one run, in rank 0. `close` gives it free."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.file: TextIO | None = None

    def take(self) -> None:
        """As soon as there is a folder; bad input leaves none behind. Raises BadInput where another process trains."""
        if self.file or not self.folder.is_dir():
            return
        try:
            file = open(self.folder / NAME, "a+", encoding="utf-8")
        except OSError:  # whoever needs to write there tells of it
            return
        refuse_if_owned(self.folder, file, fcntl.LOCK_EX)
        self.file = file
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self.file.flush()

    def close(self) -> None:
        if self.file:
            with contextlib.suppress(OSError):
                self.file.truncate(0)
            self.file.close()


def refuse_second_start(folder: Path) -> None:
    """Raises BadInput where a process trains the run; leaves everything as it is."""
    if (folder / NAME).is_file():
        with open(folder / NAME, encoding="utf-8") as file:
            refuse_if_owned(folder, file, fcntl.LOCK_SH)


def refuse_if_owned(folder: Path, file: TextIO, kind: int) -> None:
    file.seek(0)
    by = file.read()
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        owned = by and host_of(by) != socket.gethostname() and heart_beats(folder)
    except BlockingIOError:
        owned = True
    except OSError:  # this disk knows no locks
        owned = by and heart_beats(folder)
    if owned:
        file.close()
        raise BadInput(f"{folder} is being trained by {by or 'another process'}. Wait for it, stop it with Ctrl-C or "
                       "`fleet-rcnn cancel`, or start another run with run.name=...")


def host_of(by: str) -> str:
    found = re.fullmatch(r"process \d+ on (\S+)", by)
    return found[1] if found else ""


def heart_beats(folder: Path) -> bool:
    """Does any rank of the run move, now?"""
    def beats() -> list[bytes]:
        return [path.read_bytes() for path in sorted((folder / "heartbeats").glob("rank-*.json"))]
    before, until = beats(), time.monotonic() + WATCH_S
    while before and time.monotonic() < until:
        time.sleep(0.2)
        if beats() != before:
            return True
    return False
