"""Errors of the machine are one line with the cause and a remedy; errors of the code are left as they are."""

import errno
import os

import pytest

from detector.errors import BAD_INPUT
from detector.run import machine_errors
from detector.run.machine_errors import explain, is_closed_output


def error_of(number: int, *file: str) -> OSError:
    return OSError(number, os.strerror(number), *file)


@pytest.mark.parametrize("number, file", [
    (errno.ESTALE, ()), (errno.EIO, ()), (errno.ESHUTDOWN, ()), (errno.ENOTCONN, ("/lustre/a.jpg",)),
    (errno.EKEYEXPIRED, ("/afs/a.jpg",)), (errno.ETIMEDOUT, ("/nfs/a.jpg",))])
def test_a_network_disk_that_fails_is_not_blamed_on_permissions_or_space(number, file):
    text, status = explain(error_of(number, *file))
    assert status == BAD_INPUT and text.startswith(file[0] if file else "a file") and "give the command again" in text
    assert "permissions" not in text


def test_an_error_of_a_connection_is_not_one_of_a_disk():
    assert explain(error_of(errno.ENOTCONN)) is None and explain(error_of(errno.ETIMEDOUT)) is None


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EROFS, errno.EACCES])
def test_a_container_without_shared_memory_is_named(number, tmp_path, monkeypatch):
    """Locks of processes are files in /dev/shm, whose errors name no file."""
    monkeypatch.setattr(machine_errors, "SHARED_MEMORY", str(tmp_path / "none"))
    text, status = explain(error_of(number))
    assert status == BAD_INPUT and "/none is missing or cannot be written" in text and "run.num_workers=0" in text
    assert "none is missing" not in str(explain(error_of(number, "log.txt")))
    monkeypatch.setattr(machine_errors, "SHARED_MEMORY", str(tmp_path))
    assert "is missing" not in str(explain(error_of(number)))


def test_a_reader_that_has_ended_is_no_lost_disk():
    assert is_closed_output(BrokenPipeError()) and is_closed_output(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert not is_closed_output(error_of(errno.ESHUTDOWN)) and not is_closed_output(ValueError())
