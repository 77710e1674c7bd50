"""Slurm's commands (scontrol, squeue, sbatch, ...): run, parsed, errors explained."""

import shutil
import socket
import subprocess

from detector.errors import BadInput


def host_names(nodes: str) -> list[str]:
    """n[01-02] -> ['n01', 'n02'], as Slurm itself reads it. Raises BadInput where it does not."""
    said = slurm("scontrol", "show", "hostnames", nodes).split() if nodes else []
    if not said:
        raise BadInput(f"scontrol show hostnames {nodes!r} names no host: the first is needed as MASTER_ADDR")
    return said


def has_slurm() -> bool:
    return shutil.which("sbatch") is not None


def slurm(*command: str) -> str:
    """What a command of Slurm says. Raises BadInput with its own words where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        raise BadInput(f"no {command[0]} on this machine ({socket.gethostname()}): do this on a login node of the "
                       "Slurm cluster, or try it with slurm/local-cluster") from error
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"{command[0]} gave no answer in 60 s: is the Slurm controller up? (scontrol ping)") from error
    if done.returncode:
        raise BadInput(f"{' '.join(command)}: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout


def fields(line: str) -> dict[str, str]:
    """A record of `scontrol -o`: Key=Value words. Of a key said twice the first counts: free text comes late."""
    return dict(word.split("=", 1) for word in reversed(line.split()) if "=" in word)


def job_state(name: str) -> dict[str, str]:
    """`scontrol show job`, at least {"JobState": ...}; UNKNOWN where Slurm does not know the job any more."""
    try:
        return {"JobState": "UNKNOWN", **fields(slurm("scontrol", "-o", "show", "job", name))}
    except BadInput:
        return {"JobState": "UNKNOWN"}
