"""Fetching batches on all ranks at once, so that a rank that still waits for its data takes part in every vote."""

import socket
import time
from dataclasses import dataclass
from typing import Callable

from detector.data.dataset import unreadable_messages
from detector.data.image_errors import offer_grey
from detector.data.loader import POLL_S, Batch, BatchIterator
from detector.distributed import collectives, rank_info
from detector.errors import BadInput, MachineError


@dataclass(frozen=True)
class FetchPolicy:
    """When to give up waiting for batches, and where to report progress. Each rank has its own."""

    stop_requested: Callable[[], bool]        # has this rank received a stop signal?
    refuse_unreadable: bool                   # raise BadInput for an image that cannot be decoded
    timeout_s: float                          # longest wait for this rank's own loader
    mark: Callable[[str], None] = lambda phase: None  # writes the phase to the heartbeat
    background_error: Callable[[], Exception | None] = lambda: None  # an error of this rank's background threads
    before_error: Callable[[], None] = lambda: None  # called on all ranks before the error of any rank is raised


@dataclass(frozen=True)
class Fetched:
    """The batches of one rank and the result of the vote; the last two fields are equal on all ranks."""

    batches: list[Batch]  # as many as requested, unless stop_requested or nan_found
    wait_s: float         # time until the last of them arrived on this rank
    stop_requested: bool  # some rank has received a stop signal
    nan_found: bool       # some rank has found a loss that is not finite


def fetch_batches(loader: BatchIterator, count: int, policy: FetchPolicy, nan_found: bool = False) -> Fetched:
    """Returns this rank's next `count` batches, with what the ranks agreed on. Collective.

    The ranks vote once if every loader answers within POLL_S. Otherwise they vote again every POLL_S until each rank
    has its batches, so that a stop signal takes effect although one rank's loader is slow.

    Args:
        count: batches of this rank, 0 or more; ranks may pass different numbers.
        nan_found: this rank has found a loss that is not finite.

    Raises:
        On all ranks, if any rank has a background error, an error of its loader or an unreadable image that the policy
        refuses, or has waited longer than `policy.timeout_s`. `policy.before_error` is called first.
    """
    batches: list[Batch] = []
    loader_error: Exception | None = None
    started_at = time.monotonic()
    wait_s, missing = 0.0, True
    policy.mark("loading data")
    while True:
        vote_at = time.monotonic() + POLL_S
        while len(batches) < count and time.monotonic() < vote_at and loader_error is None:
            try:
                batch = loader.poll()
            except Exception as error:  # of any kind: the other ranks must not wait for this one
                loader_error, batch = error, None
            if batch is not None:
                batches.append(batch)
            wait_s = time.monotonic() - started_at
        if missing and len(batches) == count:
            missing = False
            policy.mark("waiting for the others")  # once only: voting again is no progress
        error = (loader_error or policy.background_error() or _unreadable_error(batches, policy)
                 or _timeout_error(missing, wait_s, policy))
        any_error, any_missing, stop_requested, any_nan = collectives.any_rank(
            error is not None, missing, policy.stop_requested(), nan_found)
        if any_error:
            policy.before_error()
            collectives.raise_on_all_ranks(error)
        if stop_requested or any_nan or not any_missing:
            return Fetched(batches, wait_s, stop_requested, any_nan)


def _unreadable_error(batches: list[Batch], policy: FetchPolicy) -> BadInput | None:
    messages = [message for _, targets in batches for message in unreadable_messages(targets)]
    return BadInput(offer_grey(messages[0])) if messages and policy.refuse_unreadable else None


def _timeout_error(missing: bool, wait_s: float, policy: FetchPolicy) -> MachineError | None:
    if not missing or wait_s < policy.timeout_s:
        return None
    return MachineError(f"rank {rank_info.rank()} on {socket.gethostname()} has waited {policy.timeout_s:.0f} s for "
                        "its data loader (limit: run.timeout_minutes): the disk does not answer, or a worker hangs")
