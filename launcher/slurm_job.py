"""The part of fleet-rcnn that runs inside a Slurm job, before, in and after srun.

    begin VERB ARGUMENTS...          before srun: decides whether the job may start; see job_begin.py
    task VERB ARGUMENTS...           a task of srun, or a process of torchrun: runs one rank
    end STATUS VERB ARGUMENTS...     after srun: requests a requeue if the run stopped early; see job_end.py
    enter CONTAINER COMMAND...       in a task, outside the container: runs COMMAND in it with the variables it needs
    submitit ... FOLDER              a task of srun: runs the task that submitit has pickled in FOLDER

A rank that stopped early or found bad input ends with 0, because srun kills the other ranks of a task that fails. `end`
reads in the run folder how the run ended.
"""

import contextlib
import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from detector.errors import BAD_INPUT, OK, STOPPED, BadInput
from detector.run.files import BAD_INPUT_FILE, FAILED_RANKS_FOLDER, STOPPED_EARLY_FILE, write_json, write_text
from launcher.clean_environment import container_environment
from launcher.hang_watch import HangWatch, hang_timeout_s
from launcher.job import CODE, Job
from launcher.job_begin import begin
from launcher.job_end import end
from launcher.processes import FORWARDED_SIGNALS, STOP_SIGNALS, describe_status, no_callback, run_processes
from launcher.rank_env import task_environment
from launcher.run_info import resolve_run

WORKING_FOLDER = "FLEET_WORKING_FOLDER"  # variable of the job's working directory; see slurm/job_functions.sh
CHECK_S = 1.0  # between two looks whether another rank has found bad input


class PeerRefused(Exception):
    """Another rank has found bad input, so that this one would wait for it in vain."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one of the commands and returns the exit status."""
    args = sys.argv[1:] if arguments is None else arguments
    command, rest = args[0] if args else "", args[1:]
    try:
        if command == "begin" and len(rest) >= 2:
            return begin(rest[0], tuple(rest[1:]))
        if command == "task" and len(rest) >= 2:
            return task(rest[0], tuple(rest[1:]))
        if command == "end" and len(rest) >= 3 and rest[0].isdigit():
            return end(int(rest[0]), rest[1], tuple(rest[2:]))
        if command == "enter" and len(rest) >= 2:
            return enter(rest[0], rest[1:])
        if command == "submitit" and rest:
            from launcher.backends.submitit import run_pickled_task
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            return run_pickled_task(rest[-1])
        print(__doc__, file=sys.stderr)
        return BAD_INPUT
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def enter(container: str, command: list[str]) -> int:
    """Replaces this process by a command in a container, which may start with a clean environment.

    The variables that the command needs are passed as arguments of `env`.

    Args:
        container: the command before it; $NAME stands for a variable of this host.

    Raises:
        BadInput: the container's program is missing, or a variable is not set.
    """
    names = ["".join(groups) for groups in re.findall(r"\$(?:(\w+)|\{(\w+)\})", container)]
    if undefined := [name for name in names if name not in os.environ]:
        raise BadInput(f"--container {container}: the environment variable {undefined[0]} is not set on "
                       f"{socket.gethostname()}. Set it by --setup, or write the path itself")
    prefix = [os.path.expandvars(word) for word in shlex.split(container)]
    imports = {} if (CODE / "__main__.py").is_file() else {"PYTHONPATH": str(CODE)}
    variables = {**container_environment(), **imports}
    try:
        os.execvp(prefix[0], [*prefix, "env", *(f"{name}={value}" for name, value in variables.items()), *command])
    except OSError as error:
        raise BadInput(f"--container {container}: cannot run {prefix[0]} on {socket.gethostname()}: {error.strerror}. "
                       "Load its module with --modules, or write its path") from error


def work_in_submission_folder() -> None:
    """Makes the working directory that of the job again, if a container has another one and sees that of the job."""
    with contextlib.suppress(OSError):
        os.chdir(os.environ.get(WORKING_FOLDER, "."))


def task(verb: str, arguments: tuple[str, ...]) -> int:
    """Runs one rank; returns its exit status, and 0 for an early stop or bad input."""
    work_in_submission_folder()
    status = run_rank(verb, arguments)
    return OK if status in (STOPPED, BAD_INPUT) else status


def run_rank(verb: str, arguments: tuple[str, ...]) -> int:
    """Runs one rank as a child process; returns its exit status.

    This process forwards signals and writes into the run folder that the rank has stopped early, failed or found bad
    input. Signals that come later are ignored, because the status shall not change.
    """
    environment, (run, config) = task_environment(), resolve_run(verb, arguments)
    rank, host = int(environment["RANK"]), socket.gethostname()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # torchrun's agent ignores it, as a program below nohup does
    watch_hangs = HangWatch(run, hang_timeout_s(config)) if rank == 0 else no_callback
    try:
        status = run_processes(Job(verb, arguments), [environment], watch_peers(run, watch_hangs))
    except PeerRefused:
        status = BAD_INPUT
    for number in FORWARDED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if status == STOPPED:
        write_text(run / STOPPED_EARLY_FILE, "")
    elif status == BAD_INPUT:
        write_text(run / BAD_INPUT_FILE, "")
    elif status != OK:
        cause = describe_status(128 - status if status > 128 else status)
        print(f"rank {rank} on {host} ended with {cause}", file=sys.stderr, flush=True)
        write_json(run / FAILED_RANKS_FOLDER / f"rank-{rank:05d}.json",
                   {"rank": rank, "host": host, "how": cause, "signal": status > 128, "at": time.time()})
    return status


def watch_peers(run: Path, on_poll: Callable[[], None]) -> Callable[[], None]:
    """Returns a callback that calls `on_poll`, and raises PeerRefused when another rank has found bad input."""
    checked_at = time.monotonic()

    def watch() -> None:
        nonlocal checked_at
        on_poll()
        if time.monotonic() - checked_at < CHECK_S:
            return
        checked_at = time.monotonic()
        if (run / BAD_INPUT_FILE).exists():
            raise PeerRefused
    return watch


if __name__ == "__main__":
    sys.exit(main())
