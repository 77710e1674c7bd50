"""The processes that load batches: where they come from, and that they leave stop signals to the training process.

Torch is not imported here, so that their server can be started first of all.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver, resource_tracker

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def worker_context() -> multiprocessing.context.BaseContext:
    """Workers are forked from a server without threads, never from the training process.

    A fork of that may happen while a thread of gloo or NCCL holds a lock of the interpreter; the worker then waits for
    it for ever. The server is started with the stop signals blocked, and so are its workers. It imports torch, which
    takes seconds: asked for early, it does so beside the process that asked.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["detector.data.dataset"])
    resource_tracker.ensure_running()  # the server would start it, and starting it unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def start_worker(_worker: int) -> None:
    """A worker leaves signals to its training process, and ends with it, also where that was killed."""
    ignore_stop_signals()

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)
    threading.Thread(target=end_with_parent, daemon=True).start()


def ignore_stop_signals() -> None:
    """Slurm signals every process of a job; a worker that ended early would take its training process with it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
