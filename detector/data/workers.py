"""The worker processes of data loaders: how they are started, and that they ignore stop signals.

This module does not import torch, so that the fork server can be started before anything else is loaded.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
from multiprocessing import forkserver, resource_tracker, util

from detector.distributed import rank_info
from detector.distributed.stop_signal import SIGNALS
from detector.errors import BadInput

OPEN_FILES = 65536       # limit that is asked for
MAX_SOCKET_FOLDER = 88   # bytes: the path of a socket has at most 107, of which its name takes 19
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def worker_context() -> multiprocessing.context.BaseContext:
    """Returns the multiprocessing context for workers, and starts its fork server.

    Workers are forked from a server process without threads, never from the training process: a fork taken while a
    thread of gloo or NCCL holds a lock would wait for that lock forever. The server starts with the stop signals
    blocked, which the workers inherit. The server imports torch, which takes seconds; an early call makes it do so in
    parallel with the caller's own start-up.
    """
    raise_file_limit()
    use_short_socket_folder()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["detector.data.dataset"])
    resource_tracker.ensure_running()  # or the start of the server starts it, which unblocks the stop signals again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def raise_file_limit() -> None:
    """Raises the limit of open files to what this user may have: each batch on its way from a worker takes a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def use_short_socket_folder() -> None:
    """Puts the sockets of workers into a short folder if the temporary folder is too long for the path of a socket.

    Raises:
        BadInput: there is no temporary folder with a short path.
    """
    if len(os.fsencode(util.get_temp_dir())) <= MAX_SOCKET_FOLDER:
        return
    config = multiprocessing.current_process()._config
    before, config["tempdir"] = config["tempdir"], None  # get_temp_dir would give the same folder again
    for folder in SHORT_FOLDERS:
        if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            default, tempfile.tempdir = tempfile.tempdir, folder
            try:
                util.get_temp_dir()
            finally:
                tempfile.tempdir = default
            if rank_info.local_rank() == 0:
                print(f"note: TMPDIR is too long for the sockets of loader workers, which are in {folder}",
                      file=sys.stderr)
            return
    config["tempdir"] = before
    raise BadInput(f"TMPDIR={tempfile.gettempdir()}: too long for the sockets of loader workers. Set TMPDIR to a path "
                   f"of at most {MAX_SOCKET_FOLDER - 14} characters, or run.num_workers=0")


def start_worker(_worker_id: int) -> None:
    """Initializes a worker: it ignores stop signals, and exits when its training process ends, even if killed."""
    ignore_stop_signals()

    def exit_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)
    threading.Thread(target=exit_with_parent, daemon=True).start()


def ignore_stop_signals() -> None:
    """Ignores stop signals. Slurm signals every process of a job, and a worker that exits early fails its training."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
