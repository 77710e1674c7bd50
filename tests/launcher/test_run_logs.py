"""logs: of the current and of earlier jobs, of several runs, followed until they are over."""

import os
import subprocess
import sys
import time

import pytest
from fake_runs import add_job, dead_process, make_run, own

from launcher import cli, run_logs


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(run_logs, "POLL_S", 0.01)
    monkeypatch.setattr(run_logs, "ASK_S", 0.01)


def test_logs_of_the_current_of_another_job_and_their_last_lines(slurm, tmp_path, capsys):
    run = make_run(tmp_path, "a b/größe", "7", "one\ntwo\nthree\n", state="finished")
    add_job(run, "8", "four")
    for job in ("7", "8"):
        slurm.set(job, "COMPLETED")
    for arguments, text in (([], "four"), (["--job", "7"], "one\ntwo\nthree\n"), (["--job", "7", "-n", "2"], "two\nthree\n"),
                            (["--job", "7", "-n", "9"], "one\ntwo\nthree\n"), (["-n", "1"], "four"), (["--job", "7", "-n", "0"], "")):
        assert cli.main(["logs", "a b/größe", "--folder", str(tmp_path), *arguments]) == 0
        assert capsys.readouterr().out == text
    assert cli.main(["logs", "a b/größe", "--folder", str(tmp_path), "--job", "9"]) == 2
    assert "has no job 9. Its jobs: 7, 8" in capsys.readouterr().err


def test_the_logs_of_several_runs_have_headings(slurm, tmp_path, capsys):
    for name, job in (("a", "7"), ("b", "8")):
        make_run(tmp_path, name, job, f"log of {name}\n", state="finished")
        slurm.set(job, "COMPLETED")
    assert cli.main(["logs", "a", "b", "--folder", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "log of a\nlog of b\n"
    assert captured.err == f"{tmp_path}/a/slurm/7.log:\n{tmp_path}/b/slurm/8.log:\n"


def test_a_log_is_followed_through_a_silent_slurm_until_the_job_is_over(slurm, tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path, "a", "7", "one\n", state="training")
    slurm.set("7", "RUNNING")
    rounds = iter(range(10_000))

    def go_on(_seconds) -> None:
        match next(rounds):
            case 1:
                slurm.silent = True
            case 20:
                with open(run / "slurm" / "7.log", "ab") as file:
                    file.write("two 数".encode()[:-1])
            case 40:
                with open(run / "slurm" / "7.log", "ab") as file:
                    file.write("数".encode()[-1:] + b"\n")
                slurm.silent = False
                slurm.set("7", "FAILED", Reason="NonZeroExitCode", ExitCode="1:0")
        real_sleep(0.001)
    real_sleep = time.sleep
    monkeypatch.setattr(run_logs.time, "sleep", go_on)
    assert cli.main(["logs", str(run), "--follow"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "one\ntwo 数\n"
    assert captured.err.count("the states of jobs are unknown") == 1 and "a: failed\n" in captured.err


def test_a_follower_waits_for_a_job_in_the_queue_and_ends_with_a_dead_local_run(slurm, tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path, "a", "7", None, started=False)
    slurm.set("7", "PENDING", Reason="Priority")
    real_sleep = time.sleep

    rounds = iter(range(10_000))

    def start(_seconds) -> None:
        real_sleep(0.001)
        if next(rounds) < 100:
            return
        (run / "slurm" / "7.log").write_text("one\n")
        slurm.set("7", "CANCELLED")
    monkeypatch.setattr(run_logs.time, "sleep", start)
    assert cli.main(["logs", str(run), "--follow"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "one\n" and "waiting for the log: " in captured.err and "pending (Priority)" in captured.err

    local = make_run(tmp_path, "b", state="training", step=4)
    (local / "log.txt").write_text("here\n")
    own(local, dead_process())
    assert cli.main(["logs", str(local), "--follow"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "here\n" and "died at step 4" in captured.err


@pytest.mark.parametrize("state, message", [("PENDING", "is pending (Priority)"), ("FAILED", "the nodes do not see")])
def test_a_log_that_is_not_there_says_why(state, message, slurm, tmp_path, capsys):
    make_run(tmp_path, "a", "7", None, started=False)
    slurm.set("7", state, Reason="Priority", ExitCode="0:53")
    assert cli.main(["logs", "a", "--folder", str(tmp_path)]) == 2 and message in capsys.readouterr().err


def test_the_log_of_a_moved_run_is_found_in_its_folder(slurm, tmp_path, capsys):
    make_run(tmp_path, "a", "7", "one\n", state="finished").rename(tmp_path / "moved")
    assert cli.main(["logs", "moved", "--folder", str(tmp_path)]) == 0 and capsys.readouterr().out == "one\n"


@pytest.mark.parametrize("arguments", [["logs", "a"], ["logs", "a", "--follow"], ["jobs"]])
def test_a_closed_pipe_ends_without_a_traceback(arguments, tmp_path):
    (make_run(tmp_path, "a", state="finished") / "log.txt").write_text("line\n")
    command = [sys.executable, "-m", "launcher.cli", *arguments, "--folder", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."})
    process.stdout.close()
    assert "Traceback" not in process.stderr.read() and process.wait() == 141
