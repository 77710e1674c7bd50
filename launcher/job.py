"""What runs on what: frozen and printable."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from detector.config.schema import option

CODE = Path(__file__).resolve().parent.parent  # the checkout, site-packages, or a run's own copy of the code


def counted(count: int, one: str, more: str = "") -> str:
    """1 node, 2 nodes, 2 processes"""
    return f"{count} {one if count == 1 else more or one + 's'}"


@dataclass(frozen=True)
class Resources:
    """What a run may use. A cluster file states a site's own values once, the command line those of one run."""

    processes: int = option(0, "processes on each node; 0: one for each GPU, or one on the CPU", low=0)
    nodes: int = option(1, "machines", low=1)
    gpus: int = option(0, "GPUs of each node", low=0)
    cores: int = option(0, "CPU cores of each process; 0: its loader workers and one more", low=0)
    memory_gib: int = option(0, "memory of each node; 0: the cluster's default", low=0)
    hours: float = option(24.0, "time limit; a run that reaches it is saved and queued again", low=0.01)
    notice_s: int = option(120, "seconds from the stop signal to the time limit; Slurm may be a minute early", low=10)
    partition: str = option("", "empty: the cluster's default")
    account: str = option("", "empty: the user's default")
    constraint: str = option("", "features of the nodes, such as h100|a100")
    shared: str = option("", "folder that all nodes see: the run must lie below it; empty: not checked")
    snapshot: bool = option(True, "runs the code as it is at submission, from a copy in the run folder, whatever is "
                                  "edited later")
    modules: tuple[str, ...] = option((), "environment modules to load")
    setup: tuple[str, ...] = option((), "lines of shell that come before the run")
    container: str = option("", "command in front of the processes' python, such as: apptainer exec --nv torch.sif")
    python: str = option("", "python of the processes; empty: the one of this command")
    sbatch: tuple[str, ...] = option((), "further options of sbatch, such as --qos=long")

    @property
    def per_node(self) -> int:
        return self.processes or self.gpus or 1

    @property
    def world(self) -> int:
        return self.nodes * self.per_node

    @property
    def minutes(self) -> int:
        """Slurm counts time limits in whole minutes."""
        return max(1, math.ceil(self.hours * 60 - 1e-6))


@dataclass(frozen=True)
class Job:
    """One verb of the detector with its arguments, and what it may use."""

    verb: str
    arguments: tuple[str, ...]
    resources: Resources = Resources()

    def command(self) -> list[str]:
        """The command line of one process."""
        return [*starter(CODE, "detector"), self.verb, *self.arguments]


def starter(code: Path, package: str, python: str = "") -> list[str]:
    """How Python starts a package: a run's copy of the code is started by its folder, so that the folder a user
    happens to be in never takes its place."""
    return [python or sys.executable, *program(code, package)]


def program(code: Path, package: str) -> list[str]:
    return [str(code)] if (code / "__main__.py").is_file() else ["-m", package]
