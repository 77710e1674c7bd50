"""A lock on a folder, which lasts as long as a block of code. It ends with its process, also if that is killed."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from detector.errors import BadInput


@contextlib.contextmanager
def folder_lock(folder: Path, refusal: str = "") -> Iterator[None]:
    """Holds the lock of a folder, where its file system has locks; other code that takes it here waits.

    Args:
        refusal: the error where another process holds the lock, in place of waiting; "": it is waited for.

    Raises:
        BadInput: the refusal.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
            except BlockingIOError as error:
                raise BadInput(refusal) from error
        yield
    finally:
        os.close(handle)
