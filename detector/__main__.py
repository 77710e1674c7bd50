"""`python -m detector VERB ...`, which torchrun and every launcher run: exit statuses, errors and stop signals."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable

from detector.cli import is_collective, parse, run_collective, run_single
from detector.distributed.rank_info import local_rank, world_size
from detector.distributed.stop_signal import SIGNALS, StopRequest
from detector.errors import BAD_INPUT, FAILED, BadInput, NotFinite, escape_unprintable

# Disk full, over quota, file too large, read-only, permission denied.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb; returns the exit status: 0 done, 2 bad input, 75 stopped early, 1 any other error."""
    escape_unprintable()
    args = parse(arguments)
    if not is_collective(args):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the launcher may have blocked them
        return report_errors(lambda: run_single(args))
    with StopRequest() as stop:  # before torch is imported, which takes seconds: a stop may be requested meanwhile
        status = report_errors(lambda: run_collective(args, stop))
        stop.ignore_further_signals()
        return status


def report_errors(function: Callable[[], int]) -> int:
    """Returns the exit status of `function`, or of the error that it raises; an error the user can fix is one line."""
    try:
        return function()
    except BadInput as error:
        if local_rank() == 0:  # all ranks of a machine raise the same error
            print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # the reader of stdout has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter fails again when it exits
        return exit_alone(FAILED)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            return report_unexpected()
        print(f"error: {error.filename or 'a file'}: {error.strerror}. Check its permissions and the space on its "
              "disk, or name another folder (run.folder, data.cache, --out)", file=sys.stderr)
        return exit_alone(BAD_INPUT)
    except NotFinite as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except Exception:
        return report_unexpected()


def report_unexpected() -> int:
    """Prints the traceback of the error that is being handled, or raises it again if this is the only process."""
    if world_size() == 1:
        raise
    traceback.print_exc()
    return exit_alone(FAILED)


def exit_alone(status: int) -> int:
    """Returns the status; with other ranks, ends the process at once.

    This rank may be the only one with the error. The others may wait in a collective, and a normal exit would wait for
    them in turn.
    """
    if world_size() > 1:
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
