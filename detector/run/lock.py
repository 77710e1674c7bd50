"""owner.lock in the run folder: locked by the process that trains the run, so that a second start is refused.

The lock is one of the operating system (flock). The lock ends with its process, also if the process is killed. Some
network disks keep locks to one machine. The file therefore names its owner too. A run whose owner is on another machine
counts as being trained while its heartbeats change.
"""

import contextlib
import enum
import fcntl
import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from detector.errors import BadInput
from detector.run.files import HEARTBEATS_FOLDER, LOCK_FILE, cannot_write

WATCH_S = 5.0  # how long heartbeats are watched; those of a running rank change at least every two seconds
RETRY_S = 0.5  # how long a taken lock is asked for: a reader may hold it for a moment
START_MARGIN_S = 2.0  # by which the times of a process and of a file may differ on one machine


class Liveness(enum.Enum):
    """The knowledge of this machine about the life of the process that trains a run."""

    ALIVE = "alive"        # on this machine
    DEAD = "dead"          # on this machine: it was killed, or the machine was restarted
    ELSEWHERE = "elsewhere"  # on another machine
    NONE = "none"          # no process has the run, or none that left a name


@dataclass(frozen=True)
class Owner:
    """The process that trains a run, or has been killed while it did."""

    pid: int = 0
    host: str = ""
    liveness: Liveness = Liveness.NONE


class RunLock:
    """The lock of one run folder, for rank 0."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.file: TextIO | None = None

    def take(self) -> None:
        """Takes the lock. Does nothing if this object holds the lock, or while there is no run folder.

        Raises:
            BadInput: another process trains the run, or the disk is full.
        """
        if self.file or not self.folder.is_dir():
            return
        try:
            file = open(self.folder / LOCK_FILE, "a+", encoding="utf-8")
        except OSError:  # a folder that is not writable is reported where a file is needed
            return
        _refuse_if_owned(self.folder, file, fcntl.LOCK_EX, RETRY_S)
        self.file = file
        try:
            self.file.truncate(0)
            self.file.write(f"process {os.getpid()} on {socket.gethostname()}")
            self.file.flush()
        except OSError as error:
            raise cannot_write(self.folder / LOCK_FILE, error) from error

    def close(self) -> None:
        """Releases the lock."""
        if self.file:
            with contextlib.suppress(OSError):
                self.file.truncate(0)
            with contextlib.suppress(OSError):
                self.file.close()


def refuse_second_start(folder: Path) -> None:
    """Raises BadInput if a process trains the run in this folder. Changes nothing."""
    if (folder / LOCK_FILE).is_file():
        with open(folder / LOCK_FILE, encoding="utf-8") as file:
            _refuse_if_owned(folder, file, fcntl.LOCK_SH)


def _refuse_if_owned(folder: Path, file: TextIO, operation: int, retry_s: float = 0.0) -> None:
    """Locks an open lock file with flock's LOCK_EX or LOCK_SH; raises BadInput if another process owns the run."""
    file.seek(0)
    owner = file.read()
    try:
        _lock(file, operation, retry_s)
        is_owned = owner and host_of(owner) != socket.gethostname() and has_live_heartbeat(folder)
    except BlockingIOError:
        is_owned = True
    except OSError:  # a disk without locks
        is_owned = owner and has_live_heartbeat(folder)
    if is_owned:
        file.close()
        raise BadInput(f"{folder} is being trained by {owner or 'another process'}. Wait for it, stop it with Ctrl-C "
                       "or `fleet-rcnn cancel`, or start another run with run.name=...")


def _lock(file: TextIO, operation: int, retry_s: float) -> None:
    """Locks a file; tries for `retry_s` seconds. Raises BlockingIOError if another process holds the lock."""
    deadline = time.monotonic() + retry_s
    while True:
        try:
            return fcntl.flock(file, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def parse_owner(text: str) -> tuple[int, str]:
    """Returns the process id and the host in the text of a lock file; 0 and "" if there are none."""
    match = re.fullmatch(r"process (\d+) on (\S+)", text)
    return (int(match[1]), match[2]) if match else (0, "")


def host_of(owner: str) -> str:
    """Returns the host name in the text of a lock file; empty if there is none."""
    return parse_owner(owner)[1]


def read_owner(folder: Path) -> Owner:
    """Returns the process that trains the run in this folder, or was killed while it did. Changes nothing.

    Raises:
        OSError: the lock file cannot be read.
    """
    try:
        file = open(folder / LOCK_FILE, encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return Owner()
    with file:
        pid, host = parse_owner(file.read())
        if not pid:
            return Owner()
        if host != socket.gethostname():
            return Owner(pid, host, Liveness.ELSEWHERE)
        try:
            _lock(file, fcntl.LOCK_SH, 0.0)
            is_alive = False
        except BlockingIOError:
            is_alive = True
        except OSError:  # a disk without locks
            is_alive = runs_since(pid, os.fstat(file.fileno()).st_mtime)
        return Owner(pid, host, Liveness.ALIVE if is_alive else Liveness.DEAD)


def has_open(pid: int, path: Path) -> bool:
    """Returns whether a process has a file open; where its files cannot be seen, whether it is older than the file."""
    try:
        handles = [entry.path for entry in os.scandir(f"/proc/{pid}/fd")]
    except PermissionError:  # a process of another user
        return runs_since(pid, path.stat().st_mtime)
    except OSError:
        return False
    return any(is_same_file(handle, path) for handle in handles)


def is_same_file(first: str, second: Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:  # closed meanwhile
        return False


def runs_since(pid: int, written_at: float) -> bool:
    """Returns whether the process runs on this machine since before a time: a later one only has the same number."""
    try:
        process = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = re.search(r"^btime (\d+)", Path("/proc/stat").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return False
    ticks = int(process.rpartition(")")[2].split()[19])  # since the machine was started, see proc_pid_stat(5)
    return int(boot[1]) + ticks / os.sysconf("SC_CLK_TCK") <= written_at + START_MARGIN_S


def has_live_heartbeat(folder: Path) -> bool:
    """Returns whether the heartbeat of any rank changes within WATCH_S seconds."""
    def content(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError:  # on a network disk: replaced while it was read
            return b""

    def contents() -> list[bytes]:
        return [content(path) for path in sorted((folder / HEARTBEATS_FOLDER).glob("rank-*.json"))]
    before, deadline = contents(), time.monotonic() + WATCH_S
    while before and time.monotonic() < deadline:
        time.sleep(0.2)
        if contents() != before:
            return True
    return False
