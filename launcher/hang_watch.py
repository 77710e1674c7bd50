"""Reports a hang of a run from outside: which rank is late, on which host and in which phase.

The detector reports the same by itself, unless rank 0 is the rank that hangs.
"""

import sys
import time
from pathlib import Path

from detector.config.schema import Config
from detector.run.heartbeat import Beat, describe, read_heartbeats, slowest_rank

EVERY_S = 5.0     # between two reads of the heartbeats
MARGIN_S = 10.0   # longer than the detector's own timeout, so that its report comes first
MAX_RANKS = 8     # ranks that a report lists besides the late one


def hang_timeout_s(config: Config) -> float:
    """Returns the seconds without progress that are reported as a hang; infinite if run.hang_timeout_minutes is 0."""
    minutes = config.run.hang_timeout_minutes
    return 60 * minutes + MARGIN_S if minutes else float("inf")


class HangWatch:
    """Called regularly while a run is going on; prints each hang once.

    Progress is a change of the heartbeats between two calls, and time is that of this process: the clocks of the hosts
    do not matter, and neither do the heartbeats of an earlier start.
    """

    def __init__(self, run: Path, timeout_s: float):
        self.run, self.timeout_s = run, timeout_s
        self.earlier = self.latest = set(read_heartbeats(run))
        self.checked_at = 0.0
        self.progress_at = time.monotonic()
        self.reported = False  # the hang that began at progress_at

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self.checked_at < EVERY_S:
            return
        self.checked_at = now
        heartbeats = [heartbeat for heartbeat in read_heartbeats(self.run) if heartbeat not in self.earlier]
        if set(heartbeats) != self.latest:
            self.latest, self.progress_at, self.reported = set(heartbeats), now, False
        idle_s = now - self.progress_at
        if heartbeats and idle_s > self.timeout_s and not self.reported:
            self.reported = True
            print(describe_hang(heartbeats, idle_s), file=sys.stderr, flush=True)


def describe_hang(heartbeats: list[Beat], idle_s: float) -> str:
    """Returns the report of a hang, the late rank first: fewest steps, then the oldest heartbeat.

    Args:
        idle_s: seconds without progress.
    """
    late = slowest_rank(heartbeats)
    others = [heartbeat for heartbeat in heartbeats if heartbeat != late]
    lines = [f"no progress for {idle_s:.0f} s. Late is {describe(late)}"]
    lines += [f"  {describe(heartbeat)}" for heartbeat in others[:MAX_RANKS]]
    if len(others) > MAX_RANKS:
        lines.append(f"  and {len(others) - MAX_RANKS} more")
    return "\n".join([*lines, "The Python stacks of all ranks are in heartbeats/rank-*.stacks.txt of the run folder"])
