"""Rank, local rank and world size of this process, from the environment variables of torchrun.

The variables count below torchrun and below the launcher, which both set RUN_ID too. Without it, someone has set them
by hand (mpirun, a script of srun), or they were left in the shell: they then count only if all of REQUIRED are set, and
only while the process group is open, which shows that the other ranks exist. Any other process is rank 0 of 1.
"""

import os
import sys
from dataclasses import dataclass

from detector.errors import BAD_INPUT, BadInput

RUN_ID = "TORCHELASTIC_RUN_ID"
REQUIRED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Programs that start several tasks at once: the number of this task, the number of tasks, and what else must be set.
TASK_STARTERS = {"srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID"),
                 "mpirun": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
                 "mpiexec": ("PMI_RANK", "PMI_SIZE", "PMI_RANK")}
HOW_TO_START = ("Start a run in several processes with `fleet-rcnn train CONFIG --processes N`, on Slurm with `--on "
                "slurm`, or with `torchrun -m detector train CONFIG`")

is_joined = False  # the process group is open, or was left by an error; set by process_group.py


@dataclass(frozen=True)
class World:
    """The place of a process among all processes of a run."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1


def is_launched() -> bool:
    """Returns whether torchrun or the launcher has started this process."""
    return RUN_ID in os.environ


def stated_world() -> World:
    """Returns the world that the environment variables state; that of a single process if they are not complete."""
    values = {name: os.environ.get(name, "") for name in (*REQUIRED, "LOCAL_RANK")}
    numbers = {name: int(value) for name, value in values.items() if value.isdecimal()}
    is_complete = all(values[name] for name in REQUIRED) and {"RANK", "WORLD_SIZE", "MASTER_PORT"} <= numbers.keys()
    if not is_complete or numbers["RANK"] >= numbers["WORLD_SIZE"]:
        return World()
    return World(numbers["RANK"], numbers.get("LOCAL_RANK", 0), numbers["WORLD_SIZE"])


def world() -> World:
    """Returns the world of this process."""
    return stated_world() if is_joined or is_launched() else World()


def rank() -> int:
    """Returns the number of this process among all processes of the run: 0 ... world_size() - 1."""
    return world().rank


def local_rank() -> int:
    """Returns the number of this process among those of its machine."""
    return world().local_rank


def world_size() -> int:
    """Returns the number of processes of the run."""
    return world().size


def is_main() -> bool:
    """Returns whether this process is rank 0, which logs and writes checkpoints."""
    return rank() == 0


def ignored_variables() -> str:
    """Returns a note if RANK or WORLD_SIZE are set, but do not count; else an empty text."""
    stated = [f"{name}={os.environ[name]}" for name in ("RANK", "WORLD_SIZE") if os.environ.get(name)]
    if not stated or stated_world().size > 1 or os.environ.get("WORLD_SIZE", "1") == "1":
        return ""
    missing = [name for name in REQUIRED if not os.environ.get(name)]
    reason = f"{' and '.join(missing)} not set" if missing else "they are no rank of a world"
    return f"note: {' '.join(stated)} of this shell is ignored ({reason}); this run has one process"


def refuse_one_of_several_tasks() -> None:
    """Raises BadInput if this process is one of several tasks that know nothing of each other, as below `srun -n4`.

    Each would be a run of its own, in the same folder. The first task reports this for all; the others end.
    """
    for starter, (number, count, condition) in TASK_STARTERS.items():
        tasks = os.environ.get(count, "")
        if not os.environ.get(condition) or not tasks.isdecimal() or int(tasks) < 2 or is_interactive():
            continue
        if os.environ.get(number) != "0":
            raise SystemExit(BAD_INPUT)
        raise BadInput(f"{starter} has started this command {tasks} times, as {tasks} separate runs. {HOW_TO_START}. "
                       f"For a single process: {starter} -n1. For a separate run in each task, with run.name=... of "
                       "its own: `fleet-rcnn train CONFIG --processes 1`")


def is_interactive() -> bool:
    """Returns whether a user types at the terminal of this process, as in the shell of `srun --pty bash`."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
