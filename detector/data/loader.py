"""Keys -> batches, in worker processes."""

import threading
from contextlib import contextmanager
from typing import Iterable, Iterator

from torch.utils.data import DataLoader

from detector.data.dataset import DetectionDataset, Example
from detector.data.packed_batch import Packed, pack, unpack
from detector.data.workers import start_worker, worker_context

Batch = tuple[list, list]  # images: uint8 [3, H, W] each; targets: a dict of tensors each, see examples.py

SLICE_S = 0.5  # a batch is waited for in slices of this, so that a rank can vote in between
GRACE_S = 2.0  # for workers to end by themselves; one that reads from a disk that hangs does not


class BatchIterator:
    """The batches of some keys, in their order. Iterating waits for each; `take` only for a while."""

    def __init__(self, loader: DataLoader):
        self.inner = iter(loader)

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Batch:
        while (batch := self.take()) is None:
            pass
        return batch

    def take(self) -> Batch | None:
        """The next batch, or None: it was not there within SLICE_S. Without workers it is loaded here and now."""
        try:
            return unpack(next(self.inner))
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):
                raise
            return None


@contextmanager
def open_loader(examples: DetectionDataset, keys: Iterable[list[tuple[int, int]]], workers: int, pin: bool,
                 turns: int = 1) -> Iterator[BatchIterator]:
    """The batches of these keys; `pin` puts them where a GPU can fetch them without waiting, `turns` of them are taken
    at once.

    Leaving the context ends the workers. Left to the interpreter's exit they would be sent SIGTERM, which they ignore,
    and be waited for without end.
    """
    ahead = max(4, -(-2 * turns // workers)) if workers else None  # the next step is loaded during this one
    batches = BatchIterator(DataLoader(examples, batch_sampler=keys, num_workers=workers, collate_fn=packed, pin_memory=pin,
                                 worker_init_fn=start_worker, prefetch_factor=ahead,
                                 timeout=SLICE_S if workers else 0,
                                 multiprocessing_context=worker_context() if workers else None))
    try:
        yield batches
    finally:
        if workers:
            end_workers(batches)


def end_workers(batches: BatchIterator) -> None:
    """DataLoader has no public way to end its workers, and its own waits long for each that does not end."""
    ending = threading.Thread(target=batches.inner._shutdown_workers, daemon=True)
    ending.start()
    ending.join(GRACE_S)
    for worker in batches.inner._workers:
        if worker.is_alive():
            worker.kill()
    ending.join()


def packed(examples: list[Example]) -> Packed:
    return pack(collate(examples))


def collate(examples: list[Example]) -> Batch:
    """Lists, because images differ in size until the device resizes and pads them."""
    return [image for image, _ in examples], [target for _, target in examples]
