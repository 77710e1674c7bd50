"""Helper of tests: forks Python processes from one that has imported torch already; an import takes three seconds.

A process runs FILE or -m MODULE as `python` would, with its own environment and output file. Requests and replies are one
line each, on stdin and stdout of the server.
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
    """A process that the server forked: the part of subprocess.Popen that tests use. stderr goes to stdout's file."""

    def __init__(self, pid: int, folder: Path):
        self.pid, self.folder, self.returncode = pid, folder, None

    def poll(self) -> int | None:
        if (self.folder / "status").exists():
            self.returncode = int((self.folder / "status").read_text())
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, None]:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
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
    """Starts the server of this test process, once; the server ends with the test process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    return subprocess.Popen([sys.executable, __file__], cwd=REPO, env=environment, text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE), tempfile.TemporaryDirectory()


def start_python(args: list[str], environment: dict[str, str]) -> Forked:
    """Runs `python ARGS` in a forked process."""
    process, folders = server()
    folder = Path(tempfile.mkdtemp(dir=folders.name))
    process.stdin.write(json.dumps([args, environment, str(folder)]) + "\n")
    process.stdin.flush()
    return Forked(int(process.stdout.readline()), folder)


def serve() -> None:
    """Reads requests from stdin until it is closed. A child waits for each grandchild, which runs the program."""
    import detector.training.loop  # noqa: F401
    assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1, "a fork would lose threads"
    for line in sys.stdin:
        args, environment, folder = json.loads(line)
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            grandchild = os.fork()
            if grandchild == 0:
                os.close(read_end), os.close(write_end)
                run_program(args, environment, folder)
                return
            os.write(write_end, str(grandchild).encode())
            os.close(write_end)
            status = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
            partial = Path(folder, "status.part")
            partial.write_text(str(status))
            partial.rename(Path(folder, "status"))
            os._exit(0)
        os.close(write_end)
        print(os.read(read_end, 20).decode(), flush=True)
        os.close(read_end)


def run_program(args: list[str], environment: dict[str, str], folder: str) -> None:
    """Replaces environment, stdin, stdout and stderr of this process, then runs FILE or -m MODULE."""
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(Path(folder, "output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    if args[0] == "-m":
        sys.argv, sys.path[0] = args[1:], str(REPO)
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = args, str(Path(args[0]).parent)
        runpy.run_path(args[0], run_name="__main__")


if __name__ == "__main__":
    serve()
