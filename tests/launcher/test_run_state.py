"""The state of a run, in every state of its job, of its status.json and of the process that holds its lock."""

from contextlib import closing

import pytest
from fake_runs import add_job, dead_process, make_run, own, write_beat

from detector.run import lock
from detector.run.lock import RunLock
from launcher.run_folders import Target
from launcher.run_info import add_job_record
from launcher.run_state import Phase, RunState
from launcher.run_summary import summarize


def state_of(run):
    notes = []
    summary, = summarize([Target(run, run.name)], notes.append)
    return summary.state, notes


@pytest.mark.parametrize("job_state, reason, run_state, text, phase", [
    ("PENDING", "Priority", "", "pending (Priority)", Phase.WAITING), ("PENDING", "None", "stopped", "pending", Phase.WAITING),
    ("RUNNING", "None", "training", "running, training", Phase.RUNNING), ("RUNNING", "None", "", "running", Phase.RUNNING),
    ("CONFIGURING", "None", "", "configuring", Phase.WAITING), ("SUSPENDED", "None", "training", "suspended", Phase.RUNNING),
    ("COMPLETING", "None", "stopped", "completing", Phase.RUNNING),
    ("REQUEUE_HOLD", "JobHeldAdmin", "stopped", "requeue_hold (JobHeldAdmin)", Phase.WAITING),
    ("COMPLETED", "None", "finished", "finished", Phase.FINISHED), ("FAILED", "NonZeroExitCode", "training", "failed", Phase.FAILED),
    ("FAILED", "NonZeroExitCode", "stopped", "stopped", Phase.STOPPED),
    ("CANCELLED", "None", "stopped", "stopped (CANCELLED)", Phase.STOPPED),
    ("PREEMPTED", "None", "stopped", "stopped (PREEMPTED)", Phase.STOPPED),
    ("PREEMPTED", "None", "training", "ended (PREEMPTED)", Phase.FAILED),
    ("NODE_FAIL", "None", "training", "ended (NODE_FAIL)", Phase.FAILED), ("OUT_OF_MEMORY", "None", "failed", "failed", Phase.FAILED),
    ("TIMEOUT", "TimeLimit", "starting", "ended (TIMEOUT)", Phase.FAILED), ("BOOT_FAIL", "None", "", "ended (BOOT_FAIL)", Phase.FAILED),
    ("DEADLINE", "None", "", "ended (DEADLINE)", Phase.FAILED), (None, "", "training", "ended at step 4", Phase.FAILED),
    (None, "", "finished", "finished", Phase.FINISHED)])
def test_the_state_of_a_run_with_a_job(job_state, reason, run_state, text, phase, slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", **({"state": run_state, "step": 4} if run_state else {}))
    if job_state:
        slurm.set("7", job_state, Reason=reason)
    state, notes = state_of(run)
    assert (state.text, state.phase, notes) == (text, phase, [])


def test_a_job_that_was_cancelled_before_it_started_has_not_failed(slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", None, started=False)
    slurm.set("7", "CANCELLED")
    assert state_of(run)[0].text == "cancelled"


def test_a_silent_slurm_is_no_end_and_is_noted_once(slurm, tmp_path):
    runs = [make_run(tmp_path, name, "7", state="training") for name in "ab"]
    slurm.silent = True
    notes = []
    summaries = summarize([Target(run, run.name) for run in runs], notes.append)
    assert [summary.state.text for summary in summaries] == ["unknown (last state: training)"] * 2
    assert all(summary.state.phase is Phase.UNKNOWN and summary.cause is None for summary in summaries)
    assert notes == ["the states of jobs are unknown: Slurm has not answered squeue for 60 s"]


@pytest.mark.parametrize("second", ["RUNNING", "FAILED"])
def test_the_job_that_has_the_run_is_the_one_that_started_first(second, slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", state="training")
    add_job(run, "8")  # it is refused by the lock of the first
    slurm.set("7", "RUNNING")
    slurm.set("8", second)
    state, _ = state_of(run)
    assert (state.job, state.text) == ("7", "running, training")


def test_a_local_run_is_alive_or_dead(tmp_path):
    run = make_run(tmp_path, "a", state="training", step=90)
    with closing(RunLock(run)) as process:
        process.take()
        assert state_of(run)[0].phase is Phase.RUNNING and state_of(run)[0].text == "training"
    own(run, dead_process())
    write_beat(run, 0, 97)
    assert state_of(run)[0] == RunState("died at step 97", Phase.FAILED)


def test_a_local_run_after_a_job_is_what_is_told(slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", state="training")
    slurm.set("7", "FAILED")
    with closing(RunLock(run)) as process:
        process.take()
        assert (state_of(run)[0].text, state_of(run)[0].job) == ("training", "")


@pytest.mark.parametrize("moves", [True, False])
def test_a_run_on_another_machine_lives_while_its_heartbeats_change(moves, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WATCH_S", 1.0)
    run = make_run(tmp_path, "a", state="training")
    own(run, 12, "gpu07")
    write_beat(run, 0, 5)
    if moves:
        sleep = lock.time.sleep
        monkeypatch.setattr(lock.time, "sleep", lambda seconds: (write_beat(run, 0, 6), sleep(seconds)))
    state, _ = state_of(run)
    assert (state.text, state.phase) == (("training on gpu07", Phase.RUNNING) if moves else
                                         ("no sign of life from gpu07", Phase.UNKNOWN))


@pytest.mark.parametrize("job_state, text, phase", [
    ("COMPLETED", "finished", Phase.FINISHED), ("RUNNING", "running, finished", Phase.RUNNING),
    ("FAILED", "finished, evaluate failed", Phase.FAILED)])
def test_an_evaluation_that_fails_leaves_the_training_finished(job_state, text, phase, slurm, tmp_path):
    run = make_run(tmp_path, "a", state="finished", step=9)
    add_job_record(run, job="7", verb="evaluate", log="7.log", backend="slurm")
    slurm.set("7", job_state, Reason="NonZeroExitCode")
    state, _ = state_of(run)
    assert (state.text, state.phase) == (text, phase)
