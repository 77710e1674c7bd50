"""The places where a job can run, by the value of --on.

A backend is a module of this folder with one `Backend` object, and one entry in BACKENDS. The module is imported when
it is used.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from detector.checks.problems import Problem
from detector.config.schema import Config
from launcher.job import Job, Launch, Resources

BACKENDS = {  # value of --on: module and name of its Backend
    "local": "launcher.backends.local:LOCAL",
    "torchrun": "launcher.backends.local:TORCHRUN",
    "slurm": "launcher.backends.submitit:SUBMITIT",
    "sbatch": "launcher.backends.sbatch:SBATCH",
}
DEFAULT_BACKEND = "local"


@dataclass(frozen=True)
class JobState:
    """The state of a submitted job."""

    name: str         # in the words of the scheduler, such as RUNNING
    over: bool        # the scheduler will neither start nor continue the job
    reason: str = ""  # why the job waits or has ended, in the words of the scheduler
    exit_code: str = ""  # of a job that has ended, in the words of the scheduler


@dataclass(frozen=True)
class Backend:
    """The functions that a backend offers.

    Attributes:
        preflight: returns every reason why the job could not run. Writes nothing.
        notes: returns sentences worth knowing before the job is launched.
        script: returns the script or command line that `submit` would use, as --dry-run prints it. Writes nothing.
        submit: starts or submits the job, prints where to find it, and returns the exit status of the command.
        queue: returns the user's jobs that are not over, job -> state; None where there is no scheduler.
        state: returns the state of a submitted job. Like `queue` and `cancel`, raises BadInput if the scheduler does
            not answer: such a job is not over.
        cancel: cancels the submitted jobs that are its arguments.
        is_cluster: the job runs on other machines: the cluster file of the user applies, and several nodes are allowed.
        has_arrays: the backend submits job arrays (--array).
        rehearse: asks the scheduler whether it would take the job now, and submits nothing; returns problems and notes.
        past_state: returns the state of a job that is over, also of one that `state` has forgotten; None: `state` is
            all there is.
    """

    preflight: Callable[[Job, Path, Config], list[Problem]]
    notes: Callable[[Resources], list[str]]
    script: Callable[[Launch], str]
    submit: Callable[[Launch], int]
    queue: Callable[[], dict[str, JobState] | None]
    state: Callable[[str], JobState]
    cancel: Callable[..., None]
    is_cluster: bool
    has_arrays: bool = False
    rehearse: Callable[[Launch], tuple[list[Problem], list[str]]] = lambda launch: ([], [])
    past_state: Callable[[str], JobState] | None = None


def load_backend(name: str) -> Backend:
    """Returns the backend of this name in BACKENDS; imports its module."""
    module, _, attribute = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
