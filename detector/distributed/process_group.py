"""The process group of a run, and the device of each rank."""

import gc
import os
import socket
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Iterator

import torch
import torch.distributed as dist

from detector.distributed import collectives, rank_info
from detector.distributed.rank_info import local_rank, rank, world_size
from detector.errors import BadInput, NotFinite

LOOPBACK = ("localhost", "127.0.0.1", "::1")
HAND_MADE_LIMIT = timedelta(minutes=1)  # for ranks of this machine that were started by hand: they come together
groups_opened = 0  # by this process


@contextmanager
def process_group(device: str, timeout_minutes: float = 10.0, traces: Path | None = None) -> Iterator[torch.device]:
    """Joins the process group (torchrun's environment variables), yields the device of this rank, and leaves the group.

    CPU tensors are sent over gloo, GPU tensors over NCCL.

    Args:
        device: auto, cpu or cuda; see choose_device.
        timeout_minutes: of each collective.
        traces: folder for the traces that NCCL writes when a collective times out; None: no traces.

    Raises:
        BadInput: more processes than GPUs, the port is in use, or the other ranks cannot be reached; or this process
            is one of several that know nothing of each other.
    """
    timeout = timedelta(minutes=timeout_minutes)
    rank_info.is_joined = True  # until the group is left: variables that were set by hand count from here on
    limit = timeout if rank_info.is_launched() else announce_world(timeout)
    try:
        chosen = choose_device(device)
    except BadInput:
        rank_info.is_joined = False
        raise
    if world_size() == 1:
        rank_info.is_joined = False
        yield chosen
        return
    if chosen.type == "cuda" and traces is not None:
        os.environ.update({**flight_recorder_environment(traces), **os.environ})
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    try:
        if not rank_info.is_launched() and rank():
            wait_for_listener(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), limit.total_seconds())
        _init_process_group(backend, timeout, limit)
    except (RuntimeError, ValueError, OSError) as error:
        raise unreachable(error) from error
    try:
        collectives.long_timeout_group = dist.new_group(backend="gloo", timeout=collectives.LONG_TIMEOUT)
        _refuse_other_devices(chosen)
        _refuse_shared_gpus(chosen)
        yield chosen
    except (BadInput, NotFinite):  # raised on all ranks
        _leave()
        raise
    _leave()  # not after other errors: the other ranks may be in a collective, and destroying the group would wait
    rank_info.is_joined = False


def announce_world(timeout: timedelta) -> timedelta:
    """Prints what the variables of a process that no launcher started mean; returns how long to wait for the others.

    Raises:
        BadInput: this process is one of several that know nothing of each other.
    """
    if world_size() == 1:
        rank_info.is_joined = False
        rank_info.refuse_one_of_several_tasks()
        if rank_info.ignored_variables():
            print(rank_info.ignored_variables(), file=sys.stderr, flush=True)
        return timeout
    limit = min(timeout, HAND_MADE_LIMIT) if os.environ["MASTER_ADDR"] in LOOPBACK else timeout
    print(f"rank {rank()} of {world_size()}, because RANK and WORLD_SIZE are set: waits up to {limit.seconds} s for "
          f"the others at {rendezvous_address()}. `unset RANK WORLD_SIZE` for one process", file=sys.stderr, flush=True)
    return limit


def wait_for_listener(host: str, port: int, limit_s: float) -> None:
    """Waits until rank 0 accepts connections; raises the last OSError if it does not within the limit."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def rendezvous_address() -> str:
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def unreachable(error: Exception) -> BadInput:
    """Returns the error of a rank that cannot join the others, and leaves the world that was stated by hand."""
    address, place = rendezvous_address(), f"rank {rank()} of {world_size()}"
    rank_info.is_joined = False
    if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
        remedy = "Start again: another port is chosen (below torchrun, set --master-port)" if rank_info.is_launched() \
            else "Set MASTER_PORT to another"
        return BadInput(f"port in use: {address}. {remedy}")
    remedy = "" if rank_info.is_launched() else (". RANK and WORLD_SIZE are set in this shell: start every rank, or "
                                                 "`unset RANK WORLD_SIZE` for one process")
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return BadInput(f"{place} could not reach the other ranks at {address}: {reason}{remedy}")


def _init_process_group(backend: str, timeout: timedelta, limit: timedelta) -> None:
    """Opens the default group. A later one of the same process has its own prefix in the store.

    The store of torchrun outlives a group; a rank could read the addresses of the group before.

    Args:
        timeout: of each collective.
        limit: of the wait for the other ranks.
    """
    global groups_opened
    groups_opened += 1
    store, _, _ = next(dist.rendezvous("env://", rank(), world_size(), timeout=limit))
    store.set_timeout(timeout)
    dist.init_process_group(backend, timeout=timeout, store=dist.PrefixStore(f"group {groups_opened}", store),
                            rank=rank(), world_size=world_size())


def flight_recorder_environment(folder: Path) -> dict[str, str]:
    """Returns environment variables that make NCCL write `nccl-trace-RANK` into the folder when a collective times out.

    Both the names of PyTorch 2.9 and of later versions are set (torch/csrc/distributed/c10d/FlightRecorder.hpp); a
    version ignores names that it does not know.
    """
    prefix = str(folder.absolute() / "nccl-trace-")
    return {"TORCH_NCCL_DUMP_ON_TIMEOUT": "1", "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000", "TORCH_FR_BUFFER_SIZE": "2000",
            "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": prefix, "TORCH_FR_DUMP_TEMP_FILE": prefix}


def _leave() -> None:
    """Destroys the process group.

    No object may refer to a group any longer: its threads would still run when the interpreter ends, and abort it.
    """
    collectives.long_timeout_group = None
    gc.collect()
    dist.destroy_process_group()


def choose_device(device: str, remedy: str = "set run.device=cpu") -> torch.device:
    """Returns the device of this rank and makes it the current one: the GPU of the local rank, or the CPU.

    Args:
        device: cpu, cuda, or auto: a GPU if the machine has any.
        remedy: for the error where there is no GPU.

    Raises:
        BadInput: there is no GPU, there are more processes than GPUs, or it is another name, such as cuda:1.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise BadInput(f"device {device}: one of auto, cpu and cuda. Select a GPU with CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count() if device != "cpu" else 0
    if device == "cuda" and count == 0:
        raise BadInput(f"device cuda: this machine has no GPU that PyTorch can use; {remedy}")
    if count == 0:
        return torch.device("cpu")
    stated = os.environ.get("LOCAL_WORLD_SIZE", "")
    processes = int(stated) if stated.isdecimal() and world_size() > 1 else local_rank() + 1
    if processes > count > 1:
        raise BadInput(f"more processes than GPUs: {processes} processes on {socket.gethostname()}, which has {count}. "
                       f"Start {count} processes, or set run.device=cpu")
    # A cluster may show each task its own GPU only, as number 0.
    index = local_rank() if local_rank() < count else 0
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _refuse_other_devices(device: torch.device) -> None:
    """Raises BadInput on all ranks if some have a GPU and others, as where the driver failed, none. Collective."""
    devices = [text.split() for text in collectives.all_gather_texts([f"{socket.gethostname()} {device.type}"])]
    if len({kind for _, kind in devices}) > 1:
        hosts = sorted({host for host, kind in devices if kind == "cpu"})
        raise BadInput(f"no GPU that PyTorch can use on {', '.join(hosts)}, while other processes have one. "
                       "`nvidia-smi` there shows the state of the driver; leave the node out, or set run.device=cpu")


def _refuse_shared_gpus(device: torch.device) -> None:
    """Raises BadInput on all ranks if two ranks have the same GPU, by its UUID: NCCL would hang. Collective."""
    if device.type != "cuda":
        return
    names = collectives.all_gather_texts([f"{socket.gethostname()} {torch.cuda.get_device_properties(device).uuid}"])
    hosts = sorted({name.split()[0] for name in names if names.count(name) > 1})
    if hosts:
        raise BadInput(f"more processes than GPUs on {', '.join(hosts)}: two processes got the same GPU. Start one "
                       "process for each GPU, or set run.device=cpu")
