"""Environment variables of a rank: torchrun's variables on this machine, or made from Slurm's for a task of srun.

The detector reads only torchrun's: RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
"""

import os
import re
import socket
from dataclasses import dataclass, replace
from typing import Mapping

from detector.distributed.rank_info import RUN_ID
from detector.errors import BadInput
from launcher.clean_environment import TORCHRUN_VARIABLES, matches
from launcher.slurm_commands import expand_hostlist, job_record

FIRST_PORT, PORTS = 10240, 20000  # range of MASTER_PORT, below the usual ports of outgoing connections
# Variables of shell for the patterns of sbatch's --output.
LOG_PATTERNS = {"%j": "$SLURM_JOB_ID", "%A": "$SLURM_ARRAY_JOB_ID", "%a": "$SLURM_ARRAY_TASK_ID"}
TASK_VARIABLES = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NODEID", "SLURM_STEP_TASKS_PER_NODE")


def free_port() -> int:
    """Returns a TCP port of the loopback interface that is unused now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def local_environment(rank: int, world: int, port: int) -> dict[str, str]:
    """Returns the environment of one of `world` processes on this machine.

    OMP_NUM_THREADS divides the cores among the processes, unless the user has set it.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // world)
    return {"OMP_NUM_THREADS": str(threads), **without_torchrun_variables(os.environ), RUN_ID: "fleet-rcnn",
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def without_torchrun_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment without the variables of an outer torchrun, or of a shell."""
    return {name: value for name, value in environ.items() if not matches(name, TORCHRUN_VARIABLES)}


@dataclass(frozen=True)
class SlurmJob:
    """The Slurm job that this process belongs to."""

    job_id: int
    name: str      # the name that scontrol takes: the id, or ARRAYID_TASK of an array task
    restarts: int  # number of times that Slurm has restarted the job
    nodelist: str  # its nodes as a Slurm host list: n[01-04]


def current_slurm_job(environ: Mapping[str, str] = os.environ) -> SlurmJob | None:
    """Returns the Slurm job of this process; None outside of Slurm."""
    if "SLURM_JOB_ID" not in environ:
        return None
    job_id = environ["SLURM_JOB_ID"]
    task = environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{environ['SLURM_ARRAY_JOB_ID']}_{task}" if task else job_id
    return SlurmJob(int(job_id), name, int(environ.get("SLURM_RESTART_COUNT") or 0),
                    environ.get("SLURM_JOB_NODELIST", ""))


def require_slurm_job() -> SlurmJob:
    """Returns the Slurm job of this process. Raises BadInput outside of Slurm."""
    job = current_slurm_job()
    if job is None:
        raise BadInput("this command runs only inside of a Slurm job, and this process is not in one. Submit one "
                       "with `fleet-rcnn train CONFIG --on slurm`")
    return job


def confirm_job(job: SlurmJob) -> tuple[SlurmJob, dict[str, str]]:
    """Returns a job, and its record in Slurm, which is right also where the environment is that of another job.

    Raises:
        SlurmSilent: Slurm does not answer.
    """
    name, record = job.name, job_record(job.name)
    if record.get("JobId", str(job.job_id)) != str(job.job_id):  # the variables of an outer job array
        name = str(job.job_id)
        record = job_record(name)
    return replace(job, name=name, restarts=int(record.get("Restarts", job.restarts))), record


def task_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the environment of one task of srun, with torchrun's variables; unchanged where torchrun has set them.

    Raises:
        BadInput: srun has not set a variable that is needed. A default would make each node a world of its own.
    """
    if RUN_ID in environ:
        return dict(environ)
    job, missing = current_slurm_job(environ), [name for name in TASK_VARIABLES if not environ.get(name)]
    if job is None or missing:
        raise BadInput(f"not a task of srun: {', '.join(missing) or 'SLURM_JOB_ID'} not set. Start it with srun, as "
                       "slurm/srun.sbatch does")
    local_world = parse_tasks_per_node(environ["SLURM_STEP_TASKS_PER_NODE"])[int(environ["SLURM_NODEID"])]
    return {"OMP_NUM_THREADS": environ.get("SLURM_CPUS_PER_TASK") or "1",
            "MASTER_ADDR": environ.get("MASTER_ADDR") or expand_hostlist(job.nodelist)[0],
            "MASTER_PORT": str(master_port(job)),
            **environ, RUN_ID: f"slurm-{job.name}", "RANK": environ["SLURM_PROCID"],
            "LOCAL_RANK": environ["SLURM_LOCALID"], "WORLD_SIZE": environ["SLURM_NTASKS"],
            "LOCAL_WORLD_SIZE": str(local_world)}


def master_port(job: SlurmJob) -> int:
    """Returns a port that differs between jobs which run at the same time on one node."""
    return FIRST_PORT + job.job_id % PORTS


def parse_tasks_per_node(text: str) -> list[int]:
    """Parses Slurm's task counts: '2(x3),1' -> [2, 2, 2, 1]."""
    groups = [(int(count), int(repeats or 1)) for count, repeats in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)]
    return [count for count, repeats in groups for _ in range(repeats)]
