"""Rank, local rank and world size of this process, from the environment variables of torchrun.

A process that no launcher started is rank 0 of 1.
"""

import os


def rank() -> int:
    """Returns the number of this process among all processes of the run: 0 ... world_size() - 1."""
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """Returns the number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    """Returns the number of processes of the run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Returns whether this process is rank 0, which logs and writes checkpoints."""
    return rank() == 0
