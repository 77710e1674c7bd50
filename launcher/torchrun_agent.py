"""torchrun, without its report of failed processes and with their exit status. Takes torchrun's arguments.

The processes print their own errors. torchrun adds two tracebacks to each, and ends with 1 for every status but 0.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from detector.distributed.stop_signal import terminate_with_parent
from detector.errors import BAD_INPUT, FAILED, INTERRUPTED, OK, STOPPED
from launcher.processes import FORWARDED_SIGNALS, describe_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs torchrun; returns the exit status of its processes, and STOPPED after a signal."""
    terminate_with_parent()
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    logging.disable(logging.ERROR)
    try:
        run.run(run.parse_args(arguments))
    except SignalException:
        wait_for_children()
        return STOPPED
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        return report_failure(rank, first.exitcode, [failure.exitcode for failure in error.failures.values()])
    return OK


def wait_for_children() -> None:
    """Waits for the processes, which save a checkpoint now: torchrun leaves them behind at a second signal."""
    for number in FORWARDED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def report_failure(rank: int, status: int, statuses: Sequence[int]) -> int:
    """Returns the exit status of processes that did not all end with 0; prints which rank failed first.

    Args:
        rank, status: of the process that ended first, as subprocess.Popen gives it: -N for signal N.
        statuses: of all processes that did not end with 0. torchrun has terminated those that ended later.
    """
    for expected in (BAD_INPUT, INTERRUPTED, STOPPED):  # the rank has printed why
        if expected in statuses and status in (expected, STOPPED):
            return expected
    if len(statuses) > 1 or status != FAILED:
        print(f"rank {rank} ended with {describe_status(status)}; the other ranks are terminated", file=sys.stderr)
    return status if status > 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
