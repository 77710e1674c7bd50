"""The meter of a run: speed of the steps, use of the machine, slow ranks, and the record of what the run costs."""

import math
import time
from contextlib import AbstractContextManager
from dataclasses import asdict

import numpy as np
import torch

from detector.data.dataset import unreadable_messages
from detector.data.synced_batches import Fetched
from detector.distributed import collectives, rank_info
from detector.evaluation.results import write_cost
from detector.loggers.run_log import RunLog
from detector.run.environment import RankInfo, peak_memory_gib
from detector.run.usage import Cost, UsageRecord
from detector.training.sensors import CpuTimer, EnergyMeter, GpuReading, open_gpu_sensor
from detector.training.slow_ranks import SlowRankWatch, spread


class ForwardTimer:
    """A context that measures forward passes; on a GPU by events, without waiting for the device."""

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self.events: list[torch.cuda.Event] = []  # beginning and end of each pass
        self.elapsed_s = self.began_at = 0.0

    def __enter__(self) -> "ForwardTimer":
        self._mark()
        self.began_at = time.perf_counter()
        return self

    def __exit__(self, *_error) -> None:
        self._mark()
        self.elapsed_s += time.perf_counter() - self.began_at

    def take_s(self) -> float:
        """Returns the seconds since the last call. On a GPU all passes must be over, as after reading a loss."""
        gpu_s = sum(begin.elapsed_time(end) for begin, end in zip(self.events[::2], self.events[1::2])) / 1000
        elapsed_s, self.elapsed_s, self.events = gpu_s if self.on_gpu else self.elapsed_s, 0.0, []
        return elapsed_s

    def _mark(self) -> None:
        if self.on_gpu:
            self.events.append(torch.cuda.Event(enable_timing=True))
            self.events[-1].record()


class RunMeter:
    """Measures the steps of this rank and collects unreadable images; keeps the record of what the run costs.

    The ranks exchange their measurements in `measure` and `finish` only: a step that is not logged has no collective
    for them.

    Args:
        usage: the record; the entry of this start begins here.
        ranks: where each rank runs.
        step: completed steps of the run.
    """

    def __init__(self, usage: UsageRecord, ranks: list[RankInfo], device: torch.device, step: int, global_batch: int):
        self.usage, self.ranks, self.device, self.global_batch = usage, ranks, device, global_batch
        self.is_first_on_device = first_on_device(ranks, rank_info.rank())
        self.sensor = open_gpu_sensor(device) if self.is_first_on_device else None
        self.energy = EnergyMeter(self._read_gpu())
        self.cpu, self.forward, self.slow_ranks = CpuTimer(), ForwardTimer(device), SlowRankWatch(ranks)
        self.unreadable: list[str] = []
        self.is_used = False  # this start trained or evaluated, so that it is a part of the record
        self.totals = {"waiting_s": 0.0, "energy_j": None}  # of this start: fields of its entry
        self.first_step, self.wait_s, self.steps_s, self.measured_at = step, 0.0, 0.0, time.monotonic()
        usage.begin(ranks, step, global_batch)

    def during(self, phase: str) -> AbstractContextManager[None]:
        """Returns a context whose time counts as "evaluation" or "saving", not as that of the steps."""
        return self.usage.clock.during(phase)

    def add(self, fetched: Fetched) -> None:
        """Counts the batch of a step that begins now. Waiting for the first one is a part of the start-up."""
        if self.usage.clock.phase == "start_up":
            self.usage.clock.enter("steps")
        else:
            self.wait_s += fetched.wait_s
        for _, targets in fetched.batches:
            self.unreadable += unreadable_messages(targets)

    def measure(self, step: int) -> tuple[dict[str, float], list[str]]:
        """Returns values for the log by name, and messages about unreadable images and a slow rank. Collective.

        Both are of the time since the last call; images_per_s and data_wait without evaluating and saving.
        """
        steps, steps_s, now = step - self.first_step, self.usage.clock.seconds()["steps"], time.monotonic()
        elapsed_s, wall_s = steps_s - self.steps_s, now - self.measured_at
        readings = self._exchange(steps)
        self.first_step, self.steps_s, self.measured_at = step, steps_s, now
        cores = len({(info.host, core) for info in self.ranks for core in info.cores})
        values = {"images_per_s": steps * self.global_batch / elapsed_s,
                  "data_wait": min(float(readings["wait_s"].max()) / elapsed_s, 1.0),
                  "cpu_share": float(readings["cpu_s"].sum()) / (wall_s * cores), **gpu_values(readings),
                  "memory_gib": peak_memory_gib(self.device)}
        unreadable, self.unreadable = collectives.all_gather_texts(self.unreadable), []
        messages = [f"unreadable image, replaced by a grey one: {message}" for message in unreadable]
        if len(self.ranks) > 1:
            slowest, excess = spread(readings["own_s"].tolist())
            values |= {"rank_spread": excess, "slowest_rank": slowest}
            messages += self.slow_ranks.observe(step, slowest, excess)
        return values, messages

    def write(self, step: int, ended: bool = False) -> Cost:
        """Writes the record, on rank 0, and returns the cost of the run."""
        self.is_used = True
        return self.usage.write(step=step, ended=ended, **self.totals)

    def finish(self, step: int) -> Cost | None:
        """Writes the record of a start that ends, and returns the cost; None if the start did nothing. Collective."""
        if not self.is_used:
            return None
        self._exchange(step - self.first_step)
        return self.write(step, ended=True)

    def _exchange(self, steps: int) -> dict[str, np.ndarray]:
        """Returns the measurements since the last call, by name, float64 [ranks] each. Collective.

        own_s: seconds of a step in which no other rank is waited for: waiting for the loader, and the forward pass.
        wait_s: waiting for the loader. cpu_s: CPU time, with that of the workers. energy_j: since the start. The others
        are fields of GpuReading. Of a device that several ranks share, the first one tells energy and reading.
        """
        gpu = self._read_gpu()
        row = {"own_s": (self.wait_s + self.forward.take_s()) / max(steps, 1), "wait_s": self.wait_s,
               "cpu_s": self.cpu.take_s(), "total_j": self.energy.read(gpu) if self.is_first_on_device else 0.0,
               **asdict(gpu or GpuReading())}
        self.wait_s = 0.0
        readings = dict(zip(row, collectives.all_gather_row(list(row.values())).T))
        total_j = float(readings["total_j"].sum())
        self.totals = {"waiting_s": self.totals["waiting_s"] + float(readings["wait_s"].max()),
                       "energy_j": None if math.isnan(total_j) else total_j}
        return readings

    def _read_gpu(self) -> GpuReading | None:
        """Returns a reading of this rank's GPU, which may know nothing; None on a CPU."""
        if self.device.type != "cuda":
            return None
        return self.sensor.read() if self.sensor else GpuReading()


def report_cost(meter: RunMeter, step: int, run_log: RunLog) -> None:
    """Logs the cost of a run that finishes or stops, and writes it to results.json. Collective."""
    cost = meter.finish(step)
    if cost:
        run_log.cost(step, cost)
        run_log.message(f"cost: {cost.describe()}")
        collectives.run_on_main(lambda: write_cost(run_log.folder, cost))


def first_on_device(ranks: list[RankInfo], rank: int) -> bool:
    """Returns whether no lower rank has the same GPU or, on CPUs, is on the same host."""
    place = ranks[rank].host, ranks[rank].gpu
    return all((info.host, info.gpu) != place for info in ranks[:rank])


def gpu_values(readings: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns what is known of the GPUs: mean utilization, largest memory in use, power of all of them together."""
    known = {name: values[~np.isnan(values)] for name, values in readings.items()}
    reduced = {"gpu_utilization": (known["utilization"], np.mean), "gpu_memory_gib": (known["memory_gib"], np.max),
               "gpu_power_w": (known["power_w"], np.sum)}
    return {name: float(reduce(values)) for name, (values, reduce) in reduced.items() if len(values)}
