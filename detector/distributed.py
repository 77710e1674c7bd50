"""What the ranks of a run do together. The only file that knows torch.distributed.

Every verdict is a collective: a rank never raises, stops or skips alone, because the others would wait for it.
With one process there is no process group and everything here is immediate.
"""

import gc
import inspect
import os
import socket
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Callable, Iterator, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from detector.errors import BadInput, NotFinite

T = TypeVar("T")
PATIENCE = timedelta(hours=6)  # for what one rank does while the others wait: downloading, drawing, scoring
_patient: dist.ProcessGroup | None = None  # set while there is a group


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", 0))


def world() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    return rank() == 0


@contextmanager
def process_group(device: str, timeout_minutes: float = 10.0, traces: Path | None = None) -> Iterator[torch.device]:
    """Joins the other ranks (torchrun's five variables) and leaves them again; gives this rank's device.

    CPU tensors travel over gloo, GPU tensors over NCCL, whose last collectives are left in the folder `traces` when one
    times out. Raises BadInput where there are more processes than GPUs or the port is taken.
    """
    chosen = choose_device(device)
    if world() == 1:
        yield chosen
        return
    if chosen.type == "cuda" and traces is not None:
        os.environ.update({**flight_recorder(traces), **os.environ})
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise BadInput(f"port in use: {address}. Set MASTER_PORT (torchrun: --master-port) to another") from error
        raise BadInput(f"rank {rank()} of {world()} could not meet the others at {address}: "
                       f"{(str(error) or type(error).__name__).splitlines()[0]}") from error
    try:
        global _patient
        _patient = dist.new_group(backend="gloo", timeout=PATIENCE)
        _refuse_shared_gpus(chosen)
        yield chosen
    except (BadInput, NotFinite):  # all ranks raise these together
        _leave()
        raise
    _leave()  # not after other errors: the peers may be in a collective, and would be waited for


def flight_recorder(folder: Path) -> dict[str, str]:
    """NCCL's flight recorder: `nccl-trace-RANK` in this folder when a collective times out.

    The names are those of PyTorch 2.9 and of later versions (torch/csrc/distributed/c10d/FlightRecorder.hpp); one that
    a version does not know does nothing.
    """
    prefix = str(folder.absolute() / "nccl-trace-")
    return {"TORCH_NCCL_DUMP_ON_TIMEOUT": "1", "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000", "TORCH_FR_BUFFER_SIZE": "2000",
            "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": prefix, "TORCH_FR_DUMP_TEMP_FILE": prefix}


def _leave() -> None:
    """Nothing may hold a group any longer: its threads would be alive when the interpreter ends, and abort it."""
    global _patient
    _patient = None
    gc.collect()
    dist.destroy_process_group()


def choose_device(device: str) -> torch.device:
    """The GPU of this rank, or the CPU. Raises BadInput for a GPU that is not there."""
    count = torch.cuda.device_count() if device != "cpu" else 0
    if device == "cuda" and count == 0:
        raise BadInput("run.device=cuda: this machine has no GPU that PyTorch can use; set run.device=cpu")
    if count == 0:
        return torch.device("cpu")
    # A cluster may show each task one GPU only, which is then its number 0.
    here = int(os.environ.get("LOCAL_WORLD_SIZE", local_rank() + 1))
    if here > count > 1:
        raise BadInput(f"more processes than GPUs: {here} processes on {socket.gethostname()}, which has {count}. "
                       f"Start {count} processes, or set run.device=cpu")
    index = local_rank() if local_rank() < count else 0
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """For each flag: is it true on any rank? All ranks get the same answer."""
    if world() == 1:
        return flags
    votes = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return tuple(bool(vote) for vote in votes)


def agree(error: Exception | None) -> None:
    """Raises on every rank if any rank has an error: the rank's own, elsewhere one of the same message."""
    if world() == 1:
        if error:
            raise error
        return
    text = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}" if error else ""
    said = np.frombuffer((b"B" if isinstance(error, BadInput) else b"R") + text.encode(errors="replace"), np.uint8)
    for other, message in enumerate(gather_everywhere(said, _patient)):
        message = bytes(message).decode()
        if message[1:]:
            if error:
                raise error
            raise (BadInput if message[0] == "B" else RuntimeError)(f"rank {other}: {message[1:]}")


def together(function: Callable[[], T]) -> T:
    """Every rank runs `function`; if one fails, all raise."""
    value, error = None, None
    try:
        value = function()
    except Exception as caught:  # whatever it is, the others must hear of it
        error = caught
    agree(error)
    return value


def first_on_main(function: Callable[[], T]) -> T:
    """Rank 0 of each machine runs `function` first (it downloads, draws or caches), then the others."""
    first = together(function if local_rank() == 0 else lambda: None)
    return together(function if local_rank() != 0 else lambda: first)


def only_on_main(function: Callable[[], None]) -> None:
    """Rank 0 runs `function`; if it fails, all raise."""
    together(function if is_main() else lambda: None)


def from_main(text: str) -> str:
    """Rank 0's text, on every rank."""
    return (gather_texts([text] if is_main() else []) or [""])[0]


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean over all ranks, in place; any device."""
    if world() > 1:
        dist.all_reduce(values, dist.ReduceOp.SUM)
        values /= world()
    return values


def mean_statistics(module: nn.Module) -> None:
    """Makes the running statistics of learning batch norms the mean over all ranks: all keep one state."""
    buffers = [b for norm in module.modules() if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats
               for b in (norm.running_mean, norm.running_var)]
    if world() > 1 and buffers:
        flat = mean(torch.cat([b.flatten() for b in buffers]))
        for buffer, values in zip(buffers, flat.split([b.numel() for b in buffers])):
            buffer.copy_(values.view_as(buffer))


def gather_everywhere(values: np.ndarray, group: dist.ProcessGroup | None = None) -> list[np.ndarray]:
    """Each rank's array (its first dimension may differ), on every rank. Plain bytes over gloo; nothing is pickled."""
    if world() == 1:
        return [values]
    values = np.ascontiguousarray(values)
    data = torch.from_numpy(values.reshape(-1).view(np.uint8).copy())
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(world())]
    dist.all_gather(counts, torch.tensor([data.numel()]), group)
    longest = max(int(count) for count in counts)
    padded = torch.zeros(max(longest, 1), dtype=torch.uint8)
    padded[:data.numel()] = data
    parts = [torch.empty_like(padded) for _ in range(world())]
    dist.all_gather(parts, padded, group)
    return [part[:int(count)].numpy().view(values.dtype).reshape(-1, *values.shape[1:])
            for part, count in zip(parts, counts)]


def gather_texts(texts: list[str]) -> list[str]:
    """All ranks' texts, on every rank."""
    joined = np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), np.uint8)  # a path may be any bytes
    said = b"\0".join(bytes(part) for part in gather_everywhere(joined))
    return [text for text in said.decode(errors="surrogateescape").split("\0") if text]


def wrap(module: nn.Module, device: torch.device, turns: int = 1, compress: bool = False) -> nn.Module:
    """The module with its gradients averaged over all ranks, as bf16 with `compress`; itself for one rank."""
    if world() == 1:
        return module
    parallel = nn.parallel.DistributedDataParallel
    newer = "forward_sync_buffers" in inspect.signature(parallel).parameters  # the name since PyTorch 2.12 or so
    options = {"gradient_as_bucket_view": True,
               "forward_sync_buffers" if newer else "broadcast_buffers": False}  # mean_statistics keeps them equal
    if device.type == "cuda":  # the search below makes the host wait; a static graph allows no turns without a sum
        wrapped = parallel(module, device_ids=[device.index], static_graph=turns == 1, **options)
    else:  # buckets sorted anew after the first step of a start would make more than two ranks sum in another order
        wrapped = parallel(_WithUnused(module), find_unused_parameters=True, **options)
    if compress:
        wrapped.register_comm_hook(None, bf16_compress_hook)
    return wrapped


class _WithUnused(nn.Module):
    """The module, and a weight that nothing depends on: a search for unused weights that finds none warns each run."""
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.unused = module, nn.Parameter(torch.zeros(1))

    def forward(self, *arguments):
        return self.module(*arguments)


def accumulating(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Gradients stay on this rank, except in the last backward pass of a step."""
    shared = last or not isinstance(module, nn.parallel.DistributedDataParallel)
    return nullcontext() if shared else module.no_sync()


def _refuse_shared_gpus(device: torch.device) -> None:
    """Two ranks on one GPU would hang NCCL; found by the GPU's own identity, on whatever number each rank sees."""
    if device.type != "cuda":
        return
    names = gather_texts([f"{socket.gethostname()} {torch.cuda.get_device_properties(device).uuid}"])
    if shared := sorted({name.split()[0] for name in names if names.count(name) > 1}):
        raise BadInput(f"more processes than GPUs on {', '.join(shared)}: two processes got the same GPU. Start one "
                       "process for each GPU, or set run.device=cpu")
