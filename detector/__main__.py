"""`python -m detector VERB ...`, which torchrun and every launcher run: exit statuses, errors and stop signals."""

import argparse
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from detector.arguments.verbs import parse
from detector.cli import is_collective, run_collective, run_single
from detector.distributed import rank_info
from detector.distributed.rank_info import is_launched, local_rank, rank, world_size
from detector.distributed.stop_signal import Interruption, StopRequest, terminate_with_parent
from detector.errors import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    BadInput,
    MachineError,
    NotFinite,
    escape_unprintable,
    interrupted_line,
    lasting_output,
    open_closed_streams,
    use_utf8,
)
from detector.run.machine_errors import explain, is_closed_output, is_lost_peer

# The line for a second Ctrl-C, by verb.
STOPPED_AT_ONCE = {"train": "stopped at once: the same command continues from the newest checkpoint",
                   "evaluate": "stopped at once: nothing was written"}


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb; returns the exit status: 0 done, 2 bad input, 75 stopped early, 130 Ctrl-C, 1 others."""
    if arguments is None:
        use_utf8()
        open_closed_streams()
    escape_unprintable()
    if is_launched():
        terminate_with_parent()
    try:
        args = parse(sys.argv[1:] if arguments is None else arguments)
    except BadInput as error:
        return report(error, BAD_INPUT)
    if not is_collective(args):
        return report_errors(lambda: run_interruptible(args))
    # Before torch is imported, which takes seconds: a stop may be requested meanwhile.
    with lasting_output(), StopRequest() as stop:
        status = report_errors(lambda: run_collective(args, stop), STOPPED_AT_ONCE[args.verb])
        stop.ignore_further_signals()
        return status


def run_interruptible(args: argparse.Namespace) -> int:
    """Runs a verb of one process, which Ctrl-C ends, and returns the exit status."""
    with Interruption() as interruption:
        try:
            return run_single(args)
        except Exception:
            if interruption.requested:  # a library has made an error of its own of it
                raise KeyboardInterrupt from None
            raise


def report_errors(function: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Returns the exit status of `function`, or of the error that it raises; an error the user can fix is one line.

    Args:
        interrupted: the line for Ctrl-C.
    """
    try:
        return function()
    except BadInput as error:
        return report(error, BAD_INPUT)
    except (NotFinite, MachineError) as error:
        return report(error, FAILED)
    except KeyboardInterrupt:
        if rank() == 0:
            print_error(interrupted_line(interrupted))
        return exit_alone(INTERRUPTED)
    except Exception as error:
        if is_closed_output(error):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter fails again at its exit
            return exit_alone(FAILED)
        return report_unexpected(error)


def report(error: Exception, status: int) -> int:
    """Prints an error that all ranks raise, once; returns the status.

    Before the process group is open, a machine may have an error of its own, such as a file that only it cannot read.
    """
    if rank() == 0 or (local_rank() == 0 and not rank_info.is_joined):
        print_error(f"error: {error}")
    return status


def report_unexpected(error: Exception) -> int:
    """Reports an error that this rank may be the only one to have: as one line if its cause is the machine."""
    explained = explain(error)
    if explained:
        print_error(f"error: {explained[0]}")
        return exit_alone(explained[1])
    if world_size() > 1 and is_lost_peer(error):
        print_error(f"rank {rank()} on {socket.gethostname()} has lost the connection to another rank, which has "
                    "ended first")
        return exit_alone(FAILED)
    if world_size() == 1:
        raise error
    traceback.print_exc()
    return exit_alone(FAILED)


def print_error(text: str) -> None:
    """Prints to stderr, if there is one."""
    with contextlib.suppress(OSError, AttributeError):
        print(text, file=sys.stderr, flush=True)


def exit_alone(status: int) -> int:
    """Returns the status; with other ranks, ends the process at once.

    This rank may be the only one with the error. The others may wait in a collective, and a normal exit would wait for
    them in turn.
    """
    if world_size() > 1:
        with contextlib.suppress(OSError, AttributeError):
            sys.stderr.flush()
        os._exit(status)
    return status


def end_process(status: int) -> NoReturn:
    """Ends the process; after Ctrl-C at once, without waiting for threads and worker processes."""
    if status == INTERRUPTED:
        for child in multiprocessing.active_children():
            child.kill()
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done
    sys.exit(status)


if __name__ == "__main__":
    end_process(main())
