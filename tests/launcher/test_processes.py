"""Processes on this machine: one exit status for all of them, signals forwarded, and no process left behind."""

import errno
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from detector.errors import BAD_INPUT, OK, STOPPED
from launcher import processes
from launcher.backends.local import run_local
from launcher.job import Job, Resources
from launcher.processes import FORWARDED_SIGNALS, run_command, wait_for_all, was_stopped_by_signal

START = "import os, signal, sys, time\nfrom pathlib import Path\nrank = int(os.environ['RANK'])\nfolder = Path({!r})\n"
READY = "(folder / f'ready{rank}').touch()\n"
SLEEP = "time.sleep(60)"
UNBLOCK = "signal.pthread_sigmask(signal.SIG_UNBLOCK, range(1, 32))\n"  # processes start with the stop signals blocked
HANDLE = """def handle(number, frame):
    (folder / f'got{rank}').write_text(signal.Signals(number).name)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, handle)
""" + UNBLOCK


@pytest.fixture(autouse=True)
def hangup_not_ignored():
    """Tests may themselves run below nohup, where the launcher leaves SIGHUP ignored."""
    old_handler = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, old_handler)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a line of Python for each rank as one job; gives its exit status."""
    def start(*lines: str) -> int:
        branches = "".join(f"if rank == {rank}:\n" + "".join(f"    {part}\n" for part in line.splitlines())
                           for rank, line in enumerate(lines))
        code = START.format(str(tmp_path)) + branches
        monkeypatch.setattr(Job, "command", lambda self: [sys.executable, "-S", "-c", code])
        started_at = time.monotonic()
        try:
            return run_local(Job("train", (), Resources(len(lines))))
        finally:
            assert time.monotonic() - started_at < 30  # no process slept to the end
    return start


def when_ready(folder: Path, count: int, number: int) -> threading.Thread:
    """Sends this process a signal once all ranks are ready."""
    def send() -> None:
        until = time.monotonic() + 20
        while len(list(folder.glob("ready*"))) < count and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), number)
    thread = threading.Thread(target=send)
    thread.start()
    return thread


def end_with(status: int) -> str:
    return f"sys.exit({status})" if status >= 0 else f"os.kill(os.getpid(), {-status})\n{SLEEP}"


@pytest.mark.parametrize("statuses, expected", [
    ([0], OK), ([75], STOPPED), ([1], 1), ([2], BAD_INPUT), ([-signal.SIGKILL], 128 + signal.SIGKILL),
    ([0, 0, 0], OK), ([75, 75, 75], STOPPED),
    ([0, 75], STOPPED), ([75, 0], STOPPED)])  # one rank had finished; a new start resumes
def test_the_status_of_the_job(statuses, expected, run):
    assert run(*map(end_with, statuses)) == expected


@pytest.mark.parametrize("failing, expected, message", [
    (3, 3, "rank 1 ended with exit status 3"), (-signal.SIGKILL, 137, "rank 1 ended with signal SIGKILL"),
    (-signal.SIGSEGV, 139, "rank 1 ended with signal SIGSEGV"),
    (BAD_INPUT, BAD_INPUT, "")])  # the rank has printed an error
def test_a_rank_that_fails_ends_the_others_and_gives_its_status(failing, expected, message, run, capsys, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_S", 0.3)  # a process that is starting up still has SIGTERM blocked
    assert run(SLEEP, end_with(failing), "sys.exit(0)") == expected
    err = capsys.readouterr().err
    assert message in err and bool(err) == bool(message)


def test_the_failure_of_a_single_process_is_its_own_to_explain_unless_it_was_killed(run, capsys):
    assert run(end_with(3)) == 3
    assert capsys.readouterr().err == ""
    assert run(end_with(-signal.SIGKILL)) == 137
    assert capsys.readouterr().err == "the process ended with signal SIGKILL (the usual cause is a lack of memory)\n"


def test_the_other_ranks_get_time_to_end_well(run, tmp_path):
    until_ready = "while not (folder / 'ready0').exists(): time.sleep(0.02)\nsys.exit(1)"
    assert run(HANDLE + READY + SLEEP, until_ready) == 1
    assert (tmp_path / "got0").read_text() == "SIGTERM"


def test_a_rank_that_ignores_sigterm_is_killed_after_the_grace_period(run, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_S", 0.3)
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + SLEEP
    assert run(stubborn, "while not (folder / 'ready0').exists(): time.sleep(0.02)\nsys.exit(4)") == 4


@pytest.mark.parametrize("number", [n for n in FORWARDED_SIGNALS if n != signal.SIGINT])
def test_signals_are_forwarded_to_every_process(number, run, tmp_path):
    sender = when_ready(tmp_path, 2, number)
    assert run(HANDLE + READY + SLEEP, HANDLE + READY + SLEEP) == STOPPED
    sender.join()
    assert [(tmp_path / f"got{rank}").read_text() for rank in range(2)] == [number.name] * 2


def test_sigint_is_forwarded_as_sigterm(run, tmp_path):
    """A second SIGINT, besides that of the terminal, would stop the ranks at once without saving."""
    sender = when_ready(tmp_path, 2, signal.SIGINT)
    assert run(HANDLE + READY + SLEEP, HANDLE + READY + SLEEP) == STOPPED
    sender.join()
    assert [(tmp_path / f"got{rank}").read_text() for rank in range(2)] == ["SIGTERM"] * 2


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_reaches_other_programs_from_the_terminal_or_from_the_launcher(terminal, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "in_terminal_foreground", lambda: terminal)
    code = START.format(str(tmp_path)) + HANDLE + READY + ("time.sleep(1)\nsys.exit(3)" if terminal else SLEEP)
    sender = when_ready(tmp_path, 1, signal.SIGINT)
    status = run_command([sys.executable, "-S", "-c", code], {**os.environ, "RANK": "0"})
    sender.join()
    assert status == (3 if terminal else STOPPED) and (tmp_path / "got0").exists() != terminal


def test_in_terminal_foreground():
    code = "import sys\nfrom launcher.processes import in_terminal_foreground\nsys.exit(10 + in_terminal_foreground())"
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-c", code])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11
    os.close(terminal)
    assert subprocess.run([sys.executable, "-c", code], start_new_session=True).returncode == 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_process_that_was_still_starting_up_counts_as_stopped(number, run, tmp_path):
    """The process has no handler yet, so the signal kills it; there was nothing to save."""
    sender = when_ready(tmp_path, 2, number)
    assert run(UNBLOCK + READY + SLEEP, HANDLE + READY + SLEEP) == STOPPED
    sender.join()


def test_a_signal_that_arrives_while_python_starts_is_kept(run, tmp_path):
    sender = when_ready(tmp_path, 1, signal.SIGTERM)
    assert run(READY + "time.sleep(1)\n" + HANDLE + SLEEP) == STOPPED
    sender.join()
    assert (tmp_path / "got0").read_text() == "SIGTERM"


def test_a_signal_that_the_launcher_did_not_receive_is_a_failure(run):
    assert run(UNBLOCK + end_with(-signal.SIGUSR1)) == 128 + signal.SIGUSR1


class EndingProcess:
    """A process that ends by itself between two polls."""

    def __init__(self, status: int):
        self.polls = iter([None, *[status] * 9])

    def poll(self) -> int | None:
        return next(self.polls)

    terminate = kill = lambda self: None

    def wait(self, timeout=None) -> int:
        return 0


@pytest.mark.parametrize("status, expected", [(OK, OK), (STOPPED, STOPPED), (-signal.SIGTERM, STOPPED), (3, 3)])
def test_each_process_is_polled_once_a_round(status, expected):
    assert wait_for_all([EndingProcess(status)], {signal.SIGTERM}) == expected


@pytest.mark.parametrize("error", [OSError(errno.ESTALE, "Stale file handle"), BrokenPipeError()])
def test_a_watch_that_fails_ends_no_process(error):
    """The run folder is on a network disk that fails for a moment, or the reader of a report of a hang has gone."""
    def watch() -> None:
        raise error
    assert wait_for_all([EndingProcess(OK)], on_poll=watch) == OK


def test_the_old_handlers_are_restored(run):
    before = [signal.getsignal(number) for number in FORWARDED_SIGNALS]
    run(end_with(0))
    run(end_with(1))
    assert [signal.getsignal(number) for number in FORWARDED_SIGNALS] == before


def test_each_process_has_torchruns_variables(run, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    line = f"(folder / f'env{{rank}}').write_text(' '.join(os.environ[name] for name in {names}))"
    assert run(line, line) == OK
    values = [(tmp_path / f"env{rank}").read_text().split() for rank in range(2)]
    port, threads = values[0][5], str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert values == [[str(rank), str(rank), "2", "2", "127.0.0.1", port, threads] for rank in range(2)]
    assert 1024 <= int(port) < 65536
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # the user's own value is kept
    run(line)
    alone = (tmp_path / "env0").read_text().split()
    assert alone[:5] == ["0", "0", "1", "1", "127.0.0.1"] and alone[6] == "7"


@pytest.mark.parametrize("status, requested, stopped", [
    (None, {signal.SIGTERM}, False),                 # still running
    (0, {signal.SIGTERM}, False), (15, {signal.SIGTERM}, False), (75, {signal.SIGTERM}, False),  # ended by itself
    (-signal.SIGTERM, {signal.SIGTERM}, True), (-signal.SIGUSR1, {signal.SIGTERM}, False), (-signal.SIGTERM, set(), False),
    (-signal.SIGKILL, {signal.SIGTERM, signal.SIGUSR1}, False), (-signal.SIGUSR1, {signal.SIGTERM, signal.SIGUSR1}, True)])
def test_was_stopped_by_signal(status, requested, stopped):
    assert was_stopped_by_signal(status, requested) is stopped
