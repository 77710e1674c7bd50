"""Inside a Slurm job: starts that are refused, ends that lead to a requeue, and the exit status of a rank.

The decisions themselves are tested in test_restart_policy.py.
"""

import fcntl
import json
import os
import re
import signal
import socket
import time
from types import SimpleNamespace

import pytest

from detector.errors import BAD_INPUT, FAILED, OK, STOPPED, BadInput
from detector.run.files import (
    BAD_INPUT_FILE,
    FAILED_RANKS_FOLDER,
    LOCK_FILE,
    STOPPED_EARLY_FILE,
    write_json,
    write_text,
)
from detector.run.status import read_status
from launcher import job_begin, job_end, rank_env, run_info, slurm_job
from launcher.backends import JobState
from launcher.rank_env import SlurmJob
from launcher.slurm_commands import SlurmSilent


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A run inside a fake Slurm job, which records the commands that it is given."""
    (tmp_path / "mine.yaml").write_text("run: {name: mine, max_requeues: 3}\ndata: {root: /x}\n")
    fake = SimpleNamespace(
        args=("train", str(tmp_path / "mine.yaml"), f"run.folder={tmp_path}"), run=tmp_path / "mine", commands=[],
        record={"JobState": "RUNNING"}, other_state=JobState("COMPLETED", over=True), silent_nodes=[],
        real_silent_nodes=job_end.silent_nodes)

    def set_restarts(restarts: int) -> None:
        for module in (job_begin, job_end):
            monkeypatch.setattr(module, "require_slurm_job", lambda: SlurmJob(7, "7", restarts, "n[1-2]"))
    fake.set_restarts = set_restarts
    set_restarts(0)
    monkeypatch.setattr(job_end, "slurm", lambda *command: fake.commands.append(command) or "")
    monkeypatch.setattr(rank_env, "job_record", lambda name: fake.record)
    monkeypatch.setattr(job_begin, "job_state", lambda name: fake.other_state)
    monkeypatch.setattr(job_begin, "expand_hostlist", lambda nodes: [f"n{number}" for number in re.findall(r"\d", nodes)])
    monkeypatch.setattr(job_begin, "slurm", lambda *command: "")
    monkeypatch.setattr(job_end, "silent_nodes", lambda job: fake.silent_nodes)
    monkeypatch.setattr(job_end, "REQUEUE_TIMEOUT_S", 0)
    monkeypatch.setattr(job_end, "SILENCE_PAUSE_S", 0)
    return fake


def checkpoint(run, step: int) -> None:
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "checkpoints" / f"step-{step:08d}.pt").touch()


def write_status(run, **fields) -> None:
    write_json(run / "status.json", {"at": time.time(), **fields})


def begin(args) -> int:
    return slurm_job.main(["begin", *args])


def end(args, exit_status: int) -> int:
    return slurm_job.main(["end", str(exit_status), *args])


def test_a_start_prints_which_restart_it_is_and_removes_the_files_of_the_last_one(job, capsys):
    run = job.run
    checkpoint(run, 40)
    write_json(run / FAILED_RANKS_FOLDER / "rank-00000.json", {"rank": 0})
    (run / "slurm" / "7_0_result.pkl.save_tmp").touch()
    write_status(run, state="stopped", step=40)
    run_info.add_job_record(run, job="7", verb="train", restart=1, step=30, nodes="n[3-4]", log="/log")
    (run / LOCK_FILE).write_text("process 12 on n4.site")
    job.set_restarts(2)
    assert begin(job.args) == OK
    assert "Slurm job 7 on n[1-2], restart 2 of 3: train mine, 40 steps are saved" in capsys.readouterr().out
    assert read_status(run)["state"] == "starting" and read_status(run)["step"] == 40
    assert not (run / FAILED_RANKS_FOLDER).exists() and not list((run / "slurm").glob("*.save_tmp"))
    assert not (run / LOCK_FILE).exists(), "the lock of a lost node can remain"
    assert run_info.job_records(run)[-1] | {"at": 0} == {"job": "7", "verb": "train", "restart": 2, "step": 40, "nodes": "n[1-2]",
                                                   "log": "/log", "at": 0}
    (run / LOCK_FILE).write_text("process 12 on login1")
    checkpoint(run, 50)
    job.set_restarts(3)
    assert begin(job.args) == OK and (run / LOCK_FILE).exists(), "the lock of a host that is no node of the job"


def test_a_start_that_slurm_killed_is_requeued_and_a_start_whose_rank_died_is_not(job, capsys):
    run = job.run
    checkpoint(run, 8)
    job.set_restarts(1)
    for state in ("starting", "training"):
        job.commands.clear()
        write_status(run, state=state, step=8)
        assert end(job.args, 128 + signal.SIGKILL) == STOPPED and len(job.commands) == 1
    assert "step 8 is on disk; requeue requested" in capsys.readouterr().out
    job.set_restarts(2)
    assert begin(job.args) == OK
    write_json(run / FAILED_RANKS_FOLDER / "rank-00001.json", {"rank": 1, "host": "n2", "how": "signal SIGKILL",
                                                                 "signal": True, "at": time.time()})
    assert end(job.args, 128 + signal.SIGKILL) == 128 + signal.SIGKILL and len(job.commands) == 1
    assert "rank 1 on n2 was the first to end" in capsys.readouterr().err


def test_a_start_that_was_stopped_before_it_made_progress_may_be_repeated(job, capsys):
    """Slurm may still send signals to a preempted job when it has started the job again."""
    run = job.run
    checkpoint(run, 8)
    for restart in range(4):
        job.set_restarts(restart)
        assert begin(job.args) == OK, restart
        (run / STOPPED_EARLY_FILE).touch()
    job.set_restarts(4)
    assert begin([*job.args, "run.max_requeues=9"]) == FAILED  # but not for ever
    assert "no progress since restart 1" in capsys.readouterr().out


@pytest.mark.parametrize("nodes, tries", [
    ({"State": "IDLE", "SlurmdStartTime": "2020-01-31T12:00:00"}, 1), ({"State": "DOWN*"}, 3),
    ({"State": "IDLE", "SlurmdStartTime": "2035-01-31T12:00:00"}, 3), ({"State": "ALLOCATED", "SlurmdStartTime": "None"}, 1)])
def test_a_start_that_lost_a_node_before_it_made_progress_may_be_repeated(nodes, tries, job, capsys, monkeypatch):
    run = job.run
    checkpoint(run, 8)
    monkeypatch.setattr(job_begin, "slurm", lambda *command: " ".join(f"{key}={value}" for key, value in nodes.items()))
    for restart in range(tries + 1):
        job.set_restarts(restart)
        assert begin(job.args) == OK, restart
    job.set_restarts(tries + 1)
    assert begin([*job.args, "run.max_requeues=9"]) == FAILED  # but not for ever
    assert "no progress since restart 1" in capsys.readouterr().out


@pytest.mark.parametrize("saved, refused", [
    ([0, 0, 0], 2),      # no progress in the first restart
    ([0, 0, 5], None), ([0, 5, 10, 15], None), ([5, 5, 5], 2), ([0, 5, 5], 2),
    ([0, 1, 2, 3, 4], 4)])  # the fourth restart of three
def test_restarts_are_limited_and_must_make_progress(saved, refused, job, capsys):
    run = job.run
    for restart, step in enumerate(saved):
        checkpoint(run, step)
        job.set_restarts(restart)
        assert begin(job.args) == (FAILED if restart == refused else OK), restart
    out = capsys.readouterr().out
    assert ("not started again" in out) == (refused is not None)
    if refused:
        assert ("all 3 restarts are used" if refused == 4 else f"no progress since restart {refused - 1}") in out


def test_a_new_job_of_the_same_run_counts_anew(job, monkeypatch):
    for number in (7, 8):
        job.other_state = JobState("COMPLETED", over=True)
        for restart in (0, 1):
            monkeypatch.setattr(job_begin, "require_slurm_job", lambda: SlurmJob(number, str(number), restart, "n1"))
            assert begin(job.args) == OK


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "SUSPENDED"])
def test_a_second_job_of_a_run_is_refused_and_changes_nothing(state, job, monkeypatch, capsys):
    """jobs, logs and cancel go on speaking of the first."""
    assert begin(job.args) == OK
    (job.run / STOPPED_EARLY_FILE).touch()
    before = contents(job.run)
    job.other_state = JobState(state, over=False)
    monkeypatch.setattr(job_begin, "require_slurm_job", lambda: SlurmJob(8, "8", 0, "n2"))
    assert begin(job.args) == BAD_INPUT and contents(job.run) == before and run_info.job_records(job.run)[-1]["job"] == "7"
    assert f"belongs to job 7, which is {state}: this job 8 ends" in capsys.readouterr().err


def test_a_job_is_refused_while_a_process_trains_the_run(job, capsys):
    (job.run / "slurm").mkdir(parents=True)
    with open(job.run / LOCK_FILE, "w") as file:
        file.write(f"process 1 on {socket.gethostname()}")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert begin(job.args) == BAD_INPUT
    assert "is being trained by process 1" in capsys.readouterr().err and not run_info.job_records(job.run)


def contents(run) -> dict:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("exit_status, fields, expected, message", [
    (0, {"state": "finished", "step": 9}, OK, None),
    (2, {"state": "starting"}, BAD_INPUT, None),
    (0, {"state": "stopped", "step": 1234, "saved_in_s": 1.84}, STOPPED, "saved step 1234 in 1.8 s; requeue requested (restart 1 of 3)"),
    (1, {"state": "stopped", "step": 3, "saved_in_s": 0.1}, STOPPED, "saved step 3 in 0.1 s"),  # torchrun ends with 1
    (143, {"state": "starting"}, STOPPED,
     "stopped before there was anything to save; step 40 is on disk; requeue requested (restart 1 of 3)"),
    (143, {"state": "training", "step": 50}, 143, None),
    (167, {"state": "starting"}, STOPPED, "srun could not start all tasks, step 40 is on disk; requeue requested (restart 1 of 3)"),
    (167, {"state": "training", "step": 50}, 167, None), (134, {"state": "starting"}, 134, None)])
def test_an_early_stop_is_requeued_and_a_failure_is_not(exit_status, fields, expected, message, job, capsys):
    run = job.run
    checkpoint(run, 40)
    write_status(run, **fields)
    assert end(job.args, exit_status) == expected
    assert job.commands == ([("scontrol", "requeue", "7")] if message else [])
    assert (message or "") in capsys.readouterr().out


def test_an_evaluation_that_stopped_early_is_requeued(job, capsys):
    run = job.run
    write_text(run / "config.yaml", "run: {max_requeues: 3}\ndata: {root: /x}\n")
    write_text(run / STOPPED_EARLY_FILE, "")
    assert end(("evaluate", str(run)), 0) == STOPPED and job.commands
    assert slurm_job.main(["begin", "evaluate", str(run)]) == OK and not (run / STOPPED_EARLY_FILE).exists()
    assert end(("evaluate", str(run)), 0) == OK


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PENDING", "UNKNOWN"])
def test_no_requeue_for_a_job_that_is_cancelled_or_requeued_already(state, job, capsys):
    run = job.run
    job.record["JobState"] = state
    write_status(run, state="stopped", step=3, saved_in_s=0.5)
    assert end(job.args, 0) == STOPPED and job.commands == []
    assert f"Slurm is ending the job ({state}), so no requeue is requested" in capsys.readouterr().out


def test_a_job_that_was_submitted_with_no_requeue_is_not_requeued(job, capsys):
    job.record["Requeue"] = "0"
    write_status(job.run, state="stopped", step=3, saved_in_s=0.5)
    assert end(job.args, 0) == STOPPED and job.commands == []
    assert "saved step 3 in 0.5 s; not requeued: the job was submitted with --no-requeue" in capsys.readouterr().out


def test_a_requeue_is_requested_until_slurm_answers(job, monkeypatch, capsys):
    answers = iter([SlurmSilent("no answer"), SlurmSilent("no answer"), job.record])
    monkeypatch.setattr(rank_env, "job_record", lambda name: raise_or_return(next(answers)))
    write_status(job.run, state="stopped", step=3, saved_in_s=0.5)
    assert end(job.args, 0) == STOPPED and job.commands == [("scontrol", "requeue", "7")]
    output = capsys.readouterr()
    assert output.err.count("The requeue is requested for 30 more minutes. By hand: scontrol requeue 7") == 1
    assert output.out.count("requeue requested (restart 1 of 3)") == 1


def test_a_requeue_that_slurm_never_takes_says_what_to_type(job, monkeypatch, capsys):
    monkeypatch.setattr(rank_env, "job_record", lambda name: raise_or_return(SlurmSilent("no answer")))
    monkeypatch.setattr(job_end, "SILENCE_LIMIT_S", 0)
    write_status(job.run, state="stopped", step=3, saved_in_s=0.5)
    assert end(job.args, 0) == STOPPED and job.commands == []
    assert "The job is not requeued. By hand: scontrol requeue 7" in capsys.readouterr().err


def raise_or_return(answer):
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_the_variables_of_an_outer_array_and_of_an_outer_restart_do_not_count(job, monkeypatch):
    records = {"70_3": {"JobId": "73", "JobState": "RUNNING", "Restarts": "4"}, "7": {"JobId": "7", "JobState": "RUNNING", "Restarts": "0"}}
    monkeypatch.setattr(rank_env, "job_record", records.__getitem__)
    for module in (job_begin, job_end):
        monkeypatch.setattr(module, "require_slurm_job", lambda: SlurmJob(7, "70_3", 2, "n1"))
    assert begin(job.args) == OK and run_info.job_records(job.run)[-1]["job"] == "7"
    assert run_info.job_records(job.run)[-1]["restart"] == 0
    (job.run / STOPPED_EARLY_FILE).touch()
    assert end(job.args, 0) == STOPPED and job.commands == [("scontrol", "requeue", "7")]


@pytest.mark.parametrize("status", [0, 2, 143])
def test_bad_input_of_several_ranks_ends_the_job_with_2(status, job):
    (job.run / BAD_INPUT_FILE).parent.mkdir(parents=True)
    (job.run / BAD_INPUT_FILE).touch()
    assert end(job.args, status) == BAD_INPUT and job.commands == []
    assert begin(job.args) == OK and not (job.run / BAD_INPUT_FILE).exists()


def test_the_last_restart_is_reported(job, capsys):
    run = job.run
    job.set_restarts(3)
    write_status(run, state="stopped", step=3, saved_in_s=0.5)
    assert end(job.args, 0) == STOPPED and job.commands == []
    assert "not requeued: all 3 restarts are used (run.max_requeues)" in capsys.readouterr().out


def test_a_failure_names_the_rank_that_ended_first_and_the_last_heartbeats(job, capsys):
    run = job.run
    for rank, cause, killed, at in ((0, "exit status 1", False, 1.0), (5, "signal SIGKILL", True, 2.0), (6, "exit status 1", False, 3.0)):
        write_json(run / FAILED_RANKS_FOLDER / f"rank-{rank:05d}.json",
                          {"rank": rank, "host": "n2", "how": cause, "signal": killed, "at": at})
    write_json(run / "heartbeats" / "rank-00005.json",
                      {"rank": 5, "host": "n2", "phase": "step", "step": 12, "at": time.time() - 3})
    assert end(job.args, 137) == 137 and job.commands == []
    err = capsys.readouterr().err
    assert "rank 5 on n2 was the first to end, with signal SIGKILL" in err and "rank 5 on n2: step at step 12" in err


def test_a_lost_node_is_named_and_the_run_requeued(job, capsys):
    run = job.run
    job.silent_nodes.append("n2")
    write_status(run, state="failed", step=50)
    checkpoint(run, 40)
    assert end(job.args, 1) == STOPPED and job.commands == [("scontrol", "requeue", "7")]
    assert "n2 does not answer, step 40 is on disk; requeue requested" in capsys.readouterr().out


def test_a_site_that_keeps_its_nodes_private_changes_no_exit_status(job, monkeypatch):
    """PrivateData=nodes: scontrol shows a user no node."""
    def slurm(*command: str) -> str:
        if command[1:3] == ("show", "config"):
            return "SlurmdPort = 6818\n"
        raise BadInput("scontrol -o show node n1: slurm_load_node error: Access/permission denied")
    for module in (job_begin, job_end):
        monkeypatch.setattr(module, "slurm", slurm)
        monkeypatch.setattr(module, "expand_hostlist", lambda _nodes: ["n1"])
    monkeypatch.setattr(job_end, "silent_nodes", job.real_silent_nodes)
    for restart in range(3):
        job.set_restarts(restart)
        assert begin(job.args) == OK and end(job.args, 1) == 1


@pytest.mark.parametrize("silent_nodes, exit_status", [(["n2"], 1), ([], 167)])
def test_a_start_that_a_node_prevented_may_be_repeated(silent_nodes, exit_status, job, capsys):
    """The node may answer again before the next start, which then cannot know the reason."""
    run = job.run
    checkpoint(run, 8)
    job.silent_nodes.extend(silent_nodes)
    for restart in range(4):
        job.set_restarts(restart)
        assert begin(job.args) == OK, restart
        assert end(job.args, exit_status) == STOPPED
    job.set_restarts(4)
    assert begin([*job.args, "run.max_requeues=9"]) == FAILED  # but not for ever
    assert "no progress since restart 1" in capsys.readouterr().out


@pytest.mark.parametrize("code, expected", [
    ("0", OK), ("75", OK), ("2", OK), ("1", 1), (f"os.kill(os.getpid(), {signal.SIGKILL:d})", 137)])
def test_a_rank_that_stopped_early_or_found_bad_input_ends_with_0_for_srun(code, expected, job, monkeypatch, capfd):
    run = job.run
    line = f"import os, sys; sys.exit({code})"
    monkeypatch.setattr(slurm_job.Job, "command", lambda self: [slurm_job.sys.executable, "-c", line])
    monkeypatch.setattr(slurm_job, "task_environment", lambda: {**os.environ, "RANK": "3"})
    assert slurm_job.main(["task", *job.args]) == expected
    assert (run / BAD_INPUT_FILE).exists() == (code == "2")
    err = capfd.readouterr().err
    assert (run / STOPPED_EARLY_FILE).exists() == (code == "75")
    assert ("rank 3 on" in err) == (expected in (1, 137))
    if expected == 137:
        assert json.loads((run / FAILED_RANKS_FOLDER / "rank-00003.json").read_text())["how"] == "signal SIGKILL"


def test_a_rank_whose_peer_found_bad_input_does_not_wait_for_it(job, monkeypatch):
    monkeypatch.setattr(slurm_job, "CHECK_S", 0.1)
    line = f"open({str(job.run / 'begun')!r}, 'w').close(); import time; time.sleep(60)"
    monkeypatch.setattr(slurm_job.Job, "command", lambda self: [slurm_job.sys.executable, "-c", line])
    monkeypatch.setattr(slurm_job, "task_environment", lambda: {**os.environ, "RANK": "3"})
    write_text(job.run / BAD_INPUT_FILE, "")
    started_at = time.monotonic()
    assert slurm_job.main(["task", *job.args]) == OK and time.monotonic() - started_at < 30
    assert not (job.run / FAILED_RANKS_FOLDER).exists()


def test_a_container_gets_the_variables_that_its_command_needs(monkeypatch):
    calls = []
    monkeypatch.setattr(os, "execvp", lambda program, words: calls.append((program, words)))
    variables = {"FLEET_WORKING_FOLDER": "/work folder", "SLURM_PROCID": "3", "MASTER_ADDR": "n1", "OMP_NUM_THREADS": "2", "SCRATCH": "/s"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    slurm_job.main(["enter", "apptainer exec --containall --nv '$SCRATCH/my image.sif'", "python", "-m", "x", "a b"])
    (program, words), = calls
    assert program == "apptainer" and words[:6] == ["apptainer", "exec", "--containall", "--nv", "/s/my image.sif", "env"]
    assert words[-4:] == ["python", "-m", "x", "a b"]
    assert {"SLURM_PROCID=3", "MASTER_ADDR=n1", "OMP_NUM_THREADS=2", "FLEET_WORKING_FOLDER=/work folder"} <= set(words)
    assert not any(word.startswith(("PATH=", "HOME=")) for word in words)


def test_a_container_program_that_is_missing_is_named(capsys):
    assert slurm_job.main(["enter", "nosuchapptainer exec x.sif", "python"]) == BAD_INPUT
    assert "cannot run nosuchapptainer" in capsys.readouterr().err


def test_outside_of_slurm_the_error_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert slurm_job.main(["begin", "train", "x"]) == BAD_INPUT and "inside of a Slurm job" in capsys.readouterr().err
    assert slurm_job.main([]) == BAD_INPUT and slurm_job.main(["end", "x", "train", "y"]) == BAD_INPUT
