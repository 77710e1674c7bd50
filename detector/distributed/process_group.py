"""The process group of a run, and the device of each rank."""

import gc
import os
import socket
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Iterator

import torch
import torch.distributed as dist

from detector.distributed import collectives
from detector.distributed.rank_info import local_rank, rank, world_size
from detector.errors import BadInput, NotFinite


@contextmanager
def process_group(device: str, timeout_minutes: float = 10.0, traces: Path | None = None) -> Iterator[torch.device]:
    """Joins the other ranks (torchrun's five variables) and leaves them again; gives this rank's device.

    CPU tensors travel over gloo, GPU tensors over NCCL, whose last collectives are left in the folder `traces` when one
    times out. Raises BadInput where there are more processes than GPUs or the port is taken.
    """
    chosen = choose_device(device)
    if world_size() == 1:
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
        raise BadInput(f"rank {rank()} of {world_size()} could not meet the others at {address}: "
                       f"{(str(error) or type(error).__name__).splitlines()[0]}") from error
    try:
        collectives.patient_group = dist.new_group(backend="gloo", timeout=collectives.PATIENCE)
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
    collectives.patient_group = None
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


def _refuse_shared_gpus(device: torch.device) -> None:
    """Two ranks on one GPU would hang NCCL; found by the GPU's own identity, on whatever number each rank sees."""
    if device.type != "cuda":
        return
    names = collectives.all_gather_texts([f"{socket.gethostname()} {torch.cuda.get_device_properties(device).uuid}"])
    if shared := sorted({name.split()[0] for name in names if names.count(name) > 1}):
        raise BadInput(f"more processes than GPUs on {', '.join(shared)}: two processes got the same GPU. Start one "
                       "process for each GPU, or set run.device=cpu")
