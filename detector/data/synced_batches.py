"""The next batches, on all ranks together: a rank that waits for its data still votes."""

import socket
import time
from dataclasses import dataclass
from typing import Callable

from detector.data.dataset import unreadable_messages
from detector.data.loader import SLICE_S, Batch, BatchIterator
from detector.distributed import collectives, rank_info
from detector.errors import BadInput


@dataclass(frozen=True)
class FetchPolicy:
    """How to wait: what ends it, and who is told."""

    requested: Callable[[], bool]             # was this rank asked to stop?
    refuse: bool                          # is an image that cannot be read an error?
    patience_s: float                     # after which a batch that has not come is an error
    beat: Callable[[str], None] = lambda phase: None
    trouble: Callable[[], Exception | None] = lambda: None  # whatever else is wrong on this rank


@dataclass(frozen=True)
class Fetched:
    """What came of it. The last two are the same on all ranks."""

    batches: list[Batch]  # as many as asked for, unless stopping or failed
    wait_s: float         # until this rank had them
    stopping: bool        # was any rank asked to stop?
    failed: bool          # has any?


def fetch_batches(source: BatchIterator, count: int, waiting: FetchPolicy, failed: bool = False) -> Fetched:
    """This rank's next `count` batches, and what the ranks agreed upon. Collective.

    One vote where the data is there in time. Otherwise all vote again and again until each rank has what it needs, so
    that a loader that is slow on one rank holds up no stop. An image that is refused, trouble, and a wait that is too
    long raise on all ranks.
    """
    batches: list[Batch] = []
    started_at = time.monotonic()
    wait_s, missing = 0.0, True
    waiting.beat("loading data")
    while True:
        vote_at = time.monotonic() + SLICE_S
        while len(batches) < count and time.monotonic() < vote_at:
            batches += [batch for batch in [source.take()] if batch is not None]
            wait_s = time.monotonic() - started_at
        if missing and len(batches) == count:
            missing = False
            waiting.beat("waiting for the others")  # once: to vote again is no progress
        trouble = waiting.trouble() or refused(batches, waiting) or overdue(missing, wait_s, waiting)
        any_trouble, any_missing, stopping, any_failed = collectives.any_rank(
            trouble is not None, missing, waiting.requested(), failed)
        if any_trouble:
            collectives.raise_on_all_ranks(trouble)
        if stopping or any_failed or not any_missing:
            return Fetched(batches, wait_s, stopping, any_failed)


def refused(batches: list[Batch], waiting: FetchPolicy) -> BadInput | None:
    messages = [message for _, targets in batches for message in unreadable_messages(targets)]
    return BadInput(messages[0]) if messages and waiting.refuse else None


def overdue(missing: bool, wait_s: float, waiting: FetchPolicy) -> RuntimeError | None:
    if not missing or wait_s < waiting.patience_s:
        return None
    return RuntimeError(f"rank {rank_info.rank()} on {socket.gethostname()} has waited {waiting.patience_s:.0f} s "
                        "for its loader (run.timeout_minutes): its disk does not answer, or a worker hangs")
