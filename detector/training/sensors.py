"""Sensors of the machine that a rank runs on: its GPU (NVML), the energy of the processors (RAPL), CPU time.

Values that the machine does not tell are NaN. Reading takes well under a millisecond, except for the first time.
"""

import contextlib
import math
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Callable

import torch

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class GpuReading:
    """One reading of a GPU, of all processes on it."""

    utilization: float = math.nan  # fraction of the last moment (up to a second) in which a kernel ran
    memory_gib: float = math.nan   # in use
    power_w: float = math.nan
    energy_j: float = math.nan     # since the driver was loaded


class GpuSensor:
    """Reads one GPU through NVML (the package nvidia-ml-py)."""

    def __init__(self, nvml: ModuleType, uuid: str):
        """Finds the GPU by its UUID: NVML counts GPUs that CUDA_VISIBLE_DEVICES hides. Raises nvml.NVMLError."""
        self.nvml = nvml
        nvml.nvmlInit()
        self.handle = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")

    def read(self) -> GpuReading:
        nvml, handle = self.nvml, self.handle
        return GpuReading(
            self._value(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
            self._value(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**30),
            self._value(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            self._value(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000))

    def _value(self, read: Callable[[], float]) -> float:
        try:
            return read()
        except self.nvml.NVMLError:  # not supported by this GPU, or not permitted
            return math.nan


def open_gpu_sensor(device: torch.device) -> GpuSensor | None:
    """Returns the sensor of a GPU; None for a CPU, and where NVML or its package is missing."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return GpuSensor(pynvml, str(torch.cuda.get_device_properties(device).uuid))
    except pynvml.NVMLError:
        return None


class EnergyMeter:
    """Measures the energy of one GPU, or of the processors of this machine, since the meter was made.

    Where a GPU has no counter of energy, its power is taken as constant between two readings.
    """

    def __init__(self, gpu: GpuReading | None, powercap: Path = POWERCAP):
        self.powercap = powercap
        self.packages = read_packages(powercap) if gpu is None else {}
        self.gpu, self.read_at = gpu, time.monotonic()
        self.energy_j = 0.0 if gpu is not None or self.packages else math.nan

    def read(self, gpu: GpuReading | None) -> float:
        """Returns the joules so far; NaN if they are not known. `gpu`: the reading of now; None on a CPU."""
        now, packages = time.monotonic(), read_packages(self.powercap) if self.packages else {}
        if gpu is not None:
            counted_j = gpu.energy_j - self.gpu.energy_j
            self.energy_j += gpu.power_w * (now - self.read_at) if math.isnan(counted_j) else counted_j
        for package, (energy_j, range_j) in packages.items():
            before_j, _ = self.packages.get(package, (energy_j, 0.0))
            self.energy_j += energy_j - before_j + (range_j if energy_j < before_j else 0.0)  # the counter starts anew
        self.packages, self.gpu, self.read_at = packages or self.packages, gpu, now
        return self.energy_j


def read_packages(powercap: Path) -> dict[str, tuple[float, float]]:
    """Returns of each processor package its counter of energy and the range of the counter, in joules.

    Linux lets only root read them by default; the result is empty where they cannot be read.
    """
    packages = {}
    for folder in powercap.glob("intel-rapl:*"):  # AMD's processors have this name too
        with contextlib.suppress(OSError, ValueError):
            if (folder / "name").read_text().startswith("package"):
                packages[folder.name] = (int((folder / "energy_uj").read_text()) / 1e6,
                                         int((folder / "max_energy_range_uj").read_text()) / 1e6)
    return packages


class CpuTimer:
    """Measures the CPU time of this process, its loader workers and its scoring process."""

    def __init__(self):
        self.before = read_cpu_times()

    def take_s(self) -> float:
        """Returns the CPU seconds since the last call. Those of a worker that has ended since then are missing."""
        before, self.before = self.before, read_cpu_times()
        return sum(seconds - before.get(process_id, 0.0) for process_id, seconds in self.before.items())


def read_cpu_times() -> dict[int, float]:
    """Returns the CPU seconds of this process and of each running one that it started by multiprocessing, by id."""
    times = {os.getpid(): time.process_time()}
    for child in multiprocessing.active_children():
        with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            times[child.pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user, system
    return times
