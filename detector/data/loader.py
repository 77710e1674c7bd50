"""Keys -> batches, in worker processes that leave stop signals to the training process."""

import signal
from typing import Iterable, Iterator

import numpy as np
from torch.utils.data import DataLoader

from detector.data.batches import plan_epoch
from detector.data.examples import Example, Examples

Batch = tuple[list, list]  # images: uint8 [3, H, W] each; targets: a dict of tensors each, see examples.py

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class TrainKeys:
    """The keys of every micro-batch of one rank, from `first_step` to `last_step`, over all epochs.

    Iterating anew begins anew: DataLoader asks for the iterator twice when it has workers.
    """

    def __init__(self, seed: int, sizes: np.ndarray, global_batch: int, micro: list[range], first_step: int,
                 last_step: int, steps: int):
        self.seed, self.sizes, self.global_batch, self.micro = seed, sizes, global_batch, micro
        self.first_step, self.last_step, self.steps = first_step, last_step, steps

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * len(self.micro)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        plan, planned = None, -1
        for step in range(self.first_step, self.last_step):
            epoch, row = divmod(step, self.steps)
            if epoch != planned:
                plan, planned = plan_epoch(self.seed, epoch, self.sizes, self.global_batch), epoch
            for columns in self.micro:
                yield [(epoch, int(plan[row, column])) for column in columns]


def batches(examples: Examples, keys: Iterable[list[tuple[int, int]]], workers: int, pin: bool) -> DataLoader:
    """The batches of these keys, in their order; `pin` puts them where a GPU can fetch them without waiting."""
    return DataLoader(examples, batch_sampler=keys, num_workers=workers, collate_fn=collate, pin_memory=pin,
                      worker_init_fn=ignore_stop_signals, prefetch_factor=4 if workers else None)


def collate(examples: list[Example]) -> Batch:
    """Lists, because images differ in size until the device resizes and pads them."""
    return [image for image, _ in examples], [target for _, target in examples]


def ignore_stop_signals(_worker: int) -> None:
    """Slurm signals every process of a job; a worker that ended early would take its training process with it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
