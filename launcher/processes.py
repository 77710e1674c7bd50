"""Processes on this machine that form one job: started together, signalled together, one exit status."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Callable, Collection

from detector.errors import BAD_INPUT, INTERRUPTED, OK, STOPPED
from launcher.job import LAUNCHED_VERBS, Job

GRACE_S = 20.0  # between SIGTERM and SIGKILL, for the ranks that are left after one has failed
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
FORWARDED_SIGNALS = (*STOP_SIGNALS, signal.SIGINT)


def no_callback() -> None:
    """Does nothing: the default of `on_poll`."""


def run_processes(job: Job, environments: list[dict[str, str]], on_poll: Callable[[], None] = no_callback) -> int:
    """Starts one process of the job in each environment, forwards signals, and waits for all of them.

    Args:
        environments: the environment variables of each process, in the order of the ranks.
        on_poll: called about 20 times per second while the processes run. Its OSErrors are ignored; another exception
            ends the processes.

    Returns:
        0 if all processes ended with 0; 75 if some stopped early and none failed; otherwise the exit status of the
        first that failed, or 128 + the number of the signal that killed it. The other processes are then terminated.
    """
    starters = [lambda environment=environment: start_process(job, environment) for environment in environments]
    return run_all(starters, set(STOP_SIGNALS) if job.verb in LAUNCHED_VERBS else frozenset(), on_poll)


def run_command(command: list[str], environment: dict[str, str]) -> int:
    """Runs one program that manages processes itself, such as torchrun; forwards signals, returns its exit status."""
    return run_all([lambda: subprocess.Popen(command, env=environment)], frozenset(), no_callback)


def run_all(starters: list[Callable[[], subprocess.Popen]], stop_signals: Collection[int],
            on_poll: Callable[[], None]) -> int:
    """Starts processes, forwards signals and waits, as `run_processes` does.

    Args:
        stop_signals: if this launcher has received one of these signals, a process that was killed by that signal
            counts as stopped early.
    """
    processes: list[subprocess.Popen] = []
    requested: set[int] = set()  # signals that this process has received

    def forward(number: int, _frame) -> None:
        # A terminal sends Ctrl-C to the processes too, and they take a second SIGINT as a request to stop at once
        # without saving. `kill -INT` reaches only this process. SIGTERM is safe in both cases.
        if number == signal.SIGINT and stop_signals:
            number = signal.SIGTERM
        elif number == signal.SIGINT and in_terminal_foreground():
            return
        requested.add(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)
    old_handlers = {number: signal.signal(number, forward) for number in FORWARDED_SIGNALS
                    if not is_hangup_ignored(number)}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        for starter in starters:
            processes.append(starter())
            for number in requested & set(STOP_SIGNALS):  # received while the process was being started
                processes[-1].send_signal(number)
        return wait_for_all(processes, requested, stop_signals, on_poll)
    except BaseException:  # of on_poll
        terminate_all(processes)
        raise
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)


def is_hangup_ignored(number: int = signal.SIGHUP) -> bool:
    """Returns whether the signal is SIGHUP, and this process ignores it, as below nohup; its processes then do, too."""
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def in_terminal_foreground() -> bool:
    """Returns whether this process is in the foreground group of a terminal, all of which receives Ctrl-C."""
    try:
        with open("/dev/tty", encoding="utf-8") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def start_process(job: Job, environment: dict[str, str]) -> subprocess.Popen:
    """Starts a process with the signals blocked. The process unblocks them once it can handle them."""
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED_SIGNALS)
    try:
        return subprocess.Popen(job.command(), env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def wait_for_all(processes: list[subprocess.Popen], requested: Collection[int] = frozenset(),
                 stop_signals: Collection[int] = frozenset(STOP_SIGNALS),
                 on_poll: Callable[[], None] = no_callback) -> int:
    """Waits until all processes have ended, or one has failed; returns the exit status of the job.

    A process that a stop signal killed was still starting up and had nothing to save: it counts as stopped early.
    """
    while True:
        with contextlib.suppress(OSError):  # a network disk that fails for a moment, or a terminal that is gone
            on_poll()
        polled = [process.poll() for process in processes]
        stopping = set(requested) & set(stop_signals)
        statuses = [STOPPED if was_stopped_by_signal(status, stopping) else status for status in polled]
        failures = [(rank, status) for rank, status in enumerate(statuses) if status not in (None, OK, STOPPED)]
        if failures:
            rank, status = failures[0]
            if status < 0 or len(processes) > 1 and status not in (BAD_INPUT, INTERRUPTED):
                print(describe_end(rank, status, len(processes)), file=sys.stderr)
            terminate_all(processes)
            return status if status > 0 else 128 - status
        if all(status is not None for status in statuses):
            return max(statuses, default=OK)
        time.sleep(0.05)


def was_stopped_by_signal(status: int | None, requested_signals: Collection[int]) -> bool:
    """Returns whether a process was killed by one of the signals; `status` is that of Popen.poll: -N for signal N."""
    return status is not None and status < 0 and -status in requested_signals


def terminate_all(processes: list[subprocess.Popen]) -> None:
    """Sends SIGTERM to the processes that still run, and SIGKILL after a grace period.

    A rank without its peers waits in a collective for ever, so it may ignore SIGTERM.
    """
    deadline = time.monotonic() + (GRACE_S if len(processes) > 1 else 0)
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def describe_end(rank: int, status: int, world_size: int) -> str:
    """Returns which of several ranks failed, or that the only process did, and how, with the likely cause."""
    process, others = (f"rank {rank}", "; terminating the other ranks") if world_size > 1 else ("the process", "")
    cause = " (the usual cause is a lack of memory)" if status == -signal.SIGKILL else ""
    return f"{process} ended with {describe_status(status)}{cause}{others}"


def describe_status(status: int) -> str:
    """Returns "exit status 3", or "signal SIGKILL" for -9."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
