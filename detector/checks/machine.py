"""Checks of the machine: folders, space on disk and in shared memory, CPU cores, weights, GPUs and their all-reduce."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from detector.checks.problems import CheckReport, Problem, problems_from_error
from detector.config.schema import Config
from detector.distributed.rank_info import RUN_ID
from detector.errors import BadInput
from detector.model.weights.files import find_download, local_file
from detector.model.weights.load import weights_name

BATCHES_PER_WORKER = 4   # batches that a loader worker holds in shared memory, see data/loader.py
ALL_REDUCE_TIMEOUT_S = 60

# The program of one rank: all ranks average their rank numbers once. DEVICE is replaced.
ALL_REDUCE_PROGRAM = """
import torch
from detector.distributed.collectives import all_reduce_mean
from detector.distributed.process_group import process_group
from detector.distributed.rank_info import rank, world_size
with process_group(DEVICE, 1.0) as device:
    value = float(all_reduce_mean(torch.full((1 << 20,), float(rank()), device=device))[0])
    assert abs(value - (world_size() - 1) / 2) < 1e-6, f'the mean of all ranks is {value}'
"""


def check_folders(config: Config, folder: Path, report: CheckReport) -> None:
    """Checks that a file can be written to run folder and cache, or to the nearest parent folder that exists."""
    for option, path in (("run.folder", folder), ("data.cache", Path(os.path.expanduser(config.data.cache)))):
        parent = nearest_existing_path(path)
        try:
            with tempfile.TemporaryFile(dir=parent):
                pass
        except OSError as error:
            problem = Problem(f"{option}={path}", f"cannot create a file in {parent} ({error.strerror})",
                              f"Set {option} to a writable folder that all nodes share")
            if option == "run.folder":
                report.problems.append(problem)
            else:
                report.notes.append(f"{problem}; without a cache every start parses the annotations again")


def nearest_existing_path(path: Path) -> Path:
    """Returns the path itself, or the nearest one above it that exists; a file there is in the way of the folder.

    What is in a folder that may not be entered counts as missing: nothing can be created there.
    """
    path = path.absolute()
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path


def check_disk(folder: Path, checkpoint_bytes: int, keep: int, report: CheckReport) -> None:
    """Checks the disk space for `keep` checkpoints, best.pt, and the checkpoint that is being written."""
    free, needed = shutil.disk_usage(nearest_existing_path(folder)).free, (keep + 2) * checkpoint_bytes
    report.facts["disk"] = {"free_gib": round(free / 2**30, 2), "needed_gib": round(needed / 2**30, 2),
                            "checkpoint_gib": round(checkpoint_bytes / 2**30, 3)}
    if free < needed:
        report.problems.append(Problem(
            f"run.folder={folder}", f"{free / 2**30:.1f} GiB are free, {needed / 2**30:.1f} are needed: "
            f"{keep} + 2 checkpoints of {checkpoint_bytes / 2**30:.2f} GiB",
            "Free some space, set run.folder to another disk, or run.keep_checkpoints=1"))


def check_shared_memory(config: Config, largest_image_bytes: int, processes: int, report: CheckReport,
                        mount: str = "/dev/shm") -> None:
    """Checks the shared memory through which workers return their batches; containers often have 64 MiB of it."""
    if not config.run.num_workers or not os.path.isdir(mount):
        return
    free = shutil.disk_usage(mount).free
    batch_bytes = config.batch.micro_batch_size * largest_image_bytes
    needed = processes * config.run.num_workers * BATCHES_PER_WORKER * batch_bytes
    report.facts["shared_memory"] = {"free_gib": round(free / 2**30, 2), "needed_gib": round(needed / 2**30, 2)}
    if free < needed:
        report.problems.append(Problem(
            mount, f"{free / 2**20:.0f} MiB are free, the loaders may need {needed / 2**20:.0f}",
            f"Enlarge it (docker: --shm-size), or set run.num_workers={config.run.num_workers // 2}"))


def check_cores(config: Config, processes: int, report: CheckReport) -> None:
    """Notes where there are more loader workers than CPU cores."""
    cores = len(os.sched_getaffinity(0))
    report.facts["cores"] = cores
    if config.run.num_workers * processes > cores:
        report.notes.append(f"{processes} x {config.run.num_workers} loader workers would share the {cores} cores that "
                            f"this process may use: request more, or set run.num_workers={cores // processes}")


def check_weights(config: Config, report: CheckReport) -> None:
    """Checks that the file of weights exists, or that it is one of torchvision's, which the first start downloads."""
    if not config.model.weights:
        return
    try:
        name = weights_name(config.model)
        entry, path = (None, local_file(name)) if local_file(name) else find_download(name)
    except BadInput as error:
        report.problems += problems_from_error(error, f"model.weights={config.model.weights}")
        return
    report.facts["weights"] = {"file": path, "exists": os.path.isfile(path)}
    if not os.path.isfile(path):
        report.notes.append(f"model.weights={config.model.weights}: {path} does not exist; the first start downloads "
                            f"{entry.url}. If the nodes have no network, copy the file to that path before")


def check_gpus(config: Config, processes: int, report: CheckReport) -> None:
    """Checks that each process gets a GPU of its own; several GPUs must complete an all-reduce."""
    count = torch.cuda.device_count()
    report.facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(count)]
    if config.run.device == "cuda" and not count:
        report.problems.append(Problem("run.device=cuda", "this machine has no GPU that PyTorch can use",
                                       "Run the check on a machine that has one, or set run.device=cpu"))
    elif config.run.device != "cpu" and 0 < count < processes:
        report.problems.append(Problem(f"{processes} processes", f"this machine has {count} GPUs",
                                       f"Start at most {count} processes on it, or set run.device=cpu"))
    elif config.run.device != "cpu" and count > 1:
        error = try_all_reduce("cuda", min(processes, count) if processes > 1 else count)
        report.facts["all_reduce"] = error or "ok"
        if error:
            report.problems.append(Problem("all-reduce over the GPUs of this machine", error,
                                           "Read the log of NCCL_DEBUG=INFO; if NCCL_P2P_DISABLE=1 helps, the links "
                                           "between the GPUs are the cause"))


def try_all_reduce(device: str, world_size: int) -> str:
    """Runs one all-reduce over new processes on this machine; returns the errors of the ranks, or "" on success."""
    program = ALL_REDUCE_PROGRAM.replace("DEVICE", repr(device))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = [subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, RUN_ID: "check", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size),
             "LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
             "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}) for rank in range(world_size)]
    errors = []
    try:
        for rank, process in enumerate(processes):
            stderr = process.communicate(timeout=ALL_REDUCE_TIMEOUT_S)[1]
            if process.returncode:
                reason = (stderr.strip() or f"exit status {process.returncode}").splitlines()[-1]
                errors.append(f"rank {rank}: {reason}")
    except subprocess.TimeoutExpired:
        errors.append(f"the processes did not complete an all-reduce within {ALL_REDUCE_TIMEOUT_S} s")
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return "; ".join(errors)
