"""The backends local and torchrun: run a job on this machine and wait for it.

local starts one process for each GPU, or one on the CPU. torchrun lets torchrun start them.
"""

import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable

from detector.checks.problems import Problem
from detector.config.names import named_run
from detector.config.schema import Config
from detector.distributed.rank_info import refuse_one_of_several_tasks
from detector.errors import FAILED, OK, STOPPED, BadInput
from detector.run.status import read_status
from launcher.backends import Backend, JobState
from launcher.hang_watch import HangWatch, hang_timeout_s
from launcher.job import CODE, LAUNCHED_VERBS, Job, Launch, Resources, package_arguments, python_command
from launcher.preflight import loopback_problems
from launcher.processes import is_hangup_ignored, no_callback, run_command, run_processes
from launcher.rank_env import free_port, local_environment, without_torchrun_variables
from launcher.run_info import resolve_run
from launcher.submission import refuse_second_job

# torchrun terminates on SIGUSR1 and SIGUSR2 by default, and kills processes 30 s after a signal, also while they save.
TORCHRUN_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
TORCHRUN_SHUTDOWN_S = 600


def local_script(launch: Launch) -> str:
    """Returns the command line of one process."""
    return shlex.join(with_process_count(launch.job).command()) + "\n"


def submit_local(launch: Launch) -> int:
    """Runs the job with one process for each rank; returns its exit status when it has ended."""
    refuse_several_launchers(launch.job)
    job = with_process_count(launch.job)
    refuse_second_training(job)
    return run_local(job, hang_watch_of(job))


def torchrun_script(launch: Launch) -> str:
    """Returns the command line of torchrun."""
    return shlex.join(torchrun_command(with_process_count(launch.job))) + "\n"


def submit_torchrun(launch: Launch) -> int:
    """Runs the job under torchrun; returns its exit status when it has ended."""
    refuse_several_launchers(launch.job)
    job = with_process_count(launch.job)
    refuse_second_training(job)
    return run_torchrun(job)


def local_preflight(_job: Job, _run: Path, _config: Config) -> list[Problem]:
    """Checks that processes of this machine can connect; the detector checks everything else."""
    return loopback_problems()


def no_notes(_resources: Resources) -> list[str]:
    """Returns no notes: a job on this machine starts at once."""
    return []


def no_queue() -> None:
    """Returns None: a job on this machine waits in no queue."""


def local_state(_job: str) -> JobState:
    """Returns a final state: a job on this machine has no name, and status.json of the run folder holds its state."""
    return JobState("not submitted", over=True)


def refuse_cancel(_job: str) -> None:
    """Raises BadInput: only the terminal that started a job on this machine can stop it."""
    raise BadInput("it was not submitted to a scheduler; press Ctrl-C where it was started")


def run_local(job: Job, on_poll: Callable[[], None] = no_callback) -> int:
    """Runs a job on this machine with one process for each rank; returns its exit status.

    The number of processes is that of the resources; without one, train and evaluate use one for each GPU.
    """
    requested = job.resources.processes or job.resources.gpus
    default = (count_gpus() or 1) if job.verb in LAUNCHED_VERBS and not requested else 1
    world, port = requested or default, free_port()
    return run_processes(job, [local_environment(rank, world, port) for rank in range(world)], on_poll)


def torchrun_command(job: Job) -> list[str]:
    """Returns the command line of torchrun for a job on this machine."""
    names = [name for name in TORCHRUN_SIGNALS if name != "SIGHUP" or not is_hangup_ignored()]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc-per-node={job.resources.processes_per_node}", f"--signals-to-handle={','.join(names)}",
            *package_arguments(CODE, "detector"), job.verb, *job.arguments]


def run_torchrun(job: Job) -> int:
    """Runs a job under torchrun; returns its exit status.

    After a signal, torchrun does not tell how its processes ended; status.json tells whether a training has failed.
    """
    started_at = time.time()
    environment = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(TORCHRUN_SHUTDOWN_S), **without_torchrun_variables(os.environ)}
    _, _, _, *arguments = torchrun_command(job)
    exit_status = run_command([*python_command(CODE, "launcher.torchrun_agent"), *arguments], environment)
    if exit_status != STOPPED or job.verb != "train":
        return exit_status
    status = read_status(resolve_run(job.verb, job.arguments)[0])
    state = status.get("state") if status.get("at", 0) >= started_at else ""
    return {"finished": OK, "failed": FAILED}.get(state, STOPPED)


def with_process_count(job: Job) -> Job:
    """Returns the job with its number of processes: as requested, or one for each GPU, at most one for each image.

    Raises:
        BadInput: the config has a mistake, or more processes than GPUs are requested. Reported here once, before every
            process would report it.
    """
    positional = [argument for argument in job.arguments if not argument.startswith("-")]
    requested = 1 if "--time" in job.arguments else job.resources.processes or job.resources.gpus
    count = requested
    if positional and (job.verb == "train" or job.verb == "evaluate" and Path(named_run(positional[0])).is_dir()):
        _, config = resolve_run(job.verb, job.arguments)
        if job.resources.gpus and not job.resources.processes:
            refuse_missing_gpus(job.resources.gpus, config.run.device)
        is_limited = job.verb == "train" and config.batch.size > 0  # a size that is auto has an image for each process
        count = choose_process_count(requested, config.run.device, config.batch.size if is_limited else 0)
    return replace(job, resources=Resources(count))


def choose_process_count(requested: int, device: str, max_processes: int) -> int:
    """Returns the number of processes: as requested, or one for each GPU, or one on the CPU.

    Args:
        requested: 0: not requested.
        device: run.device.
        max_processes: limit if none is requested; 0: no limit.

    Raises:
        BadInput: more processes than GPUs are requested, or a GPU where there is none.
    """
    gpus = count_gpus() if device != "cpu" and requested != 1 else 0
    if device == "cuda" and gpus == 0 and requested != 1:
        raise BadInput("run.device=cuda: this machine has no GPU that PyTorch can use; set run.device=cpu")
    if gpus and requested > gpus:
        raise BadInput(f"--processes {requested}: more processes than GPUs, of which this machine has {gpus}. Start at "
                       f"most {gpus}, or set run.device=cpu")
    return requested or min(gpus or 1, max_processes or gpus or 1)


def refuse_missing_gpus(gpus: int, device: str) -> None:
    """Raises BadInput if --gpus asks for GPUs on a machine without one that PyTorch can use."""
    if device != "cpu" and not count_gpus():
        raise BadInput(f"--gpus {gpus}: this machine has no GPU that PyTorch can use. Leave it out, or start processes "
                       f"on the CPU with --processes {gpus} run.device=cpu")


def count_gpus() -> int:
    """Returns the number of GPUs that PyTorch can use."""
    import torch  # takes seconds
    return torch.cuda.device_count()


def refuse_second_training(job: Job) -> None:
    """Raises BadInput if the run of a training is being trained already."""
    if job.verb == "train" and job.arguments:
        refuse_second_job(resolve_run(job.verb, job.arguments)[0])


def refuse_several_launchers(job: Job) -> None:
    """Raises BadInput if srun or mpirun has started this command several times, unless --processes asks for that."""
    if not job.resources.processes:
        refuse_one_of_several_tasks()


def hang_watch_of(job: Job) -> Callable[[], None]:
    """Returns the watch that reports hangs of a training; does nothing for other verbs."""
    if job.verb != "train" or not job.arguments:
        return no_callback
    run, config = resolve_run(job.verb, job.arguments)
    return HangWatch(run, hang_timeout_s(config))


LOCAL = Backend(preflight=local_preflight, notes=no_notes, script=local_script, submit=submit_local, queue=no_queue,
                state=local_state, cancel=refuse_cancel, is_cluster=False)
TORCHRUN = Backend(preflight=local_preflight, notes=no_notes, script=torchrun_script, submit=submit_torchrun,
                   queue=no_queue, state=local_state, cancel=refuse_cancel, is_cluster=False)
