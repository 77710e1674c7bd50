"""Reports a hang of a run from outside: which rank is late, on which host and in which phase.

The detector reports the same by itself, unless rank 0 is the rank that hangs.
"""

import sys
import time
from pathlib import Path

from detector.config.schema import Config
from detector.run.heartbeat import Beat, describe, read_heartbeats

EVERY_S = 5.0     # between two reads of the heartbeats
MARGIN_S = 10.0   # longer than the detector's own timeout, so that its report comes first
MAX_RANKS = 8     # ranks that a report lists besides the late one


def hang_timeout_s(config: Config) -> float:
    """Returns the seconds without progress that are reported as a hang; infinite if run.hang_timeout_minutes is 0."""
    minutes = config.run.hang_timeout_minutes
    return 60 * minutes + MARGIN_S if minutes else float("inf")


class HangWatch:
    """Called regularly while a run is going on; prints each hang once."""

    def __init__(self, run: Path, timeout_s: float):
        self.run, self.timeout_s = run, timeout_s
        self.started_at = time.time()  # heartbeats of an earlier start are older
        self.checked_at = 0.0
        self.reported_at = 0.0         # time of the newest heartbeat of the hang that was reported last

    def __call__(self) -> None:
        if time.monotonic() - self.checked_at < EVERY_S:
            return
        self.checked_at = time.monotonic()
        heartbeats = [heartbeat for heartbeat in read_heartbeats(self.run) if heartbeat.at >= self.started_at]
        newest = max((heartbeat.at for heartbeat in heartbeats), default=0.0)
        if heartbeats and time.time() - newest > self.timeout_s and newest != self.reported_at:
            self.reported_at = newest
            print(describe_hang(heartbeats), file=sys.stderr, flush=True)


def describe_hang(heartbeats: list[Beat]) -> str:
    """Returns the report of a hang, the late rank first: fewest steps, then the oldest heartbeat."""
    late, *others = sorted(heartbeats, key=lambda heartbeat: (heartbeat.step, heartbeat.at))
    idle_s = time.time() - max(heartbeat.at for heartbeat in heartbeats)
    lines = [f"no progress for {idle_s:.0f} s. Late is {describe(late)}"]
    lines += [f"  {describe(heartbeat)}" for heartbeat in others[:MAX_RANKS]]
    if len(others) > MAX_RANKS:
        lines.append(f"  and {len(others) - MAX_RANKS} more")
    return "\n".join([*lines, "The Python stacks of all ranks are in heartbeats/rank-*.stacks.txt of the run folder"])
