"""owner.lock in the run folder: locked by the process that trains the run, so that a second start is refused.

The lock is one of the operating system (flock). The lock ends with its process, also if the process is killed. Some
network disks keep locks to one machine. The file therefore names its owner too. A run whose owner is on another machine
counts as being trained while its heartbeats change.
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
from detector.run.files import HEARTBEATS_FOLDER, LOCK_FILE

WATCH_S = 5.0  # how long heartbeats are watched; those of a running rank change about once a second


class RunLock:
    """The lock of one run folder, for rank 0."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.file: TextIO | None = None

    def take(self) -> None:
        """Takes the lock. Does nothing if this object holds the lock, or while there is no run folder.

        Raises:
            BadInput: another process trains the run.
        """
        if self.file or not self.folder.is_dir():
            return
        try:
            file = open(self.folder / LOCK_FILE, "a+", encoding="utf-8")
        except OSError:  # a folder that is not writable is reported where a file is needed
            return
        _refuse_if_owned(self.folder, file, fcntl.LOCK_EX)
        self.file = file
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self.file.flush()

    def close(self) -> None:
        """Releases the lock."""
        if self.file:
            with contextlib.suppress(OSError):
                self.file.truncate(0)
            self.file.close()


def refuse_second_start(folder: Path) -> None:
    """Raises BadInput if a process trains the run in this folder. Changes nothing."""
    if (folder / LOCK_FILE).is_file():
        with open(folder / LOCK_FILE, encoding="utf-8") as file:
            _refuse_if_owned(folder, file, fcntl.LOCK_SH)


def _refuse_if_owned(folder: Path, file: TextIO, operation: int) -> None:
    """Locks an open lock file with flock's LOCK_EX or LOCK_SH; raises BadInput if another process owns the run."""
    file.seek(0)
    owner = file.read()
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
        is_owned = owner and host_of(owner) != socket.gethostname() and has_live_heartbeat(folder)
    except BlockingIOError:
        is_owned = True
    except OSError:  # a disk without locks
        is_owned = owner and has_live_heartbeat(folder)
    if is_owned:
        file.close()
        raise BadInput(f"{folder} is being trained by {owner or 'another process'}. Wait for it, stop it with Ctrl-C "
                       "or `fleet-rcnn cancel`, or start another run with run.name=...")


def host_of(owner: str) -> str:
    """Returns the host name in the text of a lock file; empty if there is none."""
    match = re.fullmatch(r"process \d+ on (\S+)", owner)
    return match[1] if match else ""


def has_live_heartbeat(folder: Path) -> bool:
    """Returns whether the heartbeat of any rank changes within WATCH_S seconds."""
    def contents() -> list[bytes]:
        return [path.read_bytes() for path in sorted((folder / HEARTBEATS_FOLDER).glob("rank-*.json"))]
    before, deadline = contents(), time.monotonic() + WATCH_S
    while before and time.monotonic() < deadline:
        time.sleep(0.2)
        if contents() != before:
            return True
    return False
