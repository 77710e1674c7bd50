"""Processes on this machine: one exit status for all of them, signals handed on, and no process left behind."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from detector.errors import BAD_INPUT, OK, STOPPED, BadInput
from launcher.backends import local
from launcher.backends.local import FORWARDED, processes_here, run_command, run_here, wait
from launcher.job import Job, Resources

START = "import os, signal, sys, time\nfrom pathlib import Path\nrank = int(os.environ['RANK'])\nhere = Path({!r})\n"
READY = "(here / f'ready{rank}').touch()\n"
SLEEP = "time.sleep(60)"
LET_IN = "signal.pthread_sigmask(signal.SIG_UNBLOCK, range(1, 32))\n"  # they start with the stop signals blocked
NOTE = """def note(number, frame):
    (here / f'got{rank}').write_text(signal.Signals(number).name)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, note)
""" + LET_IN


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
            return run_here(Job("train", (), Resources(len(lines))))
        finally:
            assert time.monotonic() - started_at < 30  # nobody slept to the end
    return start


def when_ready(folder: Path, processes: int, number: int) -> threading.Thread:
    """Sends this process a signal once all ranks have said that they are ready."""
    def send() -> None:
        until = time.monotonic() + 20
        while len(list(folder.glob("ready*"))) < processes and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), number)
    thread = threading.Thread(target=send)
    thread.start()
    return thread


def ends(status: int) -> str:
    return f"sys.exit({status})" if status >= 0 else f"os.kill(os.getpid(), {-status})\n{SLEEP}"


@pytest.mark.parametrize("statuses, expected", [
    ([0], OK), ([75], STOPPED), ([1], 1), ([2], BAD_INPUT), ([-signal.SIGKILL], 128 + signal.SIGKILL),
    ([0, 0, 0], OK), ([75, 75, 75], STOPPED),
    ([0, 75], STOPPED), ([75, 0], STOPPED)])  # one was through already: start again to go on
def test_the_status_of_the_job(statuses, expected, run):
    assert run(*map(ends, statuses)) == expected


@pytest.mark.parametrize("failing, expected, said", [
    (3, 3, "rank 1 ended with exit status 3"), (-signal.SIGKILL, 137, "rank 1 ended with signal SIGKILL"),
    (-signal.SIGSEGV, 139, "rank 1 ended with signal SIGSEGV"),
    (BAD_INPUT, BAD_INPUT, "")])  # it has told the user why
def test_one_that_fails_ends_the_others_and_gives_its_status(failing, expected, said, run, capsys, monkeypatch):
    monkeypatch.setattr(local, "GRACE_S", 0.3)  # one that is starting up does not hear yet that it shall end
    assert run(SLEEP, ends(failing), "sys.exit(0)") == expected
    err = capsys.readouterr().err
    assert said in err and bool(err) == bool(said)


def test_one_process_alone_is_not_talked_about(run, capsys):
    assert run(ends(3)) == 3
    assert capsys.readouterr().err == ""


def test_the_others_get_time_to_end_well(run, tmp_path):
    until_ready = "while not (here / 'ready0').exists(): time.sleep(0.02)\nsys.exit(1)"
    assert run(NOTE + READY + SLEEP, until_ready) == 1
    assert (tmp_path / "got0").read_text() == "SIGTERM"


def test_one_that_does_not_end_is_killed_after_the_grace(run, monkeypatch):
    monkeypatch.setattr(local, "GRACE_S", 0.3)
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + SLEEP
    assert run(stubborn, "while not (here / 'ready0').exists(): time.sleep(0.02)\nsys.exit(4)") == 4


@pytest.mark.parametrize("number", [n for n in FORWARDED if n != signal.SIGINT])
def test_signals_are_handed_on_to_every_process(number, run, tmp_path):
    sender = when_ready(tmp_path, 2, number)
    assert run(NOTE + READY + SLEEP, NOTE + READY + SLEEP) == STOPPED
    sender.join()
    assert [(tmp_path / f"got{rank}").read_text() for rank in range(2)] == [number.name] * 2


def test_kill_int_ends_a_job_and_is_no_second_ctrl_c_beside_that_of_a_terminal(run, tmp_path):
    """Twice would mean: at once, without saving."""
    sender = when_ready(tmp_path, 2, signal.SIGINT)
    assert run(NOTE + READY + SLEEP, NOTE + READY + SLEEP) == STOPPED
    sender.join()
    assert [(tmp_path / f"got{rank}").read_text() for rank in range(2)] == ["SIGTERM"] * 2


@pytest.mark.parametrize("terminal", [True, False])
def test_what_ctrl_c_ends_at_once_gets_it_from_a_terminal_or_from_us(terminal, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "at_a_terminal", lambda: terminal)
    code = START.format(str(tmp_path)) + NOTE + READY + ("time.sleep(1)\nsys.exit(3)" if terminal else SLEEP)
    sender = when_ready(tmp_path, 1, signal.SIGINT)
    status = run_command([sys.executable, "-S", "-c", code], {**os.environ, "RANK": "0"})
    sender.join()
    assert status == (3 if terminal else STOPPED) and (tmp_path / "got0").exists() != terminal


def test_at_a_terminal_is_whoever_is_in_its_foreground():
    code = "import sys\nfrom launcher.backends.local import at_a_terminal\nsys.exit(10 + at_a_terminal())"
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-c", code])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11
    os.close(terminal)
    assert subprocess.run([sys.executable, "-c", code], start_new_session=True).returncode == 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_one_that_was_still_starting_up_counts_as_stopped(number, run, tmp_path):
    """It has no handler yet, so the signal ends it; there was nothing to save."""
    sender = when_ready(tmp_path, 2, number)
    assert run(LET_IN + READY + SLEEP, NOTE + READY + SLEEP) == STOPPED
    sender.join()


def test_a_signal_that_comes_while_python_starts_is_kept_until_it_can_be_noted(run, tmp_path):
    sender = when_ready(tmp_path, 1, signal.SIGTERM)
    assert run(READY + "time.sleep(1)\n" + NOTE + SLEEP) == STOPPED
    sender.join()
    assert (tmp_path / "got0").read_text() == "SIGTERM"


def test_a_signal_that_nobody_sent_us_is_a_failure(run):
    assert run(LET_IN + ends(-signal.SIGUSR1)) == 128 + signal.SIGUSR1


class Ending:
    """A process that ends by itself between one look at it and the next."""

    def __init__(self, status: int):
        self.looks = iter([None, *[status] * 9])

    def poll(self) -> int | None:
        return next(self.looks)

    terminate = kill = lambda self: None

    def wait(self, timeout=None) -> int:
        return 0


@pytest.mark.parametrize("status, expected", [(OK, OK), (STOPPED, STOPPED), (-signal.SIGTERM, STOPPED), (3, 3)])
def test_each_process_is_looked_at_once_a_round(status, expected):
    assert wait([Ending(status)], {signal.SIGTERM}) == expected


def test_the_old_handlers_come_back(run):
    before = [signal.getsignal(number) for number in FORWARDED]
    run(ends(0))
    run(ends(1))
    assert [signal.getsignal(number) for number in FORWARDED] == before


def test_each_process_knows_torchruns_variables(run, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    line = f"(here / f'env{{rank}}').write_text(' '.join(os.environ[name] for name in {names}))"
    assert run(line, line) == OK
    said = [(tmp_path / f"env{rank}").read_text().split() for rank in range(2)]
    port, threads = said[0][5], str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert said == [[str(rank), str(rank), "2", "2", "127.0.0.1", port, threads] for rank in range(2)]
    assert 1024 <= int(port) < 65536
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # the user's own choice stays
    run(line)
    alone = (tmp_path / "env0").read_text().split()
    assert alone[:5] == ["0", "0", "1", "1", "127.0.0.1"] and alone[6] == "7"


@pytest.mark.parametrize("verb, asked, gpus, processes", [
    ("train", 0, 0, 1), ("train", 0, 3, 3), ("train", 2, 3, 2), ("evaluate", 0, 3, 3),
    ("check", 0, 3, 1), ("predict", 0, 3, 1), ("options", 0, 3, 1)])
def test_as_many_processes_as_asked_for_or_as_there_are_gpus(verb, asked, gpus, processes, tmp_path, monkeypatch):
    code = START.format(str(tmp_path)) + READY
    monkeypatch.setattr(Job, "command", lambda self: [sys.executable, "-S", "-c", code])
    monkeypatch.setattr(local, "gpus_here", lambda: gpus)
    assert run_here(Job(verb, (), Resources(asked))) == OK
    assert len(list(tmp_path.glob("ready*"))) == processes


@pytest.mark.parametrize("processes, device, gpus, message", [
    (4, "auto", 2, "--processes 4: more processes than GPUs, of which this machine has 2. Start at most 2"),
    (4, "cuda", 2, "more processes than GPUs"), (2, "cuda", 0, "no GPU that PyTorch can use; set run.device=cpu"),
    (2, "auto", 2, None), (4, "auto", 0, None), (4, "cpu", 2, None)])  # CPU processes are as many as one likes
def test_too_many_processes_are_refused_before_any_starts(processes, device, gpus, message, monkeypatch):
    monkeypatch.setattr(local, "gpus_here", lambda: gpus)
    if message is None:
        assert processes_here(processes, device, most=0) == processes
        return
    with pytest.raises(BadInput, match=message):
        processes_here(processes, device, most=0)


@pytest.mark.parametrize("device, gpus, most, processes", [
    ("auto", 8, 16, 8), ("auto", 8, 4, 4), ("auto", 8, 0, 8), ("auto", 0, 16, 1), ("cpu", 8, 16, 1)])
def test_without_a_wish_there_is_a_process_for_each_gpu_but_none_without_an_image(device, gpus, most, processes,
                                                                                monkeypatch):
    monkeypatch.setattr(local, "gpus_here", lambda: gpus)
    assert processes_here(0, device, most) == processes


def test_a_job_says_its_command():
    command = Job("train", ("a.yaml", "seed=1")).command()
    assert command[1:] == ["-m", "detector", "train", "a.yaml", "seed=1"]
    assert subprocess.run([command[0], "-c", "print(1)"], capture_output=True, text=True).stdout == "1\n"
