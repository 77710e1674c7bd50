"""Not a test: processes of Python that are forked from one that has imported torch already, which takes three seconds.

What is started is found as by `python FILE ...` or `python -m MODULE ...`; each has its own environment and output.
"""

import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


class Forked:
    """What tests use of subprocess.Popen. Output and errors go to one file."""

    def __init__(self, pid: int, folder: Path):
        self.pid, self.folder, self.returncode = pid, folder, None

    def poll(self) -> int | None:
        if (self.folder / "status").exists():
            self.returncode = int((self.folder / "status").read_text())
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, None]:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.folder), timeout)
            time.sleep(0.02)
        return (self.folder / "output").read_text(), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(9)


@cache
def server() -> tuple[subprocess.Popen, tempfile.TemporaryDirectory]:
    """One for each process of tests; it ends when they do."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    return subprocess.Popen([sys.executable, __file__], cwd=REPO, env=environment, text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE), tempfile.TemporaryDirectory()


def start_python(arguments: list[str], environment: dict[str, str]) -> Forked:
    process, folders = server()
    folder = Path(tempfile.mkdtemp(dir=folders.name))
    process.stdin.write(json.dumps([arguments, environment, str(folder)]) + "\n")
    process.stdin.flush()
    return Forked(int(process.stdout.readline()), folder)


def serve() -> None:
    import detector.training.loop  # noqa: F401
    assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1, "a fork would lose threads"
    for line in sys.stdin:
        arguments, environment, folder = json.loads(line)
        ours, theirs = os.pipe()
        if os.fork() == 0:  # it waits for the one that does the work
            working = os.fork()
            if working == 0:
                os.close(ours), os.close(theirs)
                become(arguments, environment, folder)
                return
            os.write(theirs, str(working).encode())
            os.close(theirs)
            status = os.waitstatus_to_exitcode(os.waitpid(working, 0)[1])
            half = Path(folder, "half")
            half.write_text(str(status))
            half.rename(Path(folder, "status"))
            os._exit(0)
        os.close(theirs)
        print(os.read(ours, 20).decode(), flush=True)
        os.close(ours)


def become(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(Path(folder, "output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    if arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], str(REPO)
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    serve()
