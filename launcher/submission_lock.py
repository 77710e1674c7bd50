"""The lock from the check whether a run is free until its job is recorded, for submissions and for starting jobs.

A file in the run folder is locked with flock, as owner.lock of the process that trains is. Disks without locks are used
without one.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from detector.errors import BadInput
from detector.run.files import SUBMISSION_LOCK_FILE, cannot_write
from launcher.slurm_commands import SubmissionInterrupted, SubmissionUnanswered

WAIT_S = 120.0  # for another submission of the same run, which may wait for a slow controller
CHECK_S = 0.1


@contextlib.contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """A context in which no other submission, and no other starting job, checks or changes the run.

    Raises:
        BadInput: another process has held the lock for WAIT_S, or the run folder cannot be written.
    """
    file = open_locked(run / SUBMISSION_LOCK_FILE)
    try:
        yield
    finally:
        file.close()


def open_locked(path: Path) -> TextIO:
    """Opens and locks a file, which is created where it is missing; closing it releases the lock."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a", encoding="utf-8")
        except FileNotFoundError:  # a submission that sbatch refused has removed the folder
            continue
        except OSError as error:
            raise cannot_write(path, error) from error
        if is_locked_now(file) and is_file_of(path, file):
            return file
        file.close()
        if time.monotonic() > deadline:
            raise BadInput(f"{path.parent.parent} is being submitted by another process, for {WAIT_S:.0f} s now. Wait "
                           f"for it; if there is none, remove {path}")
        time.sleep(CHECK_S)


def is_locked_now(file: TextIO) -> bool:
    """Locks an open file, and returns whether that succeeded; True as well on a disk without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_file_of(path: Path, file: TextIO) -> bool:
    """Returns whether an open file is still the one at a path, and was not removed by the last owner of its lock."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def missing_folders(run: Path) -> list[Path]:
    """Returns the folders that a submission would create, the innermost first."""
    return [folder for folder in (run / "slurm", run, *run.parents) if not folder.exists()]


@contextlib.contextmanager
def remove_if_failed(run: Path, missing: list[Path]) -> Iterator[None]:
    """A context inside `lock_run`: an exception removes what was created in the run folder since.

    The files stay where nobody knows whether the job is in the queue: without them it could not run.

    Args:
        missing: the folders that were missing before the lock was taken; they are removed if they are empty.
    """
    before = files_of(run)
    try:
        yield
    except (SubmissionUnanswered, SubmissionInterrupted):
        raise
    except BaseException:
        for path in files_of(run) - before | {run / SUBMISSION_LOCK_FILE}:
            remove(path)
        for folder in missing:
            with contextlib.suppress(OSError):  # it holds something else
                folder.rmdir()
        raise


def files_of(run: Path) -> set[Path]:
    """Returns the files and folders in a run folder, and in its folder slurm."""
    return {*run.glob("*"), *run.glob("slurm/*")} - {run / "slurm"}


def remove(path: Path) -> None:
    """Removes a file, or a folder with its content."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
