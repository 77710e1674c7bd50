"""The backends local and torchrun: how many processes, under which command, with which exit status."""

import subprocess
import sys
import time

import pytest

from detector.errors import BAD_INPUT, FAILED, OK, STOPPED, BadInput
from detector.run.files import write_json
from launcher.backends import local
from launcher.backends.local import choose_process_count, run_local, run_torchrun
from launcher.job import Job, Resources


@pytest.mark.parametrize("verb, requested, gpus, processes", [
    ("train", 0, 0, 1), ("train", 0, 3, 3), ("train", 2, 3, 2), ("evaluate", 0, 3, 3),
    ("check", 0, 3, 1), ("predict", 0, 3, 1), ("options", 0, 3, 1)])
def test_as_many_processes_as_requested_or_as_there_are_gpus(verb, requested, gpus, processes, tmp_path, monkeypatch):
    code = f"import os, pathlib; pathlib.Path({str(tmp_path)!r}, 'ready' + os.environ['RANK']).touch()"
    monkeypatch.setattr(Job, "command", lambda self: [sys.executable, "-S", "-c", code])
    monkeypatch.setattr(local, "count_gpus", lambda: gpus)
    assert run_local(Job(verb, (), Resources(requested))) == OK
    assert len(list(tmp_path.glob("ready*"))) == processes


@pytest.mark.parametrize("processes, device, gpus, message", [
    (4, "auto", 2, "--processes 4: more processes than GPUs, of which this machine has 2. Start at most 2"),
    (4, "cuda", 2, "more processes than GPUs"), (2, "cuda", 0, "no GPU that PyTorch can use; set run.device=cpu"),
    (2, "auto", 2, None), (4, "auto", 0, None), (4, "cpu", 2, None)])  # any number of processes on a CPU
def test_too_many_processes_are_refused(processes, device, gpus, message, monkeypatch):
    monkeypatch.setattr(local, "count_gpus", lambda: gpus)
    if message is None:
        assert choose_process_count(processes, device, max_processes=0) == processes
        return
    with pytest.raises(BadInput, match=message):
        choose_process_count(processes, device, max_processes=0)


@pytest.mark.parametrize("device, gpus, max_processes, processes", [
    ("auto", 8, 16, 8), ("auto", 8, 4, 4), ("auto", 8, 0, 8), ("auto", 0, 16, 1), ("cpu", 8, 16, 1)])
def test_by_default_there_is_a_process_for_each_gpu_but_none_without_an_image(device, gpus, max_processes, processes,
                                                                                monkeypatch):
    monkeypatch.setattr(local, "count_gpus", lambda: gpus)
    assert choose_process_count(0, device, max_processes) == processes


@pytest.mark.parametrize("batch_size, gpus, processes", [("4", 8, 4), ("auto", 8, 8), ("0", 8, 8), ("auto", 0, 1)])
def test_a_batch_whose_size_is_auto_limits_no_process(batch_size, gpus, processes, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(f"data: {{root: /x}}\nbatch: {{size: {batch_size}}}\n")
    monkeypatch.setattr(local, "count_gpus", lambda: gpus)
    job = local.with_process_count(Job("train", (str(tmp_path / "mine.yaml"),), Resources()))
    assert job.resources.processes == processes


def test_the_command_of_a_job():
    command = Job("train", ("a.yaml", "seed=1")).command()
    assert command[1:] == ["-m", "detector", "train", "a.yaml", "seed=1"]
    assert subprocess.run([command[0], "-c", "print(1)"], capture_output=True, text=True).stdout == "1\n"


@pytest.mark.parametrize("exit_status, state, age_s, expected", [
    (0, "finished", 0, OK), (75, "stopped", 0, STOPPED), (75, "failed", 0, FAILED), (75, "finished", 0, OK),
    (75, "failed", 3600, STOPPED), (2, "training", 0, BAD_INPUT), (137, "training", 0, 137)])  # 3600: of an earlier start
def test_after_a_signal_to_torchrun_status_json_tells_how_a_training_ended(exit_status, state, age_s, expected, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("data: {root: /x}\n")

    def torchrun(command: list[str], environment: dict[str, str]) -> int:
        assert "--nproc-per-node=2" in command and environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "600"
        write_json(tmp_path / "mine" / "status.json", {"state": state, "at": time.time() - age_s})
        return exit_status
    monkeypatch.setattr(local, "run_command", torchrun)
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", raising=False)
    arguments = (str(tmp_path / "mine.yaml"), f"run.folder={tmp_path}")
    assert run_torchrun(Job("train", arguments, Resources(2))) == expected


def test_a_job_on_this_machine_has_no_queue_no_state_and_cannot_be_cancelled():
    for backend in (local.LOCAL, local.TORCHRUN):
        assert backend.queue() is None and backend.state("7").over and backend.notes(Resources()) == []
        with pytest.raises(BadInput, match="press Ctrl-C"):
            backend.cancel("7")
