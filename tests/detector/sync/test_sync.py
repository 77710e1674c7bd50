"""`sync` without a tracker: errors before anything is sent."""

import contextlib
import importlib.util
import os
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from recorded_run import make_run

from detector.__main__ import main
from detector.errors import BadInput
from detector.run.folder_lock import folder_lock
from detector.sync.progress import Progress, read_entries, read_progress, write_progress
from detector.sync.sync import TARGETS, ensure_reachable, sync


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_BASE_URL", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("to, package", [("mlflow", "mlflow-skinny"), ("wandb", "wandb")])
def test_a_missing_package_is_one_error_with_the_command_that_installs_it(to, package, tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["sync", str(run), "--to", to]) == 2
    error, = capsys.readouterr().err.splitlines()
    assert error == f"error: sync --to {to} needs {to}, which is not installed: pip install {package}"
    assert not (run / "sync.json").exists()


@pytest.mark.parametrize("to", TARGETS)
def test_a_server_that_cannot_be_reached_is_one_error(to, installed, tmp_path, capsys):
    run, address = make_run(tmp_path / "run"), free_address()
    assert main(["sync", str(run), "--to", to, "--url", address]) == 2
    error, = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {address} cannot be reached: ") and "--url" in error
    assert ("WANDB_MODE=offline" in error) == (to == "wandb") and not (run / "sync.json").exists()


def test_mlflow_without_a_server_is_told_how_to_name_one(installed, tmp_path):
    with pytest.raises(BadInput, match="needs a server: --url .* or the environment variable MLFLOW_TRACKING_URI"):
        sync(str(make_run(tmp_path / "run")), "mlflow")


@pytest.mark.parametrize("to, url", [("mlflow", "localhost:5000"), ("wandb", "localhost"), ("wandb", "sqlite:///a.db")])
def test_an_address_that_is_none_is_refused(to, url, installed, tmp_path):
    with pytest.raises(BadInput, match=f"--url {url}: an address is expected, such as http://localhost:5000"):
        sync(str(make_run(tmp_path / "run")), to, url)


def test_a_run_folder_that_cannot_be_written_is_refused_before_anything_is_sent(installed, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(BadInput, match="run cannot be written, and sync.json in it keeps what was sent"):
        sync(str(run), "mlflow", "sqlite:///not-opened.db")


def test_two_syncs_of_one_run_do_not_send_the_same_at_once(installed, tmp_path):
    run = make_run(tmp_path / "run")
    with folder_lock(run), pytest.raises(BadInput, match=f"another process syncs {run}: wait for it"):
        sync(str(run), "mlflow", "sqlite:///not-opened.db")


@pytest.mark.parametrize("to, url, message", [
    ("mlflow", "http://me:s3cret@127.0.0.1:1", "leave name and password out of the address"),
    ("wandb", "https://s3cret@127.0.0.1:1/", "or WANDB_API_KEY"), ("mlflow", "me:s3cret@host:5000", "leave name and password out"),
    ("mlflow", "postgresql://u:s3cret@127.0.0.1:1/db", "start `mlflow server"),
    ("mlflow", "mysql+pymysql://127.0.0.1:1/db?password=s3cret", "name that server: --url http://localhost:5000")])
@pytest.mark.parametrize("is_option", [True, False])
def test_a_password_is_neither_printed_nor_kept(is_option, to, url, message, installed, tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run")
    if not is_option:
        monkeypatch.setenv(TARGETS[to].url_variable, url)
    assert main(["sync", str(run), "--to", to, *(["--url", url] if is_option else [])]) == 2
    error, = capsys.readouterr().err.splitlines()
    assert message in error and "s3cret" not in error and not (run / "sync.json").exists()


@pytest.fixture
def listener():
    """A socket that waits for one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def answer_once(listener: socket.socket, wrap=lambda connection: connection, answer: bytes = b"SSH-2.0-OpenSSH_9.6\r\n") -> None:
    def serve() -> None:
        with contextlib.suppress(OSError):
            connection = listener.accept()[0]
            with wrap(connection) as connection:
                connection.recv(4096)
                connection.sendall(answer)
    threading.Thread(target=serve, daemon=True).start()


def test_a_server_of_another_kind_is_one_error(listener, tmp_path, installed, capsys):
    answer_once(listener)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert main(["sync", str(make_run(tmp_path / "run")), "--to", "mlflow", "--url", address]) == 2
    error, = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {address} cannot be reached: SSH-2.0-OpenSSH_9.6. Start the server")


@pytest.mark.parametrize("url", ["http://localhost:port", "http://local host:5000", "http://[::1", "http://"])
def test_an_address_that_cannot_be_read_is_one_error(url):
    with pytest.raises(BadInput, match="cannot be reached: .*Start the server"):
        ensure_reachable(url, TARGETS["mlflow"])


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl, which makes a certificate, is not installed")
def test_a_server_whose_certificate_only_the_tracker_knows_is_reachable(listener, tmp_path):
    """MLflow may be given the certificate by REQUESTS_CA_BUNDLE."""
    names = {"-keyout": str(tmp_path / "key.pem"), "-out": str(tmp_path / "certificate.pem"), "-subj": "/CN=localhost"}
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *(word for pair in names.items() for word in pair)],
                   check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(names["-out"], names["-keyout"])
    answer_once(listener, lambda connection: context.wrap_socket(connection, server_side=True))
    address = f"https://127.0.0.1:{listener.getsockname()[1]}"
    ensure_reachable(address, TARGETS["mlflow"])
    listener.close()
    with pytest.raises(BadInput, match="cannot be reached"):
        ensure_reachable(address, TARGETS["mlflow"])


@pytest.mark.parametrize("to, sent, again", [
    ("mlflow", "http://h:5000", "http://h:5000/"), ("mlflow", "http://h:5000/", "http://h:5000"),
    ("wandb", "", "https://api.wandb.ai"), ("wandb", "https://api.wandb.ai/", "")])
def test_one_server_has_one_entry_however_its_address_is_written(to, sent, again, tmp_path):
    write_progress(tmp_path, Progress(to, sent, "cells", "bccd", "id1"))
    progress = read_progress(tmp_path, to, again, "cells", "bccd")
    assert (progress.run, progress.url) == ("id1", again)
    write_progress(tmp_path, progress)
    assert read_entries(tmp_path) == [progress]
    assert read_progress(tmp_path, to, "http://other:5000", "cells", "bccd").run == ""
