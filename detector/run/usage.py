"""usage.json in the run folder: what each start of the run has used, and the cost of the run that follows from it.

An entry is rewritten at each logged step, save and evaluation, so that a kill costs at most the record of one interval.
Time in a queue is not counted. Steps that are trained again after a kill count as lost to restarts.
"""

import contextlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Iterator

from detector.run.environment import RankInfo
from detector.run.files import USAGE_FILE, read_json, write_whole
from detector.run.heartbeat import heartbeat_file

J_PER_KWH = 3.6e6
SHARES = {  # of the time of a run, each with its text in the log
    "steps": "steps", "waiting": "waiting for data", "evaluation": "evaluation", "saving": "saving",
    "restarts": "lost to restarts", "start_up": "start-up"}


@dataclass(frozen=True)
class Start:
    """Time and energy that one start of a run has used up to `until`; an entry of usage.json."""

    at: float                # when it began, seconds since 1970
    until: float             # when this entry was written
    ranks: int
    gpus: int                # 0: trained on CPUs
    device: str              # name of the GPU, or "cpu"
    cores: int               # CPU cores that any rank may use
    global_batch: int        # images of a step
    first_step: int          # completed steps when it began
    step: int                # completed steps at `until`
    seconds: dict[str, float]       # in each phase: start_up, steps, evaluation, saving
    waiting_s: float = 0.0          # of the steps: until the slowest loader of all ranks had its batch
    energy_j: float | None = None   # of its GPUs; on CPUs of the processor packages; None: unknown
    ended: bool = False             # it finished or stopped; False while it runs, and after a kill
    unseen_s: float = 0.0           # from `until` to the last heartbeat before a kill


@dataclass(frozen=True)
class Cost:
    """The cost of a run so far, over all its starts."""

    hours: float                # without the time in a queue
    gpu_hours: float | None     # None: trained on CPUs only
    cpu_hours: float | None     # core-hours of starts without a GPU; None: trained on GPUs only
    kwh: float | None           # see Start.energy_j; None: not known of every start
    devices: tuple[str, ...]    # of each kind of start, such as "8 x NVIDIA H100"
    images: int                 # trained on; those of steps that were trained again count once
    images_per_s: float         # of the whole time
    restarts: int
    shares: dict[str, float]    # of the time, for each key of SHARES; their sum is 1

    def as_json(self) -> dict:
        """Returns the fields for a JSON file; what is not known is left out."""
        return {name: value for name, value in {**asdict(self), "devices": list(self.devices)}.items()
                if value is not None}

    def numbers(self) -> dict[str, float]:
        """Returns hours, energy, speed and shares by name, for curves; what is not known is left out."""
        numbers = {name: value for name, value in self.as_json().items() if isinstance(value, (int, float))}
        return numbers | {f"share_{name}": share for name, share in self.shares.items()}

    def short(self) -> str:
        """Returns the cost in a few characters: 3.2 GPU-h, 2.1 kWh."""
        parts = [(self.gpu_hours, "GPU-h"), (self.cpu_hours, "CPU-h"), (self.kwh, "kWh")]
        return ", ".join(f"{format_amount(value)} {unit}" for value, unit in parts if value is not None)

    def describe(self) -> str:
        """Returns the cost as one sentence, for the log."""
        parts = [(self.gpu_hours, "GPU-hours"), (self.cpu_hours, "CPU-hours")]
        used = " and ".join(f"{format_amount(value)} {unit}" for value, unit in parts if value is not None)
        kwh = f", {format_amount(self.kwh)} kWh" if self.kwh is not None else ""
        texts = SHARES | {"restarts": f"lost to {self.restarts} restart{'s' if self.restarts > 1 else ''}"}
        shares = ", ".join(f"{share:.0%} {texts[name]}" for name, share in self.shares.items() if share >= 0.005)
        return (f"{used} ({' and '.join(self.devices)} for {format_amount(self.hours)} h){kwh}, "
                f"{format_amount(self.images_per_s)} images/s over all; of the time {shares}")


def format_amount(value: float) -> str:
    """Returns a number that is not negative with three digits, at most three of them after the point."""
    if 0 < value < 0.001:
        return "<0.001"
    return f"{value:.0f}" if value >= 100 else f"{round(value, 3):.3g}"


def read_cost(run: Path) -> Cost | None:
    """Returns what a run has cost so far; None if there is no record, as of a run that did no step yet."""
    return cost_of(read_starts(run))


def read_starts(run: Path) -> list[Start]:
    """Returns the entries of usage.json, the oldest first; an empty list if there is none that can be read."""
    try:
        return [Start(**entry) for entry in read_json(run / USAGE_FILE)["starts"]]
    except (KeyError, TypeError):  # no file, or fields that are not known here
        return []


def cost_of(starts: list[Start]) -> Cost | None:
    """Returns what these starts of one run have cost together, the oldest first; None if there is none."""
    seconds = sum(map(total_s, starts))
    if not seconds:
        return None
    kept = [kept_fraction(start, starts[index + 1:]) for index, start in enumerate(starts)]
    times = dict.fromkeys(SHARES, 0.0)
    for index, start in enumerate(starts):
        for name, phase_s in divided_s(start, kept[index], is_first=index == 0).items():
            times[name] += phase_s
    energies = [start.energy_j for start in starts]
    images = sum(round(fraction * (start.step - start.first_step)) * start.global_batch
                 for fraction, start in zip(kept, starts))
    devices = [f"{start.gpus} x {start.device}" if start.gpus else f"{start.cores} CPU core{'s' * (start.cores > 1)}"
               for start in starts]
    return Cost(
        seconds / 3600, hours_of([(start.gpus, total_s(start)) for start in starts]),
        hours_of([(0 if start.gpus else start.cores, total_s(start)) for start in starts]),
        None if None in energies else sum(energies) / J_PER_KWH, tuple(dict.fromkeys(devices)), images,
        images / seconds, len(starts) - 1, {name: phase_s / seconds for name, phase_s in times.items()})


def hours_of(used: list[tuple[int, float]]) -> float | None:
    """Returns the sum of count times seconds, in hours; None if all counts are 0."""
    return sum(count * seconds for count, seconds in used) / 3600 if any(count for count, _ in used) else None


def total_s(start: Start) -> float:
    return sum(start.seconds.values()) + start.unseen_s


def kept_fraction(start: Start, later: list[Start]) -> float:
    """Returns the fraction of the steps of this start that no later one trained again."""
    if start.step == start.first_step:
        return 0.0 if later else 1.0
    last_kept = min([start.step, *(other.first_step for other in later)])
    return max(last_kept - start.first_step, 0) / (start.step - start.first_step)


def divided_s(start: Start, kept: float, is_first: bool) -> dict[str, float]:
    """Returns the seconds of one start for each key of SHARES. Each of its steps counts as equally long.

    Args:
        kept: see kept_fraction.
        is_first: of the run; the start-up of a later one is lost to restarts.
    """
    phase_s = {"start_up": 0.0, "steps": 0.0, "evaluation": 0.0, "saving": 0.0} | start.seconds
    waiting_s, lost_s = min(start.waiting_s, phase_s["steps"]), (1 - kept) * phase_s["steps"] + start.unseen_s
    return {"steps": kept * (phase_s["steps"] - waiting_s), "waiting": kept * waiting_s,
            "evaluation": phase_s["evaluation"], "saving": phase_s["saving"],
            "restarts": lost_s + (0.0 if is_first else phase_s["start_up"]),
            "start_up": phase_s["start_up"] if is_first else 0.0}


def with_unseen_time(start: Start, run: Path) -> Start:
    """Returns the entry of a start that was killed, with the time from the entry to the last heartbeat of rank 0."""
    heartbeat = read_json(heartbeat_file(run, 0))
    if start.ended or heartbeat.get("phase") == "start-up" or heartbeat.get("step", 0) < max(start.step, 1):
        return start  # a heartbeat of step 0 may be that of a later start, which was killed before its entry was made
    seen_at = max(heartbeat.get("at", 0.0), heartbeat.get("alive_at", 0.0))
    return replace(start, unseen_s=max(seen_at - start.until, 0.0))


class PhaseClock:
    """Adds up the seconds that a process spends in each phase."""

    def __init__(self, phase: str, began_at: float | None = None):
        """Begins the first phase, now or at a time of time.monotonic()."""
        self.phase, self.since = phase, time.monotonic() if began_at is None else began_at
        self.finished: dict[str, float] = {}

    def enter(self, phase: str) -> None:
        """Ends the current phase and begins another."""
        self.finished = self.seconds()
        self.phase, self.since = phase, time.monotonic()

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Returns a context that is another phase; the one before goes on afterwards."""
        outer = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(outer)

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each phase until now."""
        current_s = self.finished.get(self.phase, 0.0) + time.monotonic() - self.since
        return self.finished | {self.phase: current_s}


class UsageRecord:
    """Keeps the entry of this start in usage.json up to date. Only rank 0 writes.

    Construct it before the heartbeat of this start replaces that of an earlier one.

    Args:
        began_at: when this start began, in seconds of time.monotonic(); None: now.

    Attributes:
        clock: the phases of this start. Its first one is "start_up".
    """

    def __init__(self, folder: Path, is_main: bool, began_at: float | None = None):
        self.folder, self.is_main = folder, is_main
        self.clock = PhaseClock("start_up", began_at)
        starts = read_starts(folder) if is_main else []
        self.earlier = [*starts[:-1], *(with_unseen_time(start, folder) for start in starts[-1:])]
        self.current: Start | None = None

    def begin(self, ranks: list[RankInfo], step: int, global_batch: int) -> None:
        """Begins the entry of this start, which resumes after `step`; writes nothing yet."""
        gpus = {(info.host, info.gpu) for info in ranks if info.gpu}
        cores = {(info.host, core) for info in ranks for core in info.cores}
        seconds, now = self.clock.seconds(), time.time()
        self.current = Start(now - sum(seconds.values()), now, len(ranks), len(gpus), ranks[0].device, len(cores),
                             global_batch, step, step, seconds)

    def write(self, **changes) -> Cost:
        """Replaces fields of this start's entry, writes usage.json, and returns the cost of the run up to now.

        If the file cannot be written, training continues without it.
        """
        self.current = replace(self.current, until=time.time(), seconds=self.clock.seconds(), **changes)
        starts = [*self.earlier, self.current]
        if self.is_main:
            text = json.dumps({"starts": [asdict(start) for start in starts]}, indent=1)
            with contextlib.suppress(OSError):
                write_whole(self.folder / USAGE_FILE, text + "\n", flush=self.current.ended)
        return cost_of(starts)
