"""One process trains a run: a second start is refused, and the lock of a process that has ended is free."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from detector.errors import BadInput
from detector.run import lock
from detector.run.files import LOCK_FILE
from detector.run.lock import Liveness, Owner, RunLock, read_owner, refuse_second_start


def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_second_owner_is_refused_and_leaves_the_lock_as_it_is(tmp_path):
    with closing(RunLock(tmp_path)) as first:
        first.take()
        first.take()  # twice is once
        owner = (tmp_path / LOCK_FILE).read_text()
        assert owner == f"process {os.getpid()} on {socket.gethostname()}"
        for second in (RunLock(tmp_path).take, lambda: refuse_second_start(tmp_path)):
            with pytest.raises(BadInput, match=f"is being trained by {owner}. Wait"):
                second()
        assert (tmp_path / LOCK_FILE).read_text() == owner
    refuse_second_start(tmp_path)
    with closing(RunLock(tmp_path)) as third:
        third.take()


def test_without_a_folder_there_is_no_lock_and_none_is_made(tmp_path):
    with closing(RunLock(tmp_path / "new")) as own:
        own.take()
        refuse_second_start(tmp_path / "new")
        assert not (tmp_path / "new").exists()
        (tmp_path / "new").mkdir()
        own.take()
        with pytest.raises(BadInput, match="is being trained"):
            refuse_second_start(tmp_path / "new")


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    code = ("import os, pathlib, signal, sys\nfrom detector.run.lock import RunLock\nRunLock(pathlib.Path(sys.argv[1])).take()\n"
            "os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    assert "process" in (tmp_path / LOCK_FILE).read_text()
    with closing(RunLock(tmp_path)) as next_lock:
        next_lock.take()


@pytest.mark.parametrize("locks", [True, False])
def test_the_owner_is_alive_dead_elsewhere_or_none(locks, tmp_path, monkeypatch):
    if not locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    assert read_owner(tmp_path) == Owner()
    with closing(RunLock(tmp_path)) as own:
        own.take()
        assert read_owner(tmp_path) == Owner(os.getpid(), socket.gethostname(), Liveness.ALIVE)
    assert read_owner(tmp_path) == Owner()
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / LOCK_FILE).write_text(f"process {ended.pid} on {socket.gethostname()}")
    assert read_owner(tmp_path).liveness is Liveness.DEAD
    (tmp_path / LOCK_FILE).write_text("process 12 on another-machine")
    assert read_owner(tmp_path) == Owner(12, "another-machine", Liveness.ELSEWHERE)


def test_a_later_process_with_the_number_of_the_owner_is_not_the_owner(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / LOCK_FILE).write_text(f"process {os.getpid()} on {socket.gethostname()}")
    os.utime(tmp_path / LOCK_FILE, (1e9, 1e9))
    assert read_owner(tmp_path).liveness is Liveness.DEAD


def test_a_reader_of_the_lock_does_not_refuse_a_start(tmp_path):
    (tmp_path / LOCK_FILE).write_text("")
    with open(tmp_path / LOCK_FILE) as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        timer = threading.Timer(0.2, lambda: fcntl.flock(reader, fcntl.LOCK_UN))
        timer.start()
        with closing(RunLock(tmp_path)) as own:
            own.take()
        timer.join()


@pytest.mark.parametrize("locks", [True, False], ids=["locks of one machine", "no locks"])
@pytest.mark.parametrize("moves", [True, False], ids=["heartbeats change", "heartbeats stay"])
def test_an_owner_on_another_machine_counts_while_its_heartbeats_change(locks, moves, tmp_path, monkeypatch):
    """The run folder is on a network disk that keeps locks to one machine, or has none."""
    if not locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(lock, "WATCH_S", 2 if moves else 0.5)
    (tmp_path / LOCK_FILE).write_text("process 12 on another-machine")
    file = tmp_path / "heartbeats" / "rank-00000.json"
    file.parent.mkdir()
    file.write_text("{}")
    timer = threading.Timer(0.3, lambda: file.write_text('{"step": 2}') if moves else None)
    timer.start()
    if moves:
        with pytest.raises(BadInput, match="is being trained by process 12 on another-machine"):
            RunLock(tmp_path).take()
        assert (tmp_path / LOCK_FILE).read_text() == "process 12 on another-machine"
    else:
        with closing(RunLock(tmp_path)) as own:
            own.take()
            assert str(os.getpid()) in (tmp_path / LOCK_FILE).read_text()
    timer.join()


def test_a_heartbeat_that_is_replaced_while_it_is_read_is_a_sign_of_life(tmp_path, monkeypatch):
    """On NFS, a file that another machine has replaced gives ESTALE."""
    (tmp_path / "heartbeats").mkdir()
    (tmp_path / "heartbeats" / "rank-00000.json").write_text("{}")
    (tmp_path / "owner.lock").write_text("process 5 on elsewhere")
    reads = iter([False, True])
    original = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if next(reads, False):
            raise OSError(errno.ESTALE, "Stale file handle")
        return original(path)
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(BadInput, match="is being trained by process 5 on elsewhere"):
        lock.refuse_second_start(tmp_path)
