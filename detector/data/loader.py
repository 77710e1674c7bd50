"""Loads batches in worker processes."""

import threading
from contextlib import contextmanager
from typing import Iterable, Iterator

from torch.utils.data import DataLoader

from detector.data.dataset import DetectionDataset, Example
from detector.data.packed_batch import PackedBatch, pack, unpack
from detector.data.workers import start_worker, worker_context
from detector.structures import ceil_div

Batch = tuple[list, list]  # images: uint8 [3, H, W] each; targets: a dict of tensors each, see dataset.py

POLL_S = 0.5   # longest wait of BatchIterator.poll, so that a rank without data can vote in between
GRACE_S = 2.0  # time for workers to exit by themselves before they are killed; a worker on a hanging disk does not exit


class BatchIterator:
    """Iterates over the batches of a DataLoader. `next` waits for a batch, `poll` waits POLL_S at most."""

    def __init__(self, loader: DataLoader):
        self.inner = iter(loader)

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Batch:
        while (batch := self.poll()) is None:
            pass
        return batch

    def poll(self) -> Batch | None:
        """Returns the next batch, or None if none arrived within POLL_S; without workers, loads the batch itself."""
        try:
            return unpack(next(self.inner))
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):
                raise
            return None


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
    batches = BatchIterator(DataLoader(
        dataset, batch_sampler=sampler, num_workers=num_workers, collate_fn=pack_examples, pin_memory=pin_memory,
        worker_init_fn=start_worker, prefetch_factor=prefetch, timeout=POLL_S if num_workers else 0,
        multiprocessing_context=worker_context() if num_workers else None))
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
