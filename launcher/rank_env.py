"""torchrun's five variables: all that a process of the detector knows of where it runs. And Slurm's own words."""

import os
import re
import socket
from dataclasses import dataclass
from typing import Mapping

from detector.errors import BadInput
from launcher.slurm_commands import host_names

FIRST_PORT, PORTS = 10240, 20000  # below what systems hand out to outgoing connections
TASK = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NODEID", "SLURM_STEP_TASKS_PER_NODE")


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def local_environment(rank: int, world: int, port: int) -> dict[str, str]:
    """The environment of one of `world` processes on this machine.

    Threads are shared out, or each process would take every core for itself.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // world)
    return {"OMP_NUM_THREADS": str(threads), **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port)}


@dataclass(frozen=True)
class SlurmJob:
    """The Slurm job that this process is part of."""

    number: int     # its own id
    name: str       # what scontrol takes: the id, or ARRAY_TASK of an array
    restarts: int   # how many times Slurm has started it again
    nodes: str      # its nodes, compressed: n[01-04]


def current_slurm_job(environ: Mapping[str, str] = os.environ) -> SlurmJob | None:
    """None outside of Slurm."""
    if "SLURM_JOB_ID" not in environ:
        return None
    number = environ["SLURM_JOB_ID"]
    task = environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{environ['SLURM_ARRAY_JOB_ID']}_{task}" if task else number
    return SlurmJob(int(number), name, int(environ.get("SLURM_RESTART_COUNT") or 0),
                    environ.get("SLURM_JOB_NODELIST", ""))


def task_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of one task of srun as torchrun would have made it; torchrun's own is left as it is.

    Raises BadInput where srun has not set what is needed: a guess would make each node a world of its own.
    """
    if environ.get("RANK"):
        return dict(environ)
    job, missing = current_slurm_job(environ), [name for name in TASK if not environ.get(name)]
    if job is None or missing:
        raise BadInput(f"not a task of srun: {', '.join(missing) or 'SLURM_JOB_ID'} not set. Start it with srun, as "
                       "slurm/srun.sbatch does")
    here = tasks_per_node(environ["SLURM_STEP_TASKS_PER_NODE"])[int(environ["SLURM_NODEID"])]
    return {"OMP_NUM_THREADS": environ.get("SLURM_CPUS_PER_TASK") or "1",
            "MASTER_ADDR": environ.get("MASTER_ADDR") or host_names(job.nodes)[0], "MASTER_PORT": str(port_of(job)),
            **environ, "RANK": environ["SLURM_PROCID"], "LOCAL_RANK": environ["SLURM_LOCALID"],
            "WORLD_SIZE": environ["SLURM_NTASKS"], "LOCAL_WORLD_SIZE": str(here)}


def port_of(job: SlurmJob) -> int:
    """A port that two jobs on one node do not share."""
    return FIRST_PORT + job.number % PORTS


def tasks_per_node(text: str) -> list[int]:
    """'2(x3),1' -> [2, 2, 2, 1]"""
    found = [(int(count), int(times or 1)) for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)]
    return [count for count, times in found for _ in range(times)]
