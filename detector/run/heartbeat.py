"""heartbeats/ in the run folder: each rank's step, phase and error, and the Python stacks of ranks that hang.

rank-00003.json is rewritten within a second of each change of step or phase, and every few seconds as a sign of life.
rank-00003.stacks.txt holds the Python stacks of all threads of the rank, written when the rank made no progress for
`run.hang_timeout_minutes`. Rank 0 also logs a message then that names the slowest rank.

The clocks of two hosts may differ by any amount. Ages are therefore computed from differences of times of one clock:
those in a file are of the rank's host, those of the files themselves are of the file server.
"""

import contextlib
import faulthandler
import json
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Callable, TextIO

from detector.distributed import rank_info
from detector.errors import BadInput, MachineError, NotFinite
from detector.run.files import HEARTBEATS_FOLDER, read_json, write_whole
from detector.run.machine_errors import explain, is_lost_peer

INTERVAL_S = 1.0  # between two writes of a rank: a network disk serves many ranks
ALIVE_S = 2.0     # between two writes of a rank without progress
POLL_S = 0.05     # how long the end may have to wait for the thread


@dataclass(frozen=True)
class Beat:
    """The last heartbeat of one rank; the content of its JSON file."""

    rank: int
    host: str
    phase: str  # such as "step" or "loading data"
    step: int   # the step that is being done, counted from 1; in a phase between two steps, the last one that is done
    at: float   # when this phase of this step began, seconds since 1970 by the clock of the host
    error: str = ""  # what ended the rank, such as "ValueError: no box"; `at` is the time of the error then
    alive_at: float = field(default=0.0, compare=False)  # when the file was written, by the clock of the host
    age_s: float = field(default=0.0, compare=False)     # seconds from `at` to the last write of any rank; when read


class Heartbeat:
    """Writes the heartbeat of this rank in a background thread; a context manager.

    Args:
        folder: the run folder. Nothing is written before `open`.
        stalled_s: seconds without progress after which the stacks are written; 0: never.

    Attributes:
        message: called with the text about a hang; prints to stderr at first.
    """

    def __init__(self, folder: Path, stalled_s: float):
        self.folder, self.stalled_s = folder, stalled_s
        self.message: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)
        self.current = Beat(rank_info.rank(), socket.gethostname(), "start-up", 0, time.time())
        self.written = self.warned = replace(self.current, at=0.0)
        self.marked_at = self.written_at = time.monotonic()
        self.stacks: TextIO | None = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._write_until_end, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self.thread.start()
        return self

    def __exit__(self, _kind, error: BaseException | None, _trace) -> None:
        if error:
            self.current = replace(self.current, at=time.time(), error=describe_error(error))
            with contextlib.suppress(OSError):
                if self.folder.is_dir():  # bad input shall leave nothing behind, but an existing run names its error
                    (self.folder / HEARTBEATS_FOLDER).mkdir(exist_ok=True)
        self.ended.set()
        self.thread.join()
        faulthandler.cancel_dump_traceback_later()
        if self.stacks:
            self.stacks.close()
            with contextlib.suppress(OSError):
                path = stacks_file(self.folder, self.current.rank)
                if not path.stat().st_size:
                    path.unlink()

    def mark(self, phase: str, step: int | None = None) -> None:
        """Notes that this rank has begun a phase. Cheap: may be called several times in every step.

        Args:
            step: None: the step of the last call.
        """
        self.current = replace(self.current, phase=phase, step=self.current.step if step is None else step,
                               at=time.time())
        self.marked_at = time.monotonic()

    def open(self, world_size: int) -> None:
        """Makes the folder, which starts the writing, and removes the files of ranks that no longer exist."""
        folder = self.folder / HEARTBEATS_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        if self.current.rank == 0:
            for path in folder.glob("rank-*"):
                if path.name >= f"rank-{world_size:05d}":
                    path.unlink(missing_ok=True)

    def _write_until_end(self) -> None:
        checked_at = 0.0
        while not self.ended.is_set():
            if time.monotonic() - checked_at >= INTERVAL_S:
                checked_at = time.monotonic()
                self._write()
            time.sleep(POLL_S)  # Event.wait never returns below libfaketime, with which clocks are tested
        self._write()

    def _write(self) -> None:
        """Writes the heartbeat, as `_write_changes` does, if the disk lets it: a full disk is reported by others."""
        with contextlib.suppress(OSError):
            self._write_changes()

    def _write_changes(self) -> None:
        """Writes the heartbeat if it has changed, or is due as a sign of life; warns once of a lack of progress."""
        latest, idle_s = self.current, time.monotonic() - self.marked_at
        has_changed = latest != self.written
        if has_changed or time.monotonic() - self.written_at >= ALIVE_S:
            self._write_files(latest)
        if has_changed and self.stalled_s:
            # A timer in C writes the stacks, also if another thread holds the interpreter lock.
            with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):  # stderr that is no file
                faulthandler.dump_traceback_later(self.stalled_s, file=self.stacks or sys.stderr)
        self.written = latest
        if self.stalled_s and idle_s > self.stalled_s + INTERVAL_S and self.warned != latest:
            self.warned = latest
            if latest.rank == 0:
                slowest = describe_slowest_rank(read_heartbeats(self.folder) or [replace(latest, age_s=idle_s)])
                stacks = self.folder / HEARTBEATS_FOLDER / "rank-*.stacks.txt"
                self.message(f"no progress for {idle_s:.0f} s (run.hang_timeout_minutes): {slowest}. The Python stacks "
                             f"of all ranks are in {stacks}")

    def _write_files(self, latest: Beat) -> None:
        """Writes the JSON file, and makes the file for the stacks, once there is a folder for them."""
        self.written_at = time.monotonic()
        with contextlib.suppress(OSError):  # the stacks are written, and a hang is reported, without the files too
            if (self.folder / HEARTBEATS_FOLDER).is_dir():
                self.stacks = self.stacks or open(stacks_file(self.folder, latest.rank), "w", encoding="utf-8")
                write_whole(heartbeat_file(self.folder, latest.rank), to_json(replace(latest, alive_at=time.time())),
                            flush=False)


def to_json(heartbeat: Beat) -> str:
    """Returns the content of a heartbeat file, without `age_s`."""
    return json.dumps({name: value for name, value in asdict(heartbeat).items() if name != "age_s"}) + "\n"


def describe_error(error: BaseException) -> str:
    """Returns the kind and the message of an error; for an error that the user can fix, the message alone."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by Ctrl-C"
    message, explained = str(error), explain(error)
    if isinstance(error, (BadInput, MachineError, NotFinite)):
        return message
    if explained:
        return explained[0]
    if rank_info.world_size() > 1 and is_lost_peer(error):
        return f"lost the connection to another rank, which ended first: {first_line(message)}"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def heartbeat_file(folder: Path, rank: int) -> Path:
    """Returns the heartbeat file of a rank in a run folder."""
    return folder / HEARTBEATS_FOLDER / f"rank-{rank:05d}.json"


def stacks_file(folder: Path, rank: int) -> Path:
    """Returns the file for the Python stacks of a rank in a run folder."""
    return folder / HEARTBEATS_FOLDER / f"rank-{rank:05d}.stacks.txt"


def read_heartbeats(folder: Path) -> list[Beat]:
    """Returns the last heartbeat of each rank of a run folder, the oldest first. Unreadable files are left out."""
    heartbeats: list[tuple[float, Beat]] = []
    for path in sorted((folder / HEARTBEATS_FOLDER).glob("rank-*.json")):
        with contextlib.suppress(OSError, TypeError):  # missing or unknown fields
            heartbeats.append((path.stat().st_mtime, Beat(**read_json(path))))
    newest = max((written_at for written_at, _ in heartbeats), default=0.0)
    # A file without alive_at was written by an earlier version; `at` is compared with the clock of the file server.
    aged = [replace(heartbeat, age_s=max(0.0, newest - written_at + (heartbeat.alive_at or written_at) - heartbeat.at))
            for written_at, heartbeat in heartbeats]
    return sorted(aged, key=lambda heartbeat: -heartbeat.age_s)


def describe(latest: Beat) -> str:
    """Returns one line about the last heartbeat of a rank, with its age, or with the error that ended the rank."""
    if latest.error:
        return f"rank {latest.rank} on {latest.host}: failed at step {latest.step}: {first_line(latest.error)}"
    return f"rank {latest.rank} on {latest.host}: {latest.phase} at step {latest.step}, for {latest.age_s:.0f} s"


def first_line(text: str) -> str:
    """Returns the first line of a text that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def slowest_rank(heartbeats: list[Beat]) -> Beat:
    """Returns the heartbeat of the rank with the fewest steps; of several, the oldest one."""
    return min(heartbeats, key=lambda heartbeat: (heartbeat.step, -heartbeat.age_s))


def describe_slowest_rank(heartbeats: list[Beat]) -> str:
    """Returns a clause that names the rank which the others wait for, its step, phase and age."""
    slowest = slowest_rank(heartbeats)
    return (f"rank {slowest.rank} on {slowest.host} is late, at step {slowest.step} in phase '{slowest.phase}' for "
            f"{slowest.age_s:.0f} s")
