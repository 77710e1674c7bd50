"""Not a test: starts one or two processes of a run on this machine, as any launcher does."""

import os
import subprocess
import sys
from pathlib import Path

from fork_server import REPO, Forked, start_python

from launcher.rank_env import free_port, local_environment

CUT_RUN = Path(__file__).parent / "cut_run.py"


def start(arguments: list[str], processes: int = 1, **environment: str) -> list[Forked]:
    """One thread each, so that the same work is done in the same order however many there are."""
    port = free_port()
    return [start_python(arguments, {**local_environment(rank, processes, port), "OMP_NUM_THREADS": "1",
                                     "PYTHONPATH": str(REPO), **environment}) for rank in range(processes)]


def finish(running: list[Forked | subprocess.Popen], timeout_s: float = 240) -> tuple[list[int], str]:
    """Exit statuses and all output; a hang is an error of the test, with what was said until then."""
    said = ""
    try:
        for process in running:
            said += process.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        for process in running:
            process.kill()
        raise AssertionError(f"still running after {timeout_s} s: {said}") from None
    return [process.returncode for process in running], said


def run(arguments: list[str], processes: int = 1, **environment: str) -> tuple[list[int], str]:
    return finish(start(arguments, processes, **environment))


def train(stop_after: int, config: Path, overrides: list[str], processes: int = 1, **environment: str) -> str:
    """A training to its end (0) or to a stop; asserts the exit status of every rank."""
    statuses, said = run([str(CUT_RUN), str(stop_after), "train", str(config), *overrides], processes, **environment)
    assert statuses == [75 if stop_after else 0] * processes, said
    return said


def torchrun(arguments: list[str], processes: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               *arguments]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=240,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)})
