"""Helper of tests: starts the processes of a run on this machine, as a launcher does."""

import os
import subprocess
import sys
from pathlib import Path

from fork_server import REPO, Forked, start_python

from launcher.rank_env import free_port, local_environment

CUT_RUN = Path(__file__).parent / "cut_run.py"


def start(args: list[str], processes: int = 1, **environment: str) -> list[Forked]:
    """Starts one process for each rank, with one thread each, so that sums are computed in the same order on any machine."""
    port = free_port()
    return [start_python(args, {**local_environment(rank, processes, port), "OMP_NUM_THREADS": "1",
                                "PYTHONPATH": str(REPO), **environment}) for rank in range(processes)]


def finish(processes: list[Forked | subprocess.Popen], timeout_s: float = 240) -> tuple[list[int], str]:
    """Waits for all processes; returns their exit statuses and all output. A timeout is an AssertionError with the output."""
    output = ""
    try:
        for process in processes:
            output += process.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        raise AssertionError(f"still running after {timeout_s} s: {output}") from None
    return [process.returncode for process in processes], output


def run(args: list[str], processes: int = 1, **environment: str) -> tuple[list[int], str]:
    """Returns the exit status of every rank, and all output."""
    return finish(start(args, processes, **environment))


def train(stop_after: int, config: Path, overrides: list[str], processes: int = 1, **environment: str) -> str:
    """Trains to the end (0) or to a stop after a step; asserts the exit status of every rank and returns the output."""
    statuses, output = run([str(CUT_RUN), str(stop_after), "train", str(config), *overrides], processes, **environment)
    assert statuses == [75 if stop_after else 0] * processes, output
    return output


def torchrun(args: list[str], processes: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *args]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=240,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)})
