"""What a run ran on: for environment.json and for the lines at its start."""

import os
import platform
import re
import resource
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.distributed.rank_info import rank, world_size
from detector.run.commit import commit

if TYPE_CHECKING:
    import torch  # the functions below import it themselves: the launcher imports this room without torch

# Instructions for a precision, as x86 and 64-bit ARM name them.
NARROW = {"bf16": {"avx512_bf16", "amx_bf16", "bf16"}, "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"}}


def collect_environment() -> dict:
    """Versions, machine, processes and, in a checkout, the commit."""
    import numpy
    import torch
    import torchvision
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"command": sys.argv, "host": socket.gethostname(), "processes": world_size(), "gpus": gpus,
            "cpu": processor(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(),
            "python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__,
            "numpy": numpy.__version__, "commit": commit()}


def processor(cpuinfo: str = "/proc/cpuinfo") -> str:
    """Its name, where the system tells it, the widest instructions that PyTorch uses on it, and those for bf16."""
    import torch
    name = re.search(r"^model name\s*:\s*(.*)$", text_of(cpuinfo), re.MULTILINE)
    return ", ".join([name[1].strip() if name else platform.machine(), torch.backends.cpu.get_cpu_capability(),
                      *sorted(NARROW["bf16"] & instructions(cpuinfo))])


def instructions(cpuinfo: str = "/proc/cpuinfo") -> set[str]:
    """What Linux calls the instructions of this CPU; nothing where the system does not tell them."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text_of(cpuinfo), re.MULTILINE)
    return set(flags[1].split()) if flags else set()


def text_of(path: str) -> str:
    """Nothing where the file cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def peak_memory_gib(device: "torch.device") -> float:
    """The most that tensors took on a GPU so far; on the CPU, that the process did."""
    if device.type == "cuda":
        import torch
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts it in KiB


@dataclass(frozen=True)
class RankInfo:
    """Where one rank sits."""

    rank: int
    host: str
    device: str              # such as "cpu" or "NVIDIA H100"
    cores: tuple[int, ...]   # that it may run on; ranks of one host may share them


def describe_rank(device: "torch.device") -> RankInfo:
    import torch
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return RankInfo(rank(), socket.gethostname(), name, tuple(sorted(os.sched_getaffinity(0))))


def world_table(seats: list[RankInfo]) -> list[str]:
    """A line for each host, below a heading: its ranks, their devices, and the cores that they have together."""
    hosts: dict[tuple[str, str], list[RankInfo]] = {}
    for one in seats:
        hosts.setdefault((one.host, one.device), []).append(one)
    rows = [("rank", "host", "device", "cores")]
    for (host, device), here in hosts.items():
        numbers = [one.rank for one in here]
        whole = numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 1
        rows.append((f"{numbers[0]}-{numbers[-1]}" if whole else ", ".join(map(str, numbers)), host,
                     f"{len(here)} x {device}" if len(here) > 1 else device, str(len(cores_of(here)))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[3]]) for row in rows]


def cores_of(seats: list[RankInfo]) -> set[tuple[str, int]]:
    """The cores that some ranks have together, each once."""
    return {(one.host, core) for one in seats for core in one.cores}


def few_cores(seats: list[RankInfo], workers: int) -> str:
    """A sentence where the loader workers outnumber the cores; else nothing."""
    for host in dict.fromkeys(one.host for one in seats):
        here = [one for one in seats if one.host == host]
        if workers * len(here) > (cores := len(cores_of(here))):
            return (f"{len(here)} x {workers} loader workers on {host} share {cores} cores: give each task more "
                    f"cores, or set run.num_workers={cores // len(here)}")
    return ""


def slow_precision(precision: str, device: "torch.device", cpuinfo: str = "/proc/cpuinfo") -> str:
    """A sentence where the device has no instructions for a precision and imitates them; else nothing."""
    if precision == "fp32":
        return ""
    if device.type == "cuda":
        import torch
        known = precision == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
        return "" if known else f"{name} imitates bf16, which is slow: set run.precision=fp16"
    names, known = NARROW[precision], instructions(cpuinfo)
    if not known or names & known:
        return ""
    return (f"this CPU has no instructions for {precision} ({' or '.join(sorted(names))}) and imitates it, slower than "
            "fp32: set run.precision=fp32")


def versions() -> str:
    """One line."""
    import numpy
    import torch
    import torchvision
    name = commit()
    return (f"python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
            f"numpy {numpy.__version__}" + (f", commit {name[:12]}{'+' * name.endswith('+')}" if name else ""))
