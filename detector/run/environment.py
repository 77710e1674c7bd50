"""The environment of a run: the content of environment.json and the lines at the start of the log."""

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
    import torch  # imported in the functions that need torch: the launcher imports this file without torch

# Of control groups v2 and v1: the group's line in /proc/self/cgroup; the folder in /sys/fs/cgroup; the files that hold
# limit and use; the line of memory.stat with what can be freed, cached files.
MEMORY_GROUPS = (
    (r"^0::/(.*)$", "", "memory.max", "memory.current", r"^inactive_file (\d+)$"),
    (r"^\d+:[^:]*\bmemory\b[^:]*:/(.*)$", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     r"^total_inactive_file (\d+)$"))
# Flags in /proc/cpuinfo of CPUs that compute in a precision, on x86 and on 64-bit ARM.
PRECISION_FLAGS = {"bf16": {"avx512_bf16", "amx_bf16", "bf16"}, "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"}}


@dataclass(frozen=True)
class RankInfo:
    """Where one rank runs."""

    rank: int
    host: str
    device: str              # such as "cpu" or "NVIDIA H100"
    cores: tuple[int, ...]   # numbers of the CPU cores that the rank may use; ranks of one host may have the same
    gpu: str = ""            # UUID of its GPU; empty on CPUs


def collect_environment() -> dict:
    """Returns the content of environment.json: command, versions, machine, number of processes, and the commit."""
    import numpy
    import torch
    import torchvision
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"command": sys.argv, "host": socket.gethostname(), "processes": world_size(), "gpus": gpus,
            "cpu": processor(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(),
            "python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__,
            "numpy": numpy.__version__, "commit": commit()}


def versions() -> str:
    """Returns one line with the versions of Python, torch, torchvision, numpy and this package's commit."""
    import numpy
    import torch
    import torchvision
    line = (f"python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
            f"numpy {numpy.__version__}")
    revision = commit()
    if not revision:
        return line
    return f"{line}, commit {revision[:12]}" + ("+" if revision.endswith("+") else "")


def processor(cpuinfo: str = "/proc/cpuinfo") -> str:
    """Returns the CPU's name (else its architecture), the instruction set that PyTorch uses, and its bf16 flags."""
    import torch
    name = re.search(r"^model name\s*:\s*(.*)$", _read_text(cpuinfo), re.MULTILINE)
    return ", ".join([name[1].strip() if name else platform.machine(), torch.backends.cpu.get_cpu_capability(),
                      *sorted(PRECISION_FLAGS["bf16"] & cpu_flags(cpuinfo))])


def cpu_flags(cpuinfo: str = "/proc/cpuinfo") -> set[str]:
    """Returns the instruction flags of the CPU as Linux names them; an empty set if they are not known."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", _read_text(cpuinfo), re.MULTILINE)
    return set(flags[1].split()) if flags else set()


def _read_text(path: str) -> str:
    """Returns the text of a file; empty if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def peak_memory_gib(device: "torch.device") -> float:
    """Returns the largest memory so far, GiB: of tensors on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        import torch
        return torch.cuda.max_memory_allocated(device) / 2**30
    # ru_maxrss is also that of the process that has started this one, and no reset lowers it.
    kib = _number_in("/proc/self/status", r"^VmHWM:\s*(\d+) kB") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / 2**20


def reset_peak_memory(device: "torch.device") -> bool:
    """Lets `peak_memory_gib` count from now on, and returns whether it does: not every system allows it on a CPU."""
    if device.type == "cuda":
        import torch
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak of resident memory (proc_pid_clear_refs(5))
    except OSError:
        return False
    return True


def memory_limit_gib(device: "torch.device", local_processes: int, share: float) -> float:
    """Returns what `peak_memory_gib` may reach, GiB: a share of the memory that is free or already this process's.

    Args:
        local_processes: that share the memory of this host; a GPU is not shared.
        share: fraction of the free memory.
    """
    if device.type == "cuda":
        import torch
        return share * (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)) / 2**30
    resident = int(_read_text("/proc/self/statm").split()[1]) * resource.getpagesize() / 2**30
    return resident + share * free_host_memory_gib() / local_processes


def free_host_memory_gib(meminfo: str = "/proc/meminfo", own_group: str = "/proc/self/cgroup",
                         groups: str = "/sys/fs/cgroup") -> float:
    """Returns the memory that this host has free or can free, GiB; less if a control group, as of Slurm or a container,
    allows this process less."""
    free = [1024 * _number_in(meminfo, r"^MemAvailable:\s*(\d+) kB")]
    for line, folder, limit_file, use_file, cached in MEMORY_GROUPS:
        own = re.search(line, _read_text(own_group), re.MULTILINE)
        path = Path(groups, folder, own[1] if own else "")
        for group in (path, *path.parents):
            if (limit := _read_text(f"{group}/{limit_file}").strip()).isdigit():  # else "max", or no such file
                free.append(int(limit) - _number_in(f"{group}/{use_file}", r"(\d+)")
                            + _number_in(f"{group}/memory.stat", cached))
    return min(free) / 2**30


def _number_in(path: str, pattern: str) -> int:
    """Returns the number of a line in a file; 0 if there is none."""
    match = re.search(pattern, _read_text(path), re.MULTILINE)
    return int(match[1]) if match else 0


def describe_rank(device: "torch.device") -> RankInfo:
    """Returns where this process runs; `device` is the one that it trains on."""
    import torch
    cores = tuple(sorted(os.sched_getaffinity(0)))
    if device.type != "cuda":
        return RankInfo(rank(), socket.gethostname(), "cpu", cores)
    gpu = torch.cuda.get_device_properties(device)
    return RankInfo(rank(), socket.gethostname(), gpu.name, cores, str(gpu.uuid))


def world_table(ranks: list[RankInfo]) -> list[str]:
    """Returns the lines of a table: a heading, then for each host its ranks, devices and number of cores."""
    groups: dict[tuple[str, str], list[RankInfo]] = {}
    for info in ranks:
        groups.setdefault((info.host, info.device), []).append(info)
    rows = [("rank", "host", "device", "cores")]
    for (host, device), group in groups.items():
        device_text = f"{len(group)} x {device}" if len(group) > 1 else device
        rows.append((_rank_range([info.rank for info in group]), host, device_text, str(len(_cores_of(group)))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[3]]) for row in rows]


def _rank_range(ranks: list[int]) -> str:
    """Returns ascending ranks as text: 0-3 if they are consecutive, else 0, 2, 5."""
    if len(ranks) > 1 and ranks == list(range(ranks[0], ranks[-1] + 1)):
        return f"{ranks[0]}-{ranks[-1]}"
    return ", ".join(map(str, ranks))


def _cores_of(ranks: list[RankInfo]) -> set[tuple[str, int]]:
    """Returns the (host, core) pairs that any of the ranks may use."""
    return {(info.host, core) for info in ranks for core in info.cores}


def warn_few_cores(ranks: list[RankInfo], num_workers: int) -> str:
    """Returns a warning if the loader workers of a host outnumber its cores; else an empty text.

    Args:
        num_workers: loader workers of each rank.
    """
    for host in dict.fromkeys(info.host for info in ranks):
        group = [info for info in ranks if info.host == host]
        cores = len(_cores_of(group))
        if num_workers * len(group) > cores:
            return (f"{len(group)} x {num_workers} loader workers on {host} share {cores} cores: give each task more "
                    f"cores, or set run.num_workers={cores // len(group)}")
    return ""


def fast_precision(device: "torch.device", cpuinfo: str = "/proc/cpuinfo") -> str:
    """Returns bf16 where the device has instructions for it, else fp32; run.precision=auto in one process."""
    if device.type == "cuda":
        return "fp32" if warn_slow_precision("bf16", device) else "bf16"
    return "bf16" if PRECISION_FLAGS["bf16"] & cpu_flags(cpuinfo) else "fp32"


def warn_slow_precision(precision: str, device: "torch.device", cpuinfo: str = "/proc/cpuinfo") -> str:
    """Returns a warning if the device has no instructions for `precision` and emulates them; else an empty text."""
    if precision in ("auto", "fp32"):
        return ""
    if device.type == "cuda":
        import torch
        if precision == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False):
            return ""
        return f"{torch.cuda.get_device_name(device)} emulates bf16, which is slow: set run.precision=fp16"
    needed, flags = PRECISION_FLAGS[precision], cpu_flags(cpuinfo)
    if not flags or needed & flags:
        return ""
    return (f"this CPU has no instructions for {precision} ({' or '.join(sorted(needed))}) and emulates them, slower "
            "than fp32: set run.precision=fp32")
