"""heartbeats/ in the run folder: each rank's step and phase, and the Python stacks of ranks that hang.

rank-00003.json is rewritten within a second of each change of step or phase. rank-00003.stacks.txt holds the Python
stacks of all threads of the rank, written when the rank made no progress for `run.hang_timeout_minutes`. Rank 0 also
logs a message then that names the slowest rank.
"""

import contextlib
import faulthandler
import json
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Callable, TextIO

from detector.distributed import rank_info
from detector.run.files import HEARTBEATS_FOLDER, read_json, write_whole

INTERVAL_S = 1.0  # between two writes of a rank: a network disk serves many ranks


@dataclass(frozen=True)
class Beat:
    """The last heartbeat of one rank; the content of its JSON file."""

    rank: int
    host: str
    phase: str  # such as "step" or "loading data"
    step: int
    at: float   # when this phase of this step began, seconds since 1970


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
        self.stacks: TextIO | None = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._write_until_end, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self.thread.start()
        return self

    def __exit__(self, *_error) -> None:
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

    def open(self, world_size: int) -> None:
        """Makes the folder, which starts the writing, and removes the files of ranks that no longer exist."""
        folder = self.folder / HEARTBEATS_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        if self.current.rank == 0:
            for path in folder.glob("rank-*"):
                if path.name >= f"rank-{world_size:05d}":
                    path.unlink(missing_ok=True)

    def _write_until_end(self) -> None:
        self._write()
        while not self.ended.wait(INTERVAL_S):
            self._write()
        self._write()

    def _write(self) -> None:
        """Writes the heartbeat if it has changed; warns once if it has not changed for too long."""
        latest = self.current
        if latest != self.written and (self.folder / HEARTBEATS_FOLDER).is_dir():
            with contextlib.suppress(OSError):  # a full disk is reported where a file is needed
                self.stacks = self.stacks or open(stacks_file(self.folder, latest.rank), "w", encoding="utf-8")
                write_whole(heartbeat_file(self.folder, latest.rank), json.dumps(asdict(latest)) + "\n", flush=False)
        if latest != self.written and self.stalled_s:
            # A timer in C writes the stacks, also if another thread holds the interpreter lock.
            faulthandler.dump_traceback_later(self.stalled_s, file=self.stacks or sys.stderr)
        self.written = latest
        if self.stalled_s and time.time() - latest.at > self.stalled_s + INTERVAL_S and self.warned != latest:
            self.warned = latest
            if latest.rank == 0:
                slowest = describe_slowest_rank(read_heartbeats(self.folder) or [latest])
                stacks = self.folder / HEARTBEATS_FOLDER / "rank-*.stacks.txt"
                self.message(f"no progress for {time.time() - latest.at:.0f} s (run.hang_timeout_minutes): {slowest}. "
                             f"The Python stacks of all ranks are in {stacks}")


def heartbeat_file(folder: Path, rank: int) -> Path:
    """Returns the heartbeat file of a rank in a run folder."""
    return folder / HEARTBEATS_FOLDER / f"rank-{rank:05d}.json"


def stacks_file(folder: Path, rank: int) -> Path:
    """Returns the file for the Python stacks of a rank in a run folder."""
    return folder / HEARTBEATS_FOLDER / f"rank-{rank:05d}.stacks.txt"


def read_heartbeats(folder: Path) -> list[Beat]:
    """Returns the last heartbeat of each rank of a run folder, the oldest first. Unreadable files are left out."""
    beats = []
    for path in sorted((folder / HEARTBEATS_FOLDER).glob("rank-*.json")):
        with contextlib.suppress(TypeError):  # missing or unknown fields
            beats.append(Beat(**read_json(path)))
    return sorted(beats, key=lambda entry: entry.at)


def describe(latest: Beat) -> str:
    """Returns one line about the last heartbeat of a rank, with its age."""
    return (f"rank {latest.rank} on {latest.host}: {latest.phase} at step {latest.step}, last seen "
            f"{time.time() - latest.at:.0f} s ago")


def slowest_rank(beats: list[Beat]) -> Beat:
    """Returns the heartbeat of the rank with the fewest steps; of several, the oldest one."""
    return min(beats, key=lambda entry: (entry.step, entry.at))


def describe_slowest_rank(beats: list[Beat], now: float | None = None) -> str:
    """Returns a clause that names the rank which the others wait for, its step, phase and age."""
    slowest = slowest_rank(beats)
    return (f"rank {slowest.rank} on {slowest.host} is late, last seen at step {slowest.step} in phase "
            f"'{slowest.phase}', {(now or time.time()) - slowest.at:.0f} s ago")
