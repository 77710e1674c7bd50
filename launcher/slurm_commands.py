"""Slurm's commands (sbatch, scontrol, squeue, ...): run, parsed, and their errors explained."""

import shutil
import socket
import subprocess

from detector.errors import BadInput
from launcher.backends import JobState

# States of a job that Slurm will neither start nor continue. UNKNOWN: Slurm has forgotten the job.
FINAL_STATES = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT",
                "UNKNOWN")


def has_slurm() -> bool:
    """Returns whether this machine has sbatch."""
    return shutil.which("sbatch") is not None


def slurm(*command: str) -> str:
    """Runs a Slurm command and returns its output.

    Raises:
        BadInput: the command is missing, fails (with its own message), or does not answer within 60 s.
    """
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        raise BadInput(f"no {command[0]} on this machine ({socket.gethostname()}). Use a login node of the Slurm "
                       "cluster, or start a test cluster with slurm/local-cluster") from error
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"{command[0]} gave no answer in 60 s. Ask `scontrol ping` whether the Slurm controller is "
                       "up") from error
    if completed.returncode:
        raise BadInput(f"{' '.join(command)}: {' '.join((completed.stderr or completed.stdout).split())}")
    return completed.stdout


def expand_hostlist(nodes: str) -> list[str]:
    """Returns the host names of a Slurm host list: n[01-02] -> ['n01', 'n02'].

    Raises:
        BadInput: Slurm names no host.
    """
    hosts = slurm("scontrol", "show", "hostnames", nodes).split() if nodes else []
    if not hosts:
        raise BadInput(f"scontrol show hostnames {nodes!r} returned no host, and MASTER_ADDR must be the first one")
    return hosts


def parse_record(line: str) -> dict[str, str]:
    """Parses a record of `scontrol -o`, words of the form Key=Value.

    The first of equal keys wins, because free text comes late in a record.
    """
    return dict(word.split("=", 1) for word in reversed(line.split()) if "=" in word)


def job_record(job: str) -> dict[str, str]:
    """Returns the record of `scontrol show job`, at least {"JobState": ...}; UNKNOWN for a job that Slurm forgot."""
    try:
        return {"JobState": "UNKNOWN", **parse_record(slurm("scontrol", "-o", "show", "job", job))}
    except BadInput:
        return {"JobState": "UNKNOWN"}


def queued_jobs() -> dict[str, str] | None:
    """Returns the user's jobs in the queue, {"12": "running", "13": "pending (Priority)"}; None without Slurm."""
    if not has_slurm():
        return None
    rows = [line.split("|") for line in slurm("squeue", "--me", "-h", "-r", "-o", "%i|%T|%r").splitlines()]
    return {job: f"{state.lower()} ({reason})" if state == "PENDING" and reason != "None" else state.lower()
            for job, state, reason in rows}


def job_state(job: str) -> JobState:
    """Returns the state of a job."""
    name = job_record(job)["JobState"]
    return JobState(name, over=name in FINAL_STATES)


def cancel_job(job: str) -> None:
    """Runs scancel."""
    slurm("scancel", job)
