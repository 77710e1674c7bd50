"""Inside a job: which start is refused, what ends with a requeue, and what a rank's end is called."""

import json
import os
import re
import signal
import time

import pytest

from detector.errors import BAD_INPUT, FAILED, OK, STOPPED, BadInput
from detector.run import lock
from launcher import run_info, slurm_job
from launcher.rank_env import SlurmJob, current_slurm_job, task_environment, tasks_per_node
from launcher.slurm_commands import fields, host_names


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A run in a Slurm that only notes what it is asked: (its arguments, its folder, what was asked, how to set things)."""
    (tmp_path / "mine.yaml").write_text("run: {name: mine, max_requeues: 3}\ndata: {root: /x}\n")
    asked, state, silent = [], {"JobState": "RUNNING", "StdOut": "/log"}, []

    def start(restarts: int) -> None:
        monkeypatch.setattr(slurm_job, "current_slurm_job", lambda: SlurmJob(7, "7", restarts, "n[1-2]"))
    start(0)
    monkeypatch.setattr(slurm_job, "slurm", lambda *command: asked.append(command) or "")
    monkeypatch.setattr(slurm_job, "job_state", lambda name: state)
    monkeypatch.setattr(slurm_job, "host_names", lambda nodes: [f"n{number}" for number in re.findall(r"\d", nodes)])
    monkeypatch.setattr(slurm_job, "silent_nodes", lambda job: silent)
    monkeypatch.setattr(slurm_job, "REQUEUE_S", 0)
    return ("train", str(tmp_path / "mine.yaml"), f"run.folder={tmp_path}"), tmp_path / "mine", asked, (start, state, silent)


def checkpoint(run, step: int) -> None:
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "checkpoints" / f"step-{step:08d}.pt").touch()


def status(run, **said) -> None:
    run_info.write_json(run / "status.json", {"at": time.time(), **said})


def begin(words) -> int:
    return slurm_job.main(["begin", *words])


def end(words, code: int) -> int:
    return slurm_job.main(["end", str(code), *words])


def test_a_start_says_which_it_is_and_clears_what_the_last_one_left(job, capsys):
    words, run, _, (start, *_) = job
    checkpoint(run, 40)
    run_info.write_json(run / run_info.FAILED / "rank-00000.json", {"rank": 0})
    (run / "slurm" / "7_0_result.pkl.save_tmp").touch()
    status(run, state="stopped", step=40)
    run_info.note_job(run, job="7", verb="train", restart=1, step=30, nodes="n[3-4]")
    (run / lock.NAME).write_text("process 12 on n4.site")
    start(2)
    assert begin(words) == OK
    assert "Slurm job 7 on n[1-2], restart 2 of 3: train mine, 40 steps are saved" in capsys.readouterr().out
    assert run_info.status_of(run)["state"] == "starting" and run_info.status_of(run)["step"] == 40
    assert not (run / run_info.FAILED).exists() and not list((run / "slurm").glob("*.save_tmp"))
    assert not (run / lock.NAME).exists(), "the lock of a node that is gone may last"
    assert run_info.jobs_of(run)[-1] | {"at": 0} == {"job": "7", "verb": "train", "restart": 2, "step": 40, "nodes": "n[1-2]",
                                                   "log": "/log", "at": 0}
    (run / lock.NAME).write_text("process 12 on login1")
    checkpoint(run, 50)
    start(3)
    assert begin(words) == OK and (run / lock.NAME).exists(), "somebody else's"


def test_a_start_that_slurm_killed_whole_is_queued_again_and_one_whose_rank_died_is_not(job, capsys):
    words, run, asked, (start, *_) = job
    checkpoint(run, 8)
    start(1)
    for state in ("starting", "training"):
        asked.clear()
        status(run, state=state, step=8)
        assert end(words, 128 + signal.SIGKILL) == STOPPED and len(asked) == 1
    assert "step 8 is on disk, asked for a requeue" in capsys.readouterr().out
    start(2)
    assert begin(words) == OK
    run_info.write_json(run / run_info.FAILED / "rank-00001.json", {"rank": 1, "host": "n2", "how": "signal SIGKILL",
                                                                 "signal": True, "at": time.time()})
    assert end(words, 128 + signal.SIGKILL) == 128 + signal.SIGKILL and len(asked) == 1
    assert "rank 1 on n2 was the first to end" in capsys.readouterr().err


def test_one_that_was_asked_to_stop_before_it_brought_anything_may_try_again(job, capsys):
    """Slurm's last signals to a preempted job may hit the one that it has already started again."""
    words, run, _, (start, *_) = job
    checkpoint(run, 8)
    for restart in range(4):
        start(restart)
        assert begin(words) == OK, restart
        (run / run_info.STOPPED).touch()
    start(4)
    assert begin([*words, "run.max_requeues=9"]) == FAILED  # but not for ever
    assert "no progress since restart 1" in capsys.readouterr().out


@pytest.mark.parametrize("nodes, tries", [
    ({"State": "IDLE", "SlurmdStartTime": "2020-01-31T12:00:00"}, 1), ({"State": "DOWN*"}, 3),
    ({"State": "IDLE", "SlurmdStartTime": "2035-01-31T12:00:00"}, 3), ({"State": "ALLOCATED", "SlurmdStartTime": "None"}, 1)])
def test_one_that_lost_a_node_before_it_brought_anything_may_try_again(nodes, tries, job, capsys, monkeypatch):
    words, run, _, (start, *_) = job
    checkpoint(run, 8)
    monkeypatch.setattr(slurm_job, "slurm", lambda *command: " ".join(f"{key}={value}" for key, value in nodes.items()))
    for restart in range(tries + 1):
        start(restart)
        assert begin(words) == OK, restart
    start(tries + 1)
    assert begin([*words, "run.max_requeues=9"]) == FAILED  # but not for ever
    assert "no progress since restart 1" in capsys.readouterr().out


@pytest.mark.parametrize("saved, refused", [
    ([0, 0, 0], 2),      # the first restart brought nothing
    ([0, 0, 5], None), ([0, 5, 10, 15], None), ([5, 5, 5], 2), ([0, 5, 5], 2),
    ([0, 1, 2, 3, 4], 4)])  # the fourth restart of three
def test_restarts_are_limited_and_must_bring_the_run_forward(saved, refused, job, capsys):
    words, run, _, (start, *_) = job
    for restart, step in enumerate(saved):
        checkpoint(run, step)
        start(restart)
        assert begin(words) == (FAILED if restart == refused else OK), restart
    out = capsys.readouterr().out
    assert ("not started again" in out) == (refused is not None)
    if refused:
        assert ("all 3 restarts are used" if refused == 4 else f"no progress since restart {refused - 1}") in out


def test_a_new_job_of_the_same_run_counts_anew(job, monkeypatch):
    words, run, *_ = job
    for number in ("7", "8"):
        for restart in (0, 1):
            monkeypatch.setattr(slurm_job, "current_slurm_job", lambda: SlurmJob(int(number), number, restart, "n1"))
            assert begin(words) == OK


@pytest.mark.parametrize("code, said, expected, told", [
    (0, {"state": "finished", "step": 9}, OK, None),
    (2, {"state": "starting"}, BAD_INPUT, None),
    (0, {"state": "stopped", "step": 1234, "saved_in_s": 1.84}, STOPPED, "saved step 1234 in 1.8 s, asked for a requeue (restart 1 of 3)"),
    (1, {"state": "stopped", "step": 3, "saved_in_s": 0.1}, STOPPED, "saved step 3 in 0.1 s"),  # torchrun ends with 1
    (143, {"state": "starting"}, STOPPED, "stopped before there was something to save; step 40 is on disk, asked for"),
    (143, {"state": "training", "step": 50}, 143, None),
    (167, {"state": "starting"}, STOPPED, "srun could not start all tasks, step 40 is on disk, asked for a requeue (restart 1 of 3)"),
    (167, {"state": "training", "step": 50}, 167, None), (134, {"state": "starting"}, 134, None)])
def test_what_stopped_early_is_queued_again_and_what_failed_is_not(code, said, expected, told, job, capsys):
    words, run, asked, _ = job
    checkpoint(run, 40)
    status(run, **said)
    assert end(words, code) == expected
    assert asked == ([("scontrol", "requeue", "7")] if told else [])
    assert (told or "") in capsys.readouterr().out


def test_an_evaluation_that_stopped_early_is_queued_again(job, capsys):
    words, run, asked, _ = job
    run_info.write_whole(run / "config.yaml", "run: {max_requeues: 3}\ndata: {root: /x}\n")
    run_info.write_whole(run / run_info.STOPPED, "")
    assert end(("evaluate", str(run)), 0) == STOPPED and asked
    assert slurm_job.main(["begin", "evaluate", str(run)]) == OK and not (run / run_info.STOPPED).exists()
    assert end(("evaluate", str(run)), 0) == OK


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PENDING", "UNKNOWN"])
def test_a_cancelled_job_and_one_that_is_queued_already_are_left_alone(state, job, capsys):
    words, run, asked, (_, job_state, _) = job
    job_state["JobState"] = state
    status(run, state="stopped", step=3, saved_in_s=0.5)
    assert end(words, 0) == STOPPED and asked == []
    assert f"the job is {state}, so nothing is asked for" in capsys.readouterr().out


def test_the_last_restart_is_told(job, capsys):
    words, run, asked, (start, *_) = job
    start(3)
    status(run, state="stopped", step=3, saved_in_s=0.5)
    assert end(words, 0) == STOPPED and asked == []
    assert "not requeued: all 3 restarts are used (run.max_requeues)" in capsys.readouterr().out


def test_a_failure_names_the_rank_that_was_first_and_where_all_were(job, capsys):
    words, run, asked, _ = job
    for rank, how, killed, at in ((0, "exit status 1", False, 1.0), (5, "signal SIGKILL", True, 2.0), (6, "exit status 1", False, 3.0)):
        run_info.write_json(run / run_info.FAILED / f"rank-{rank:05d}.json",
                          {"rank": rank, "host": "n2", "how": how, "signal": killed, "at": at})
    run_info.write_json(run / "heartbeats" / "rank-00005.json",
                      {"rank": 5, "host": "n2", "phase": "step", "step": 12, "at": time.time() - 3})
    assert end(words, 137) == 137 and asked == []
    err = capsys.readouterr().err
    assert "rank 5 on n2 was the first to end, with signal SIGKILL" in err and "rank 5 on n2: step at step 12" in err


def test_a_lost_node_is_named_and_the_run_queued_again(job, capsys):
    words, run, asked, (_, _, silent) = job
    silent.append("n2")
    status(run, state="failed", step=50)
    checkpoint(run, 40)
    assert end(words, 1) == STOPPED and asked == [("scontrol", "requeue", "7")]
    assert "n2 does not answer, step 40 is on disk, asked for a requeue" in capsys.readouterr().out


@pytest.mark.parametrize("silent_ones, code", [(["n2"], 1), ([], 167)])
def test_one_that_a_node_kept_from_starting_may_try_again(silent_ones, code, job, capsys):
    """The node may answer again by the time of the next start, which then sees nothing of it."""
    words, run, _, (start, _, silent) = job
    checkpoint(run, 8)
    silent.extend(silent_ones)
    for restart in range(4):
        start(restart)
        assert begin(words) == OK, restart
        assert end(words, code) == STOPPED
    start(4)
    assert begin([*words, "run.max_requeues=9"]) == FAILED  # but not for ever
    assert "no progress since restart 1" in capsys.readouterr().out


@pytest.mark.parametrize("code, expected", [
    ("0", OK), ("75", OK), ("2", BAD_INPUT), ("1", 1), (f"os.kill(os.getpid(), {signal.SIGKILL:d})", 137)])
def test_a_rank_that_stopped_early_has_ended_well_for_srun(code, expected, job, monkeypatch, capfd):
    words, run, *_ = job
    line = f"import os, sys; sys.exit({code})"
    monkeypatch.setattr(slurm_job.Job, "command", lambda self: [slurm_job.sys.executable, "-c", line])
    monkeypatch.setattr(slurm_job, "task_environment", lambda: {**os.environ, "RANK": "3"})
    assert slurm_job.main(["task", *words]) == expected
    said = capfd.readouterr().err
    assert (run / run_info.STOPPED).exists() == (code == "75")
    assert ("rank 3 on" in said) == (expected in (1, 137))
    if expected == 137:
        assert json.loads((run / run_info.FAILED / "rank-00003.json").read_text())["how"] == "signal SIGKILL"


def test_outside_of_slurm_it_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert slurm_job.main(["begin", "train", "x"]) == BAD_INPUT and "inside of a Slurm job" in capsys.readouterr().err
    assert slurm_job.main([]) == BAD_INPUT and slurm_job.main(["end", "x", "train", "y"]) == BAD_INPUT


TASK = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "SLURM_NODEID": "1", "SLURM_JOB_ID": "20017",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_NODELIST": "n[1-2]", "MASTER_ADDR": "n1"}


def test_a_task_of_srun_gets_torchruns_variables():
    said = task_environment(TASK)
    assert {name: said[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")} == {
        "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "n1", "MASTER_PORT": "10257"}
    assert task_environment({"RANK": "0", "SLURM_PROCID": "7"})["RANK"] == "0"  # torchrun has said it already


@pytest.mark.parametrize("lacking", ["SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_JOB_ID"])
def test_a_task_without_its_place_is_refused(lacking):
    with pytest.raises(BadInput, match=lacking):
        task_environment({key: value for key, value in TASK.items() if key != lacking})


def test_two_jobs_on_one_node_have_two_ports():
    ports = {task_environment({**TASK, "SLURM_JOB_ID": str(number)})["MASTER_PORT"] for number in range(1, 2001)}
    assert len(ports) == 2000 and all(1024 < int(port) < 32768 for port in ports)


def test_an_array_task_is_called_by_its_own_name():
    said = current_slurm_job({**TASK, "SLURM_ARRAY_JOB_ID": "20000", "SLURM_ARRAY_TASK_ID": "4", "SLURM_RESTART_COUNT": "2"})
    assert said == SlurmJob(20017, "20000_4", 2, "n[1-2]") and current_slurm_job({}) is None


@pytest.mark.parametrize("text, counts", [("2", [2]), ("2(x3),1", [2, 2, 2, 1]), ("1,8(x2)", [1, 8, 8])])
def test_tasks_per_node(text, counts):
    assert tasks_per_node(text) == counts


def test_no_hosts_is_an_error_and_no_guess(monkeypatch):
    monkeypatch.setattr("launcher.slurm_commands.slurm", lambda *command: "\n")
    for nodes in ("", "n[1-2]"):
        with pytest.raises(BadInput, match="MASTER_ADDR"):
            host_names(nodes)


def test_of_a_key_said_twice_the_first_counts():
    assert fields("JobId=7 JobState=RUNNING Command=/x/JobState=FAILED JobState=FAILED")["JobState"] == "RUNNING"
