"""Fixtures of tests of jobs, logs and cancel: a Slurm that answers as the test says, and run folders of any state."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.errors import BadInput
from detector.run.files import write_json
from launcher import slurm_commands
from launcher.run_info import add_job_record

COMMAND = "fleet-rcnn train coco.yaml --on sbatch --gpus 8"


@pytest.fixture
def slurm(monkeypatch):
    """A Slurm with records (job -> fields of scontrol), the list of the other commands, and a switch that silences it."""
    fake = SimpleNamespace(jobs={}, commands=[], silent=False)

    def run(*command: str, **_options) -> str:
        if fake.silent:
            raise slurm_commands.SlurmSilent(f"Slurm has not answered {command[0]} for 60 s")
        if command[0] == "squeue":
            return "".join(f"{job}|{record['JobState']}|{record.get('Reason', 'None')}\n" for job, record in fake.jobs.items()
                           if record["JobState"] not in slurm_commands.FINAL_STATES)
        if command[:4] == ("scontrol", "-o", "show", "job"):
            if command[4] not in fake.jobs:
                raise BadInput("Invalid job id specified")
            return " ".join(f"{key}={value}" for key, value in fake.jobs[command[4]].items())
        fake.commands.append(command)
        return ""
    monkeypatch.setattr(slurm_commands, "slurm", run)
    monkeypatch.setattr(slurm_commands, "has_slurm", lambda: True)
    monkeypatch.setattr(slurm_commands.shutil, "which", lambda name: None)
    fake.set = lambda job, state, **fields: fake.jobs.update({job: {"JobState": state, **fields}})
    return fake


def make_run(folder: Path, name: str, job: str = "", log: str | None = "", started: bool = True, **status) -> Path:
    """Makes a run folder; `status` goes into status.json, and `job` was submitted for the run, with this log."""
    run = folder / name
    run.mkdir(parents=True, exist_ok=True)
    if status or not job:
        write_json(run / "status.json", {"at": time.time(), **status})
    if job:
        add_job(run, job, log, started)
    return run


def add_job(run: Path, job: str, log: str | None = "", started: bool = True) -> None:
    path = run / "slurm" / f"{job}.log"
    add_job_record(run, job=job, verb="train", log=str(path), backend="sbatch", command=COMMAND)
    if started:
        add_job_record(run, job=job, verb="train", restart=0, step=0, nodes="n1", log="")
    if log is not None:
        path.write_text(log)


def write_beat(run: Path, rank: int, step: int, error: str = "", failed_ago_s: float = 0.0, written_ago_s: float = 0.0,
               host: str = "", skew_s: float = 0.0) -> None:
    """Writes the heartbeat of a rank whose host has a clock that differs by `skew_s`."""
    path, now = run / "heartbeats" / f"rank-{rank:05d}.json", time.time()
    path.parent.mkdir(exist_ok=True)
    alive_at = now - written_ago_s + skew_s
    path.write_text(json.dumps({"rank": rank, "host": host or f"n{rank}", "phase": "step", "step": step, "error": error,
                                "at": alive_at - failed_ago_s, "alive_at": alive_at}))
    os.utime(path, (now - written_ago_s, now - written_ago_s))


def dead_process() -> int:
    """Returns the number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def own(run: Path, pid: int, host: str = "") -> None:
    """Writes the name of a process into the lock file of a run; nothing is locked."""
    (run / "owner.lock").write_text(f"process {pid} on {host or socket.gethostname()}")
