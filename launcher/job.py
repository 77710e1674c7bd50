"""A job, the resources it requests, and the options with which it is launched. Frozen dataclasses."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from detector.config.schema import option

CODE = Path(__file__).resolve().parent.parent  # the checkout, site-packages, or the code snapshot of a run


@dataclass(frozen=True)
class Resources:
    """The resources of a job. A cluster file holds the values of a site, the command line those of one run."""

    processes: int = option(0, "processes per node; 0: one for each GPU, or one on the CPU", low=0)
    nodes: int = option(1, "number of nodes", low=1)
    gpus: int = option(0, "GPUs per node; with a type: a100:4", low=0)
    gpu_type: str = option("", "type of the GPUs, such as a100; empty: any")
    cores: int = option(0, "CPU cores per process; 0: one for each loader worker and one more", low=0)
    memory_gib: float = option(0.0, "memory per node in GiB; 0: the default of the cluster", low=0)
    memory_per_core_gib: float = option(0.0, "memory per CPU core in GiB, in place of memory per node", low=0)
    hours: float = option(24.0, "time limit in hours; a run that reaches it is saved and requeued", low=0.01)
    notice_s: int = option(120, "seconds between the stop signal and the time limit; Slurm may send it up to a minute "
                                "early", low=10)
    partition: str = option("", "partition, or several, such as main,high; empty: the default of the cluster")
    account: str = option("", "account to charge, such as lab7; empty: the default of the user")
    constraint: str = option("", "required features of the nodes, such as h100|a100")
    shared: str = option("", "folder that all nodes can see, such as /scratch: the run folder must lie below it; "
                               "empty: not checked")
    snapshot: bool = option(True, "run a copy of the code, made at submission and kept in the run folder; later edits "
                                  "do not affect the run")
    modules: tuple[str, ...] = option((), "environment module to load, such as cuda/12.8")
    setup: tuple[str, ...] = option((), "shell command to run before the job, such as 'ulimit -n 65536'")
    container: str = option("", "command before the python of the processes, such as: apptainer exec --nv torch.sif")
    python: str = option("", "python of the processes, such as /opt/venv/bin/python; empty: the python that runs "
                               "this command")
    sbatch: tuple[str, ...] = option((), "option of sbatch, such as --qos=long, or several of them in quotes")
    srun: tuple[str, ...] = option((), "option of srun for the processes, such as --container-image=torch.sqsh")

    @property
    def processes_per_node(self) -> int:
        return self.processes or self.gpus or 1

    @property
    def world_size(self) -> int:
        return self.nodes * self.processes_per_node

    @property
    def time_limit_minutes(self) -> float:
        """The time limit as Slurm takes it, in whole minutes; infinite for a job without a limit."""
        return self.hours if math.isinf(self.hours) else max(1, math.ceil(self.hours * 60 - 1e-6))


@dataclass(frozen=True)
class Job:
    """One verb of the detector with its arguments and resources."""

    verb: str
    arguments: tuple[str, ...]
    resources: Resources = Resources()

    def command(self) -> list[str]:
        """Returns the command line of one process."""
        return [*python_command(CODE, "detector"), self.verb, *self.arguments]


LAUNCHED_VERBS = ("train", "evaluate")  # run in several processes, on any backend; resumable after an early stop
TEMPLATES = ("torchrun", "srun")  # for --on sbatch: one torchrun on each node (default), or one task for each process


@dataclass(frozen=True)
class Launch:
    """A job and the options of the command line that concern its launch only."""

    job: Job
    command_line: str  # as typed by the user, written into scripts
    template: str = TEMPLATES[0]  # for --on sbatch
    array_file: str = ""  # file with one line of key=value for each run of a job array, for --on sbatch
    array_limit: int = 0  # number of runs of the array at a time; 0: no limit
    only_failed: bool = False  # of the array, the rows that are neither finished nor in the queue


def python_command(code: Path, package: str, python: str = "") -> list[str]:
    """Returns the command that runs a package of the folder `code` with `python` (default: this interpreter)."""
    return [python or sys.executable, *package_arguments(code, package)]


def package_arguments(code: Path, package: str) -> list[str]:
    """Returns the arguments of python that run a package.

    A code snapshot is run by its folder, because `-m package` would prefer a package in the current folder.
    """
    return [str(code)] if (code / "__main__.py").is_file() else ["-m", package]
