"""Collectives: functions that all ranks of a run call at the same point of the program.

A rank never raises, stops or skips alone, because the others would wait for it in their next collective. With one
process there is no process group, and nothing is communicated.
"""

from datetime import timedelta
from typing import Callable, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from detector.distributed.rank_info import is_main, local_rank, world_size
from detector.errors import BadInput, MachineError

T = TypeVar("T")
LONG_TIMEOUT = timedelta(hours=6)  # while one rank downloads, draws or scores and the others wait
long_timeout_group: dist.ProcessGroup | None = None  # all ranks, over gloo; set by process_group while there is a group


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """Returns for each flag whether it is true on any rank."""
    if world_size() == 1:
        return flags
    votes = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return tuple(bool(vote) for vote in votes)


def raise_on_all_ranks(error: Exception | None) -> None:
    """Raises on every rank if any rank passes an error. Waits up to LONG_TIMEOUT for the other ranks.

    A rank with an error raises its own. The other ranks raise the error of the lowest rank: BadInput or MachineError
    if it is one, else RuntimeError, with the number of that rank in the message.
    """
    if world_size() == 1:
        if error:
            raise error
        return
    kind, text = b"R", ""
    if isinstance(error, (BadInput, MachineError)):
        kind, text = b"B" if isinstance(error, BadInput) else b"M", str(error)
    elif error:
        text = f"{type(error).__name__}: {error}"
    sent = np.frombuffer(kind + text.encode(errors="replace"), np.uint8)
    for rank, received in enumerate(all_gather_arrays(sent, long_timeout_group)):
        message = bytes(received).decode()
        if message[1:]:
            if error:
                raise error
            raise {"B": BadInput, "M": MachineError}.get(message[0], RuntimeError)(f"rank {rank}: {message[1:]}")


def run_on_all_ranks(function: Callable[[], T]) -> T:
    """Runs `function` on every rank and returns its value; raises on all ranks if the function fails on any."""
    value, error = None, None
    try:
        value = function()
    except Exception as caught:  # of any kind: the other ranks must not wait for this one
        error = caught
    raise_on_all_ranks(error)
    return value


def run_on_local_main_first(function: Callable[[], T]) -> T:
    """Runs `function` on local rank 0 of each machine, then on the other ranks, and returns its value.

    For functions that download or fill a cache, which the other ranks of the machine then read. Raises on all ranks if
    the function fails on any.
    """
    first = run_on_all_ranks(function if local_rank() == 0 else lambda: None)
    return run_on_all_ranks(function if local_rank() != 0 else lambda: first)


def run_on_main(function: Callable[[], None]) -> None:
    """Runs `function` on rank 0 while the others wait; raises on all ranks if the function fails."""
    run_on_all_ranks(function if is_main() else lambda: None)


def broadcast_text(text: str) -> str:
    """Returns the text of rank 0."""
    return (all_gather_texts([text] if is_main() else []) or [""])[0]


def array_of_main(function: Callable[[], np.ndarray]) -> np.ndarray:
    """Returns on every rank the array, bool [N], that `function` gives on rank 0; raises on all ranks if it fails."""
    result = run_on_all_ranks(function if is_main() else lambda: np.zeros(0, bool))
    return all_gather_arrays(result)[0]


def answer_of_main(question: Callable[[], bool]) -> bool:
    """Returns on every rank whether `question` is true on rank 0; raises on all ranks if it fails."""
    return bool(array_of_main(lambda: np.array([question()]))[0])


def all_reduce_mean(values: torch.Tensor) -> torch.Tensor:
    """Replaces a tensor, on any device, by its mean over all ranks, and returns it."""
    if world_size() > 1:
        dist.all_reduce(values, dist.ReduceOp.SUM)
        values /= world_size()
    return values


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Returns the sum of a tensor over all ranks; its gradient is the sum of the gradients of all ranks."""
    return _SumOverRanks.apply(values) if world_size() > 1 else values


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(_context, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        dist.all_reduce(total, dist.ReduceOp.SUM)
        return total

    @staticmethod
    def backward(_context, gradient: torch.Tensor) -> torch.Tensor:
        return sum_over_ranks(gradient)


def all_gather_row(values: list[float]) -> np.ndarray:
    """Returns the same number of values of each rank, float64 [ranks, values], by a single exchange."""
    row = torch.tensor(values, dtype=torch.float64)
    rows = [row] if world_size() == 1 else [torch.empty_like(row) for _ in range(world_size())]
    if world_size() > 1:
        dist.all_gather(rows, row)
    return torch.stack(rows).numpy()


def all_gather_arrays(values: np.ndarray, group: dist.ProcessGroup | None = None) -> list[np.ndarray]:
    """Returns the arrays of all ranks, in the order of the ranks.

    The arrays are sent as bytes, padded to the longest; nothing is pickled.

    Args:
        values: any shape and type; all dimensions but the first, and the type, are the same on all ranks.
        group: None: the default group and its timeout.
    """
    if world_size() == 1:
        return [values]
    values = np.ascontiguousarray(values)
    data = torch.from_numpy(values.reshape(-1).view(np.uint8).copy())
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([data.numel()]), group)
    longest = max(int(count) for count in counts)
    padded = torch.zeros(max(longest, 1), dtype=torch.uint8)
    padded[:data.numel()] = data
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded, group)
    return [part[:int(count)].numpy().view(values.dtype).reshape(-1, *values.shape[1:])
            for part, count in zip(parts, counts)]


def all_gather_texts(texts: list[str]) -> list[str]:
    """Returns the texts of all ranks, in the order of the ranks, without empty ones. A text may not contain a NUL."""
    joined = np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), np.uint8)  # paths may be any bytes
    received = b"\0".join(bytes(part) for part in all_gather_arrays(joined))
    return [text for text in received.decode(errors="surrogateescape").split("\0") if text]
