"""What the ranks of a run do together. The only file that knows torch.distributed.

Every verdict is a collective: a rank never raises, stops or skips alone, because the others would wait for it.
With one process there is no process group and everything here is immediate.
"""

from datetime import timedelta
from typing import Callable, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from detector.distributed.rank_info import is_main, local_rank, world_size
from detector.errors import BadInput

T = TypeVar("T")
PATIENCE = timedelta(hours=6)  # for what one rank does while the others wait: downloading, drawing, scoring
patient_group: dist.ProcessGroup | None = None  # set while there is a group


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """For each flag: is it true on any rank? All ranks get the same answer."""
    if world_size() == 1:
        return flags
    votes = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return tuple(bool(vote) for vote in votes)


def raise_on_all_ranks(error: Exception | None) -> None:
    """Raises on every rank if any rank has an error: the rank's own, elsewhere one of the same message."""
    if world_size() == 1:
        if error:
            raise error
        return
    text = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}" if error else ""
    said = np.frombuffer((b"B" if isinstance(error, BadInput) else b"R") + text.encode(errors="replace"), np.uint8)
    for other, message in enumerate(all_gather_arrays(said, patient_group)):
        message = bytes(message).decode()
        if message[1:]:
            if error:
                raise error
            raise (BadInput if message[0] == "B" else RuntimeError)(f"rank {other}: {message[1:]}")


def run_on_all_ranks(function: Callable[[], T]) -> T:
    """Every rank runs `function`; if one fails, all raise."""
    value, error = None, None
    try:
        value = function()
    except Exception as caught:  # whatever it is, the others must hear of it
        error = caught
    raise_on_all_ranks(error)
    return value


def run_on_local_main_first(function: Callable[[], T]) -> T:
    """Rank 0 of each machine runs `function` first (it downloads, draws or caches), then the others."""
    first = run_on_all_ranks(function if local_rank() == 0 else lambda: None)
    return run_on_all_ranks(function if local_rank() != 0 else lambda: first)


def run_on_main(function: Callable[[], None]) -> None:
    """Rank 0 runs `function`; if it fails, all raise."""
    run_on_all_ranks(function if is_main() else lambda: None)


def broadcast_text(text: str) -> str:
    """Rank 0's text, on every rank."""
    return (all_gather_texts([text] if is_main() else []) or [""])[0]


def all_reduce_mean(values: torch.Tensor) -> torch.Tensor:
    """The mean over all ranks, in place; any device."""
    if world_size() > 1:
        dist.all_reduce(values, dist.ReduceOp.SUM)
        values /= world_size()
    return values


def all_gather_arrays(values: np.ndarray, group: dist.ProcessGroup | None = None) -> list[np.ndarray]:
    """Each rank's array (its first dimension may differ), on every rank. Plain bytes over gloo; nothing is pickled."""
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
    """All ranks' texts, on every rank."""
    joined = np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), np.uint8)  # a path may be any bytes
    said = b"\0".join(bytes(part) for part in all_gather_arrays(joined))
    return [text for text in said.decode(errors="surrogateescape").split("\0") if text]
