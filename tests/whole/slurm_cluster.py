"""Helper of tests: a real Slurm with two nodes on this machine, and what tests read of its jobs and runs."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

REPO = Path(__file__).resolve().parents[2]
LOCAL_CLUSTER = REPO / "slurm" / "local-cluster"
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
OVER = ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
# Of metrics.jsonl: they differ between equal runs.
CLOCK_KEYS = ("images_per_s", "data_wait", "memory_gib", "cpu_share", "rank_spread", "slowest_rank", "gpu_utilization",
              "gpu_memory_gib", "gpu_power_w")
IMAGES_PER_STEP = 4


def missing() -> str:
    """Returns why there can be no Slurm on this machine; empty if there can."""
    programs = [name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name, path=SBIN)]
    return f"no {', '.join(programs)} on this machine: apt-get install slurm-wlm munge" if programs else ""


class Cluster:
    """Two nodes, in a folder of their own. A command that fails raises AssertionError with all its output."""

    def __init__(self, folder: Path):
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH"))}
        self.environ |= {"FLEET_CLUSTER": str(folder), "SLURM_CONF": f"{folder}/slurm.conf", "OMP_NUM_THREADS": "1",
                         "PYTHONPATH": str(REPO), "XDG_CONFIG_HOME": str(folder / "none")}
        self.has_network = False  # the nodes have networks of their own

    def up(self, *options: str) -> str:
        """Starts the nodes, with networks of their own where that is allowed. Returns an error; empty if all is well."""
        error = ""
        for network in (["--network"], []):
            done = subprocess.run([str(LOCAL_CLUSTER), "up", "--nodes", "2", *network, *options], env=self.environ,
                                  capture_output=True, text=True)
            self.has_network, error = bool(network), done.stderr
            if "--network" not in error:
                break
        return error if done.returncode else ""

    def control(self, *arguments: str) -> str:
        """Runs slurm/local-cluster."""
        return self.call(sys.executable, str(LOCAL_CLUSTER), *arguments)

    def call(self, *command: str, expected: int = 0) -> str:
        """Runs a command and returns its output; asserts its exit status."""
        done = subprocess.run(command, env=self.environ, cwd=REPO, capture_output=True, text=True, timeout=240)
        assert done.returncode == expected, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def fleet(self, *arguments: str, expected: int = 0) -> str:
        """Runs fleet-rcnn."""
        return self.call(sys.executable, "-m", "launcher.cli", *arguments, expected=expected)

    def submit(self, *arguments: str) -> str:
        """Submits a training and returns the job id."""
        return re.search(r"submitted job (\d+)", self.fleet("train", *arguments))[1]

    def state(self, job: str) -> str:
        return re.search(r"JobState=(\S+)", self.call("scontrol", "-o", "show", "job", job))[1]

    def restarts(self, job: str) -> int:
        return int(re.search(r"Restarts=(\d+)", self.call("scontrol", "-o", "show", "job", job))[1])

    def wait(self, job: str, run: Path, timeout_s: float = 150) -> str:
        """Waits until a job is over; returns its state."""
        until(lambda: self.state(job) in OVER, timeout_s, lambda: f"job {job} is {self.state(job)}:\n{log(run)}")
        return self.state(job)


def until(condition, timeout_s: float, describe=lambda: "") -> None:
    """Waits for a condition; after the timeout an AssertionError with the text of `describe`."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not in {timeout_s} s. {describe()}"
        time.sleep(0.1)


def log(run: Path) -> str:
    """Returns the logs of all jobs of a run."""
    return "".join(path.read_text() for path in sorted((run / "slurm").glob("*.log")))


def steps(run: Path) -> list[int]:
    """Returns the steps in metrics.jsonl."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    return [line["step"] for line in lines if line["kind"] == "train"]


def pace(run: Path) -> float:
    """Returns the median of the steps per second."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return statistics.median(line["images_per_s"] for line in lines if line["kind"] == "train") / IMAGES_PER_STEP


def reached(run: Path, step: int) -> bool:
    return max(steps(run), default=0) >= step


def assert_same_end(run: Path, reference: Path, total_steps: int) -> None:
    """Asserts that two runs have the same weights, momentum and metrics, bit for bit, except for measured times."""
    actual, expected = [torch.load(folder / "checkpoints" / f"step-{total_steps:08d}.pt", weights_only=True)
                        for folder in (run, reference)]
    for part in ("model", "moments"):
        assert str(actual[part].keys()) == str(expected[part].keys())
        for name, value in flatten(actual[part]).items():
            assert torch.equal(value, flatten(expected[part])[name]), f"{part} {name}"
    assert steps(run) == list(range(1, total_steps + 1))
    assert read_metrics(run) == read_metrics(reference)


def flatten(tree: dict) -> dict:
    return {f"{name}.{key}": inner for name, value in tree.items()
            for key, inner in (value.items() if isinstance(value, dict) else [("", value)])}


def read_metrics(run: Path) -> list[dict]:
    """Returns the lines of metrics.jsonl without measured times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK_KEYS} for line in lines]
