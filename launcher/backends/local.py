"""Runs a job here: one process for each GPU of this machine, or one on its CPU."""

import os
import signal
import subprocess
import sys
import time
from typing import Callable

from detector.errors import BAD_INPUT, FAILED, OK, STOPPED, BadInput
from launcher.job import CODE, Job, program
from launcher.rank_env import free_port, local_environment

pass
from launcher.run_info import run_of, status_of

GRACE_S = 20.0  # between asking the other processes to end and ending them
KEPT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
RESTARTABLE = ("train", "evaluate")  # go on, or begin again, when they are started again
FORWARDED = (*KEPT, signal.SIGINT)


def nothing() -> None:
    """What is looked at when there is nothing to look at."""


def run_here(job: Job, look: Callable[[], None] = nothing) -> int:
    """One process for each rank of this machine; gives the exit status of the job."""
    asked = job.resources.processes or job.resources.gpus
    world, port = asked or (gpus_here() or 1 if job.verb in ("train", "evaluate") else 1), free_port()
    return run_processes(job, [local_environment(rank, world, port) for rank in range(world)], look)


def run_command(command: list[str], environment: dict[str, str]) -> int:
    """One program that takes care of the processes by itself, such as torchrun; signals are handed on."""
    return run_all([lambda: subprocess.Popen(command, env=environment)], frozenset(), nothing)


def run_processes(job: Job, environments: list[dict[str, str]], look: Callable[[], None] = nothing) -> int:
    """Starts a process in each environment, hands signals on, and gives the exit status of the job.

    0 if all ended well, 75 if all stopped early; else the status of the first that failed, after the others were ended.
    `look` is called now and then while they run.
    """
    starts = [lambda environment=environment: start(job, environment) for environment in environments]
    return run_all(starts, set(KEPT) if job.verb in RESTARTABLE else frozenset(), look)


def run_all(starts: list[Callable[[], subprocess.Popen]], stopping: set[int], look: Callable[[], None]) -> int:
    """`stopping`: the signals of which a process may end, when they were sent here, without having failed."""
    processes: list[subprocess.Popen] = []
    asked: set[int] = set()

    def forward(number: int, _frame) -> None:
        # A terminal sends Ctrl-C to all by itself, and twice means: at once. `kill -INT` goes to this process alone.
        if number == signal.SIGINT and stopping:
            number = signal.SIGTERM
        elif number == signal.SIGINT and at_a_terminal():
            return
        asked.add(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)
    old = {number: signal.signal(number, forward) for number in FORWARDED}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, KEPT)
    try:
        for start_one in starts:
            processes.append(start_one())
            for number in asked & set(KEPT):  # one that came while it was being started
                processes[-1].send_signal(number)
        return wait(processes, asked, stopping, look)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def at_a_terminal() -> bool:
    """Is this in the foreground of one, which sends Ctrl-C to the processes, too?"""
    try:
        with open("/dev/tty", encoding="utf-8") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def start(job: Job, environment: dict[str, str]) -> subprocess.Popen:
    """It starts with the stop signals blocked, and lets them in when it can note them: none is lost."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, KEPT)
    try:
        return subprocess.Popen(job.command(), env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def gpus_here() -> int:
    """How many GPUs PyTorch can use; imported late because it takes seconds."""
    import torch
    return torch.cuda.device_count()


def wait(processes: list[subprocess.Popen], asked: set[int] = frozenset(), stopping: set[int] = frozenset(KEPT),
         look: Callable[[], None] = nothing) -> int:
    """The status of the job, once all its processes have ended.

    A process that a signal in `asked` ended was still starting up: it had nothing to save, and counts as stopped early.
    """
    while True:
        look()
        ended = [process.poll() for process in processes]
        statuses = [STOPPED if -(status or 0) in asked & stopping else status for status in ended]
        failed = [(rank, status) for rank, status in enumerate(statuses) if status not in (None, OK, STOPPED)]
        if failed:
            rank, status = failed[0]
            if len(processes) > 1 and status != BAD_INPUT:
                print(f"rank {rank} ended with {meaning(status)}; ending the others", file=sys.stderr)
            end(processes)
            return status if status > 0 else 128 - status
        if all(status is not None for status in statuses):
            return max(statuses, default=OK)
        time.sleep(0.05)


def end(processes: list[subprocess.Popen]) -> None:
    """Kills what does not end by itself: without a peer a rank waits in a collective and can save nothing."""
    until = time.monotonic() + (GRACE_S if len(processes) > 1 else 0)
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def meaning(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def processes_here(wish: int, device: str, most: int) -> int:
    """How many processes to start: as wished, or one for each GPU (`most` at the most), or one on the CPU.

    Raises BadInput for more than there are GPUs, once, before any process would say so.
    """
    count = gpus_here() if device != "cpu" and wish != 1 else 0
    if device == "cuda" and count == 0 and wish != 1:
        raise BadInput("run.device=cuda: this machine has no GPU that PyTorch can use; set run.device=cpu")
    if count and wish > count:
        raise BadInput(f"--processes {wish}: more processes than GPUs, of which this machine has {count}. Start at "
                       f"most {count}, or set run.device=cpu")
    return wish or min(count or 1, most or count or 1)

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"  # by default torchrun dies of the last two
SHUTDOWN_S = 600  # by default it kills, 30 s after a signal, what is still saving


def torchrun_command(job: Job) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.resources.per_node}",
            f"--signals-to-handle={SIGNALS}", *program(CODE, "detector"), job.verb, *job.arguments]


def run_torchrun(job: Job) -> int:
    """The exit status of the job. torchrun itself gives 1 for all but 0, so a training is asked what became of it."""
    started_at = time.time()
    status = run_command(torchrun_command(job), {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S), **os.environ})
    if status == OK or job.verb != "train":
        return status
    said = status_of(run_of(job.verb, job.arguments)[0])
    return STOPPED if said.get("state") == "stopped" and said["at"] >= started_at else FAILED
