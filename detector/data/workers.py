"""The worker processes of data loaders: how they are started, and that they ignore stop signals.

This module does not import torch, so that the fork server can be started before anything else is loaded.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver, resource_tracker

from detector.distributed.stop_signal import SIGNALS


def worker_context() -> multiprocessing.context.BaseContext:
    """Returns the multiprocessing context for workers, and starts its fork server.

    Workers are forked from a server process without threads, never from the training process: a fork taken while a
    thread of gloo or NCCL holds a lock would wait for that lock forever. The server starts with the stop signals
    blocked, which the workers inherit. The server imports torch, which takes seconds; an early call makes it do so in
    parallel with the caller's own start-up.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["detector.data.dataset"])
    resource_tracker.ensure_running()  # or the start of the server starts it, which unblocks the stop signals again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


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
