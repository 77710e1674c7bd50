"""cancel: jobs of runs and arrays, processes of this machine, and what happens to each run."""

import os
import signal
import socket
import time
from contextlib import closing

import pytest
from fake_runs import dead_process, make_run, own

from detector.run.lock import RunLock
from launcher import cancel, cli
from launcher.run_info import add_job_record


def test_several_runs_are_cancelled_with_what_happens_to_each(slurm, tmp_path, capsys):
    make_run(tmp_path, "running", "7", state="training")
    make_run(tmp_path, "waiting", "8", None, started=False)
    make_run(tmp_path, "requeued", "9", state="stopped", step=400)
    make_run(tmp_path, "over", "10", state="finished")
    for job, state in (("7", "RUNNING"), ("8", "PENDING"), ("9", "PENDING"), ("10", "COMPLETED")):
        slurm.set(job, state)
    assert cli.main(["cancel", "running", "waiting", "over", "requeued", "--folder", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert slurm.commands == [("scancel", "7", "8", "9")]
    assert captured.out.splitlines() == [
        "cancelled job 7: running saves a checkpoint and is not requeued", "cancelled job 8: waiting had not started",
        "cancelled job 9: requeued waited to be continued; step 400 is saved"]
    assert captured.err == "error: over is not in the queue: its job 10 is over (finished)\n"


def test_an_array_is_cancelled_as_a_whole_and_a_row_alone(slurm, tmp_path, capsys):
    for row in range(3):
        add_job_record(make_run(tmp_path, f"row{row}", state="training"), job=f"12_{row}", verb="train", log="x", backend="sbatch")
        slurm.set(f"12_{row}", "PENDING")
    assert cli.main(["cancel", "12_1", "--folder", str(tmp_path)]) == 0 and slurm.commands == [("scancel", "12_1")]
    slurm.set("12_1", "CANCELLED")
    assert cli.main(["cancel", "12", "--folder", str(tmp_path)]) == 2 and slurm.commands[1:] == [("scancel", "12")]
    assert "row1 is not in the queue" in capsys.readouterr().err


def test_two_jobs_of_one_run_are_cancelled_each(slurm, tmp_path, capsys):
    run = make_run(tmp_path, "a", "118", state="training")
    add_job_record(run, job="119", verb="train", log="x", backend="sbatch")
    slurm.set("118", "RUNNING")
    slurm.set("119", "PENDING")
    assert cli.main(["cancel", "118", "119", "--folder", str(tmp_path)]) == 0 and slurm.commands == [("scancel", "118", "119")]
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["cancelled job 118", "cancelled job 119"]


def test_a_silent_slurm_is_said_with_what_to_type(slurm, tmp_path, capsys):
    make_run(tmp_path, "a", "7", state="training")
    slurm.silent = True
    assert cli.main(["cancel", "a", "--folder", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "a is not cancelled: the states of jobs are unknown: Slurm has not answered" in error and "`scancel 7`" in error


@pytest.mark.parametrize("clock_s", [0, -3600, 3600])
def test_a_process_of_this_machine_gets_sigterm(clock_s, tmp_path, capsys, monkeypatch):
    """Whatever the clock of the file server says."""
    sent = []
    run = make_run(tmp_path, "a", state="training")
    monkeypatch.setattr(cancel.os, "kill", lambda pid, number: sent.append((pid, number)))
    with closing(RunLock(run)) as process:
        process.take()
        os.utime(run / "owner.lock", (time.time() + clock_s,) * 2)
        assert cli.main(["cancel", str(run)]) == 0
    assert sent == [(os.getpid(), signal.SIGTERM)]
    assert capsys.readouterr().out == f"sent SIGTERM to process {os.getpid()}: {run} saves a checkpoint and stops\n"


def test_a_process_of_another_container_has_another_number_here(tmp_path, capsys):
    run = make_run(tmp_path, "a", state="training")
    with closing(RunLock(run)) as process:
        process.take()
        (run / "owner.lock").write_text(f"process {os.getppid()} on {socket.gethostname()}")
        assert cli.main(["cancel", str(run)]) == 2
    assert "is in another container of this machine" in capsys.readouterr().err


@pytest.mark.parametrize("host, state, message", [
    ("", "training", "a is not running: died at step 0"), ("", "finished", "a is not running: finished"),
    ("gpu07", "training", "on gpu07 trains it. Press Ctrl-C there, or `ssh gpu07 kill ")])
def test_a_run_that_no_process_here_trains_is_not_cancelled(host, state, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("detector.run.lock.WATCH_S", 0.1)
    own(make_run(tmp_path, "a", state=state), dead_process(), host)
    assert cli.main(["cancel", "a", "--folder", str(tmp_path)]) == 2 and message in capsys.readouterr().err
