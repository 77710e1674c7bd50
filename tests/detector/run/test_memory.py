"""The memory of a process and of its host: peak, reset, and what a control group allows."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from detector.run.environment import free_host_memory_gib, peak_memory_gib, reset_peak_memory


def test_a_control_group_limits_the_memory_of_the_host(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  8388608 kB\n")
    (tmp_path / "cgroup").write_text("0::/slurm/job\n")
    (tmp_path / "groups" / "slurm" / "job").mkdir(parents=True)
    files = [str(tmp_path / name) for name in ("meminfo", "cgroup", "groups")]
    assert free_host_memory_gib(*files) == 8
    for name, text in (("memory.max", f"{4 << 30}\n"), ("memory.current", f"{3 << 30}\n"),
                       ("memory.stat", f"anon 1\ninactive_file {1 << 30}\n")):
        (tmp_path / "groups" / "slurm" / name).write_text(text)
    (tmp_path / "groups" / "slurm" / "job" / "memory.max").write_text("max\n")
    assert free_host_memory_gib(*files) == 2


def test_so_does_one_of_version_1_beside_the_other_version(tmp_path):
    (tmp_path / "meminfo").write_text("MemAvailable:  8388608 kB\n")
    (tmp_path / "cgroup").write_text("9:name=systemd:/\n4:cpu,memory:/slurm/job\n3:cpuset:/memory\n0::/\n")
    job = tmp_path / "groups" / "memory" / "slurm" / "job"
    job.mkdir(parents=True)
    for folder, limit in ((job, 5 << 30), (tmp_path / "groups" / "memory", 9223372036854771712)):
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{3 << 30}\n")
        (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {1 << 30}\n")
    assert free_host_memory_gib(*[str(tmp_path / name) for name in ("meminfo", "cgroup", "groups")]) == 3


def test_the_peak_of_a_process_is_its_own_and_counts_from_a_reset():
    """The process that starts it is larger; the kernel hands that peak on as ru_maxrss, for good."""
    here, big = torch.device("cpu"), np.ones(400 << 20, np.uint8)
    code = "from detector.run import environment as e; print(e.peak_memory_gib(type('', (), {'type': 'cpu'})))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert float(child.stdout) < 0.3 < peak_memory_gib(here)
    del big
    if reset_peak_memory(here):
        before = peak_memory_gib(here)
        assert before < 0.2 + resident_gib()
        big = np.ones(400 << 20, np.uint8)
        del big
        assert peak_memory_gib(here) > before + 0.35


def test_a_system_that_resets_no_peak_is_said_to(monkeypatch):
    def refuse(self, text):
        raise PermissionError(self)
    monkeypatch.setattr(Path, "write_text", refuse)
    assert reset_peak_memory(torch.device("cpu")) is False


def resident_gib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**30
