"""What a run ran on: for environment.json and for the lines at its start."""

import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import numpy
import torch
import torchvision

from detector.distributed import world


def surroundings() -> dict:
    """Versions, machine, processes and, in a checkout, the commit."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"command": sys.argv, "host": socket.gethostname(), "processes": world(), "gpus": gpus,
            "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(),
            "python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__,
            "numpy": numpy.__version__, "commit": commit()}


def commit() -> str:
    """The commit of the code that runs, with + if files differ from it; empty outside a checkout."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return ""
    try:
        name = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True)
        return name.stdout.strip() + ("+" if changes.stdout.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
