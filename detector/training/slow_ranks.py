"""Finds the rank, or the host, that the others wait for, if it is the same one for long."""

import statistics
import time
from collections import Counter, deque

from detector.run.environment import RankInfo

WINDOW = 20            # logged steps that are looked at
SAME = 0.8             # in this fraction of them the slowest is the same
EXCESS = 0.1           # and as the median of them it takes this fraction longer than the median rank
REPEAT_S = 3600.0      # seconds until the same message comes again


def spread(own_s: list[float]) -> tuple[int, float]:
    """Returns the slowest rank, and the fraction by which its time exceeds that of the median rank.

    Args:
        own_s: of each rank, the seconds of its own work, waiting for others excluded.
    """
    slowest = max(range(len(own_s)), key=own_s.__getitem__)
    median_s = statistics.median_low(own_s)  # of two ranks the faster one
    return slowest, own_s[slowest] / median_s - 1 if median_s > 0 else 0.0


class SlowRankWatch:
    """Watches the slowest rank of each logged step."""

    def __init__(self, ranks: list[RankInfo]):
        self.hosts = [info.host for info in ranks]
        self.window: deque[tuple[int, int, float]] = deque(maxlen=WINDOW)  # step, slowest rank, excess
        self.reported_at: dict[str, float] = {}

    def observe(self, step: int, slowest: int, excess: float) -> list[str]:
        """Adds a logged step; returns a message if one rank or host has been the slowest for long, else none."""
        self.window.append((step, slowest, excess))
        culprit = self._culprit() if len(self.window) == WINDOW else ""
        median = statistics.median(excess for _, _, excess in self.window)
        now = time.monotonic()
        if not culprit or median <= EXCESS or now - self.reported_at.get(culprit, -REPEAT_S) < REPEAT_S:
            return []
        self.reported_at[culprit] = now
        return [f"{culprit} slower than the median rank by {median:.0%}, at least since step {self.window[0][0]}, and "
                "all others wait (compared: loading data and the forward pass, in which no rank waits for another)"]

    def _culprit(self) -> str:
        """Returns the subject of a message, with its verb; "" if the slowest changes, or all are on one host."""
        rank, count = Counter(slowest for _, slowest, _ in self.window).most_common(1)[0]
        if count >= SAME * WINDOW:
            return f"rank {rank} on {self.hosts[rank]} is"
        host, count = Counter(self.hosts[slowest] for _, slowest, _ in self.window).most_common(1)[0]
        return f"ranks on {host} are" if count >= SAME * WINDOW and len(set(self.hosts)) > 1 else ""
