"""Loads batches in worker processes."""

import os
import shutil
import signal
import socket
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import Iterable, Iterator

from torch.utils.data import DataLoader

from detector.data.dataset import DetectionDataset, Example
from detector.data.packed_batch import PackedBatch, pack, unpack
from detector.data.workers import start_worker, worker_context
from detector.distributed.rank_info import rank
from detector.errors import MachineError, shorten
from detector.structures import ceil_div

Batch = tuple[list, list]  # images: uint8 [3, H, W] each; targets: a dict of tensors each, see dataset.py

POLL_S = 0.5   # longest wait of BatchIterator.poll, so that a rank without data can vote in between
DEATH_S = 1.0  # longest time from the closing of a worker's pipes to the end of its process
GRACE_S = 2.0  # time for workers to exit by themselves before they are killed; a worker on a hanging disk does not exit


class BatchIterator:
    """Iterates over the batches of a DataLoader. `next` waits for a batch, `poll` waits POLL_S at most.

    Args:
        requested: the keys of the batches that the loader has requested from its workers and not given yet.
    """

    def __init__(self, loader: DataLoader, requested: deque[list[tuple[int, int]]]):
        self.loader, self.requested = loader, requested
        self.inner = iter(loader)

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Batch:
        while (batch := self.poll()) is None:
            pass
        return batch

    def poll(self) -> Batch | None:
        """Returns the next batch, or None if none arrived within POLL_S; without workers, loads the batch itself.

        Raises:
            MachineError: a worker was killed.
        """
        try:
            batch = unpack(next(self.inner))
        except StopIteration:
            raise
        except Exception as error:
            if str(error).startswith("DataLoader timed out"):
                return None
            is_passed_on = "DataLoader worker process" in str(error)  # an exception that a living worker raised
            dead = None if is_passed_on else self.dead_worker()
            if dead is None:
                raise
            raise MachineError(self.describe_end(dead)) from error
        self.requested.popleft()
        return batch

    def workers(self) -> list:
        """Returns the worker processes; [] where batches are loaded in this process."""
        return getattr(self.inner, "_workers", [])

    def dead_worker(self) -> int | None:
        """Returns the number of a worker that has ended, or ends within DEATH_S; its pipes are closed earlier."""
        deadline = time.monotonic() + DEATH_S
        while True:
            for number, worker in enumerate(self.workers()):
                if worker.exitcode is not None:
                    return number
            if time.monotonic() > deadline:
                return None
            time.sleep(0.01)

    def describe_end(self, number: int) -> str:
        """Returns how a worker ended, what it was reading, and what to do."""
        worker = self.workers()[number]
        tasks = [task for _, task in sorted(self.inner._task_info.items())]
        position = tasks.index((number,)) if (number,) in tasks else None
        reading = ""
        if position is not None and position < len(self.requested):
            dataset = self.loader.dataset.dataset
            paths = [dataset.path(entry % len(dataset)) for _, entry in self.requested[position]]
            reading = f" while it read {shorten(paths)}"
        return (f"loader worker {number} of rank {rank()} on {socket.gethostname()} (process {worker.pid}) "
                f"{describe_exit(worker.exitcode)}{reading}. {likely_cause(worker.exitcode, len(self.workers()))}")


def describe_exit(code: int) -> str:
    """Returns how a process ended; `code` is that of multiprocessing: -N for signal N."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"


def likely_cause(code: int, num_workers: int) -> str:
    """Returns the likely cause of the end of a worker, and a remedy."""
    if code > 0:
        return ('Its own error is printed above. In a script, put the call below `if __name__ == "__main__":`, because '
                "every worker runs the script again")
    fewer = f"Lower run.num_workers ({num_workers} now)"
    if code == -signal.SIGBUS:
        size = shutil.disk_usage("/dev/shm").total / 2**20 if os.path.isdir("/dev/shm") else 0
        return f"/dev/shm is full (its size is {size:.0f} MiB). {fewer}, or enlarge it (docker: --shm-size=8g)"
    if code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE):
        return "A library crashed. If it is always the same image, remove it; run.num_workers=0 shows where it crashes"
    return (f"The usual cause is a lack of memory. {fewer}, or request more memory (on Slurm --memory-gib). The same "
            "command continues the run")


class KeyRecorder:
    """The keys of a sampler, which are also appended to `requested`."""

    def __init__(self, sampler: Iterable[list[tuple[int, int]]], requested: deque[list[tuple[int, int]]]):
        self.sampler, self.requested = sampler, requested

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for keys in self.sampler:
            self.requested.append(keys)
            yield keys


@contextmanager
def open_loader(dataset: DetectionDataset, sampler: Iterable[list[tuple[int, int]]], num_workers: int, pin_memory: bool,
                micro_batches: int = 1) -> Iterator[BatchIterator]:
    """Opens a loader of the batches that `sampler` lists; leaving the context ends its workers.

    Workers that are left to the interpreter's exit would receive SIGTERM, which they ignore, and the process would wait
    for them without a limit.

    Args:
        sampler: the keys (epoch, index) of each batch.
        num_workers: worker processes; 0 loads in this process.
        pin_memory: copy batches to page-locked memory, from which a GPU fetches them asynchronously.
        micro_batches: batches that one step takes; the workers load the next step's during this one.
    """
    prefetch = max(4, ceil_div(2 * micro_batches, num_workers)) if num_workers else None
    requested: deque[list[tuple[int, int]]] = deque()
    batches = BatchIterator(DataLoader(
        dataset, batch_sampler=KeyRecorder(sampler, requested), num_workers=num_workers, collate_fn=pack_examples,
        pin_memory=pin_memory, worker_init_fn=start_worker, prefetch_factor=prefetch,
        timeout=POLL_S if num_workers else 0, multiprocessing_context=worker_context() if num_workers else None),
        requested)
    try:
        yield batches
    finally:
        if num_workers:
            end_workers(batches)


def end_workers(batches: BatchIterator) -> None:
    """Shuts the workers down and kills those that are alive after GRACE_S.

    DataLoader has no public method for this, and its private one waits long for each worker that does not exit.
    """
    shutdown = threading.Thread(target=batches.inner._shutdown_workers, daemon=True)
    shutdown.start()
    shutdown.join(GRACE_S)
    for worker in batches.inner._workers:
        if worker.is_alive():
            worker.kill()
    shutdown.join()


def pack_examples(examples: list[Example]) -> PackedBatch:
    return pack(collate(examples))


def collate(examples: list[Example]) -> Batch:
    """Returns lists, because images differ in size until the device resizes and pads them."""
    return [image for image, _ in examples], [target for _, target in examples]
