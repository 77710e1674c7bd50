"""Each rank leaves its step, its phase and the time of both in the run folder; when nothing moves, it says who is late.

RUN/heartbeats/rank-00003.json is at most a second old while the rank moves. rank-00003.stacks.txt appears beside it
when the rank has not moved for `run.hang_timeout_minutes`: the Python stacks of all its threads.
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
from detector.run.files import write_whole

EVERY_S = 1.0  # a network disk stands this much from each of many ranks


@dataclass(frozen=True)
class Beat:
    rank: int
    host: str
    phase: str
    step: int
    at: float  # when this phase of this step began, seconds since 1970


class Heartbeat:
    """A context. `beat` is cheap, and may be called at every step; a thread writes and watches."""

    def __init__(self, folder: Path, stalled_s: float):
        self.folder, self.stalled_s = folder / "heartbeats", stalled_s
        self.say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)
        self.now = Beat(rank_info.rank(), socket.gethostname(), "start-up", 0, time.time())
        self.written = self.warned = replace(self.now, at=0.0)
        self.stacks: TextIO | None = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

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
                if not (path := stacks_file(self.folder, self.now.rank)).stat().st_size:
                    path.unlink()

    def beat(self, phase: str, step: int | None = None) -> None:
        """The rank has come to this phase; the step is the last one's if none is given."""
        self.now = replace(self.now, phase=phase, step=self.now.step if step is None else step, at=time.time())

    def open(self, world: int) -> None:
        """The run folder may be written to from here on; what an earlier start on more ranks left there goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.now.rank == 0:
            for path in self.folder.glob("rank-*"):
                if path.name >= f"rank-{world:05d}":
                    path.unlink(missing_ok=True)

    def _watch(self) -> None:
        self._tick()
        while not self.ended.wait(EVERY_S):
            self._tick()
        self._tick()

    def _tick(self) -> None:
        now = self.now
        if now != self.written and self.folder.is_dir():
            with contextlib.suppress(OSError):  # a full disk is told of by whoever needs it
                self.stacks = self.stacks or open(stacks_file(self.folder, now.rank), "w", encoding="utf-8")
                write_whole(heartbeat_file(self.folder, now.rank), json.dumps(asdict(now)) + "\n", flush=False)
        if now != self.written and self.stalled_s:
            # A thread of C's, which dumps also where this one does not come to run.
            faulthandler.dump_traceback_later(self.stalled_s, file=self.stacks or sys.stderr)
        self.written = now
        if self.stalled_s and time.time() - now.at > self.stalled_s + EVERY_S and self.warned != now:
            self.warned = now
            if now.rank == 0:
                self.say(f"no progress for {time.time() - now.at:.0f} s (run.hang_timeout_minutes): "
                         f"{late(read_beats(self.folder.parent, rank_info.world_size()) or [now])}. The Python stacks of "
                         f"all ranks are in {self.folder}/rank-*.stacks.txt")


def heartbeat_file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05d}.json"


def stacks_file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05d}.stacks.txt"


def read_beats(run: Path, world: int) -> list[Beat]:
    """What the ranks of a run left last; a rank that has left nothing is not among them."""
    found = []
    for rank in range(world):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Beat(**json.loads(heartbeat_file(run / "heartbeats", rank).read_text(encoding="utf-8"))))
    return found


def latest_of_all(beats: list[Beat]) -> Beat:
    """The rank that the others wait for: fewest steps, and of those the one that has not moved for longest."""
    return min(beats, key=lambda beat: (beat.step, beat.at))


def late(beats: list[Beat], now: float | None = None) -> str:
    """Who holds the others up, in words."""
    beat = latest_of_all(beats)
    return (f"rank {beat.rank} on {beat.host} is late, last seen at step {beat.step} in phase '{beat.phase}', "
            f"{(now or time.time()) - beat.at:.0f} s ago")
