"""Not a test: a real Slurm on this machine for tests, and what they do with it."""

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
CLOCK = ("images_per_s", "data_wait", "memory_gib")


def missing() -> str:
    """Why there can be no Slurm here; empty if there can."""
    lacking = [name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name, path=SBIN)]
    return f"no {', '.join(lacking)} here: apt-get install slurm-wlm munge" if lacking else ""


class Cluster:
    """Two nodes, in a folder of their own. Commands raise with all that was said."""

    def __init__(self, folder: Path):
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH"))}
        self.environ |= {"FLEET_CLUSTER": str(folder), "SLURM_CONF": f"{folder}/slurm.conf", "OMP_NUM_THREADS": "1",
                         "PYTHONPATH": str(REPO), "XDG_CONFIG_HOME": str(folder / "none")}

    def up(self, *options: str) -> str:
        """Nodes with networks of their own, where that is allowed. Gives what went wrong otherwise."""
        said = ""
        for network in (["--network"], []):
            done = subprocess.run([str(LOCAL_CLUSTER), "up", "--nodes", "2", *network, *options], env=self.environ,
                                  capture_output=True, text=True)
            self.network, said = bool(network), done.stderr
            if "--network" not in said:
                break
        return said if done.returncode else ""

    def control(self, *words: str) -> str:
        return self.call(sys.executable, str(LOCAL_CLUSTER), *words)

    def call(self, *command: str, expected: int = 0) -> str:
        done = subprocess.run(command, env=self.environ, cwd=REPO, capture_output=True, text=True, timeout=240)
        assert done.returncode == expected, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def fleet(self, *arguments: str, expected: int = 0) -> str:
        return self.call(sys.executable, "-m", "launcher.cli", *arguments, expected=expected)

    def submit(self, *arguments: str) -> str:
        """The number of the job."""
        return re.search(r"submitted job (\d+)", self.fleet("train", *arguments))[1]

    def state(self, job: str) -> str:
        said = self.call("scontrol", "-o", "show", "job", job)
        return re.search(r"JobState=(\S+)", said)[1]

    def restarts(self, job: str) -> int:
        return int(re.search(r"Restarts=(\d+)", self.call("scontrol", "-o", "show", "job", job))[1])

    def wait(self, job: str, run: Path, timeout_s: float = 150) -> str:
        """The state in which the job ended."""
        until(lambda: self.state(job) in OVER, timeout_s, lambda: f"job {job} is {self.state(job)}:\n{log(run)}")
        return self.state(job)


def until(happens, timeout_s: float, otherwise=lambda: "") -> None:
    end = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < end, f"not in {timeout_s} s. {otherwise()}"
        time.sleep(0.1)


def log(run: Path) -> str:
    return "".join(path.read_text() for path in sorted((run / "slurm").glob("*.log")))


def steps(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    return [line["step"] for line in lines if line["kind"] == "train"]


def pace(run: Path) -> float:
    """Steps a second; a step is four images."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return statistics.median(line["images_per_s"] for line in lines if line["kind"] == "train") / 4


def reached(run: Path, step: int) -> bool:
    return max(steps(run), default=0) >= step


def assert_same_end(run: Path, reference: Path, total: int) -> None:
    """The same weights, momentum and record, bit for bit, but for what a clock measures."""
    ours, theirs = [torch.load(folder / "checkpoints" / f"step-{total:08d}.pt", weights_only=True)
                    for folder in (run, reference)]
    for part in ("model", "moments"):
        assert str(ours[part].keys()) == str(theirs[part].keys())
        for name, value in flat(ours[part]).items():
            assert torch.equal(value, flat(theirs[part])[name]), f"{part} {name}"
    assert steps(run) == list(range(1, total + 1))
    assert record(run) == record(reference)


def flat(tree: dict) -> dict:
    return {f"{name}.{key}": inner for name, value in tree.items()
            for key, inner in (value.items() if isinstance(value, dict) else [("", value)])}


def record(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]
