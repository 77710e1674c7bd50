"""What is wrong with the machine: folders, room on disk and in shared memory, GPUs, and whether ranks meet."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from detector.checks.problems import CheckReport, Problem, problems_of
from detector.config.schema import Config
from detector.errors import BadInput
from detector.model.weights.files import download_of
from detector.model.weights.load import weights_name

AHEAD = 4       # batches that a loader worker holds in shared memory, see data/loader.py
MEETING_S = 60  # for all GPUs of a machine to meet once


def look_at_folders(config: Config, folder: Path, found: CheckReport) -> None:
    """The run folder, or the first one above it that is there, must take a file."""
    for what, path in (("run.folder", folder), ("data.cache", Path(os.path.expanduser(config.data.cache)))):
        there = existing(path)
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            problem = Problem(f"{what}={path}", f"no file can be made in {there} ({error.strerror})",
                              f"Set {what} to a folder of yours that all nodes see")
            if what == "run.folder":
                found.problems.append(problem)
            else:
                found.notes.append(f"{problem}; until then every start reads the annotations anew")


def existing(path: Path) -> Path:
    """The path, or the first folder above it that is there."""
    path = path.absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def look_at_disk(folder: Path, checkpoint_bytes: int, keep: int, found: CheckReport) -> None:
    """Room for the checkpoints that stay, the best one, and the one under way."""
    free, needed = shutil.disk_usage(existing(folder)).free, (keep + 2) * checkpoint_bytes
    found.facts["disk"] = {"free_gib": round(free / 2**30, 2), "needed_gib": round(needed / 2**30, 2),
                           "checkpoint_gib": round(checkpoint_bytes / 2**30, 3)}
    if free < needed:
        found.problems.append(Problem(
            f"run.folder={folder}", f"{free / 2**30:.1f} GiB are free, {needed / 2**30:.1f} are needed: "
            f"{keep} + 2 checkpoints of {checkpoint_bytes / 2**30:.2f} GiB",
            "Make room, set run.folder to another disk, or run.keep_checkpoints=1"))


def look_at_shared_memory(config: Config, largest_image_bytes: int, processes: int, found: CheckReport,
                          place: str = "/dev/shm") -> None:
    """Loader workers hand batches over in shared memory; containers often have 64 MiB of it."""
    if not config.run.num_workers or not os.path.isdir(place):
        return
    free = shutil.disk_usage(place).free
    needed = processes * config.run.num_workers * AHEAD * config.batch.micro_batch_size * largest_image_bytes
    found.facts["shared_memory"] = {"free_gib": round(free / 2**30, 2), "needed_gib": round(needed / 2**30, 2)}
    if free < needed:
        found.problems.append(Problem(
            place, f"{free / 2**20:.0f} MiB are free, the loaders may need {needed / 2**20:.0f}",
            f"Make it larger (docker: --shm-size), or set run.num_workers={config.run.num_workers // 2}"))


def look_at_cores(config: Config, processes: int, found: CheckReport) -> None:
    cores = len(os.sched_getaffinity(0))
    found.facts["cores"] = cores
    if config.run.num_workers * processes > cores:
        found.notes.append(f"{processes} x {config.run.num_workers} loader workers would share the {cores} cores that this "
                           f"process may run on here: ask for more, or set run.num_workers={cores // processes}")


def look_at_weights(config: Config, found: CheckReport) -> None:
    """Is the file there? Where it is one of torchvision's that is not, a run will download it."""
    if not config.model.weights:
        return
    try:
        path = os.path.expanduser(weights_name(config.model))
        entry, path = (None, path) if os.path.isfile(path) else download_of(path)
    except BadInput as error:
        found.problems += problems_of(error, f"model.weights={config.model.weights}")
        return
    found.facts["weights"] = {"file": path, "there": os.path.isfile(path)}
    if not os.path.isfile(path):
        found.notes.append(f"model.weights={config.model.weights}: {path} is not there; the first start downloads "
                           f"{entry.url}. Where the nodes have no network, put it there before")


def look_at_gpus(config: Config, processes: int, found: CheckReport) -> None:
    """GPUs asked for and there; where there are several, they must meet."""
    count = torch.cuda.device_count()
    found.facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(count)]
    if config.run.device == "cuda" and not count:
        found.problems.append(Problem("run.device=cuda", "this machine has no GPU that PyTorch can use",
                                      "Run the check on a machine that has one, or set run.device=cpu"))
    elif config.run.device != "cpu" and 0 < count < processes:
        found.problems.append(Problem(f"{processes} processes", f"this machine has {count} GPUs",
                                      f"Start at most {count} processes on it, or set run.device=cpu"))
    elif config.run.device != "cpu" and count > 1:
        said = meet("cuda", min(processes, count) if processes > 1 else count)
        found.facts["all_reduce"] = said or "ok"
        if said:
            found.problems.append(Problem("all-reduce over the GPUs of this machine", said,
                                          "Look at NCCL_DEBUG=INFO; NCCL_P2P_DISABLE=1 tells if it is their links"))


def meet(device: str, world: int) -> str:
    """That many processes here add up their ranks once; gives what went wrong, or nothing."""
    code = ("import torch\nfrom detector.distributed.collectives import all_reduce_mean\n"
            "from detector.distributed.process_group import process_group\nfrom detector.distributed.rank_info import rank, world_size\n"
            f"with process_group({device!r}, 1.0) as device:\n"
            "    value = float(all_reduce_mean(torch.full((1 << 20,), float(rank()), device=device))[0])\n"
            "    assert abs(value - (world_size() - 1) / 2) < 1e-6, f'the mean of all ranks is {value}'\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    running = [subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
             "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
             "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}) for rank in range(world)]
    said = []
    try:
        for rank, process in enumerate(running):
            error = process.communicate(timeout=MEETING_S)[1]
            if process.returncode:
                said.append(f"rank {rank}: {(error.strip() or f'exit status {process.returncode}').splitlines()[-1]}")
    except subprocess.TimeoutExpired:
        said.append(f"the processes had not met after {MEETING_S} s")
    finally:
        for process in running:
            process.kill()
            process.wait()
    return "; ".join(said)
