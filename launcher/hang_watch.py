"""While a run goes on: does every rank still leave signs of life? If not, who is late."""

import sys
import time
from pathlib import Path

from detector.config.schema import Config
from launcher.run_info import heartbeats, seen

EVERY_S = 5.0  # between two looks: one small file for each rank
GRACE_S = 10.0
SHOWN = 8      # ranks that are named


def patience_s(config: Config) -> float:
    """A bit longer than the detector's own: it says the same by itself, unless rank 0 is what stands still."""
    return 60 * config.run.hang_timeout_minutes + GRACE_S if config.run.hang_timeout_minutes else float("inf")


class Watch:
    """Called now and then; says once for each standstill which rank is late, on which node and in which phase."""

    def __init__(self, run: Path, patience_s: float):
        self.run, self.patience_s = run, patience_s
        self.started_at, self.looked_at, self.told = time.time(), 0.0, 0.0

    def __call__(self) -> None:
        if time.monotonic() - self.looked_at < EVERY_S:
            return
        self.looked_at = time.monotonic()
        beats = [beat for beat in heartbeats(self.run) if beat["at"] >= self.started_at]
        newest = max((beat["at"] for beat in beats), default=0.0)
        if beats and time.time() - newest > self.patience_s and newest != self.told:
            self.told = newest
            print(standstill(beats), file=sys.stderr, flush=True)


def standstill(beats: list[dict]) -> str:
    """The late rank first: the others have gone on and wait for it."""
    late, *others = sorted(beats, key=lambda beat: (beat["step"], beat["at"]))
    lines = [f"no progress for {time.time() - max(beat['at'] for beat in beats):.0f} s. Late is {seen(late)}"]
    lines += [f"  {seen(beat)}" for beat in others[:SHOWN]]
    if len(others) > SHOWN:
        lines.append(f"  and {len(others) - SHOWN} more")
    return "\n".join([*lines, "The Python stacks of all ranks are in heartbeats/rank-*.stacks.txt of the run folder"])
