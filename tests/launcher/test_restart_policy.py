"""The policy for restarts, as tables of cases: facts, decision and reason."""

import dataclasses
import signal

import pytest

from launcher.restart_policy import (
    EarlierRestart,
    EndFacts,
    Outcome,
    StartFacts,
    decide_end,
    decide_start,
    is_failure,
    was_stopped,
)


def earlier(*steps: int) -> tuple[EarlierRestart, ...]:
    """Restarts 1, 2, ... that began at these steps."""
    return tuple(EarlierRestart(number, step) for number, step in enumerate(steps, 1))


@pytest.mark.parametrize("facts, reason", [
    # restarts left, and nothing to compare with
    (StartFacts(restart=0, max_requeues=3, step=0), None),
    (StartFacts(restart=0, max_requeues=0, step=0), None),
    (StartFacts(restart=1, max_requeues=3, step=0), None),
    (StartFacts(restart=3, max_requeues=3, step=9, earlier=earlier(3, 6)), None),
    # all restarts used; this counts for finished runs, evaluations and excused starts as well
    (StartFacts(restart=4, max_requeues=3, step=9, earlier=earlier(3, 6, 7)), "all 3 restarts are used (run.max_requeues)"),
    (StartFacts(restart=1, max_requeues=0, step=0), "all 0 restarts are used"),
    (StartFacts(restart=4, max_requeues=3, step=9, finished=True), "all 3 restarts are used"),
    (StartFacts(restart=4, max_requeues=3, step=9, must_make_progress=False), "all 3 restarts are used"),
    (StartFacts(restart=4, max_requeues=3, step=9, last_start_excused=True), "all 3 restarts are used"),
    # no progress since the last restart
    (StartFacts(restart=2, max_requeues=3, step=5, earlier=earlier(5)), "no progress since restart 1, which also began at step 5"),
    (StartFacts(restart=3, max_requeues=3, step=5, earlier=earlier(2, 5)), "no progress since restart 2, which also began at step 5"),
    (StartFacts(restart=2, max_requeues=3, step=6, earlier=earlier(5)), None),
    (StartFacts(restart=3, max_requeues=3, step=6, earlier=earlier(6, 5)), None),  # compared with the last one only
    # a finished run and an evaluation need no progress
    (StartFacts(restart=2, max_requeues=3, step=5, earlier=earlier(5), finished=True), None),
    (StartFacts(restart=2, max_requeues=3, step=0, earlier=earlier(0), must_make_progress=False), None),
    # after a stop request or a lost node three starts may make no progress
    (StartFacts(restart=2, max_requeues=9, step=5, earlier=earlier(5), last_start_excused=True), None),
    (StartFacts(restart=3, max_requeues=9, step=5, earlier=earlier(5, 5), last_start_excused=True), None),
    (StartFacts(restart=4, max_requeues=9, step=5, earlier=earlier(5, 5, 5), last_start_excused=True), "no progress since restart 1"),
    (StartFacts(restart=5, max_requeues=9, step=5, earlier=earlier(2, 5, 5, 5), last_start_excused=True), "no progress since restart 2"),
    (StartFacts(restart=4, max_requeues=9, step=5, earlier=earlier(4, 5, 5), last_start_excused=True), None),
    (StartFacts(restart=4, max_requeues=9, step=5, earlier=earlier(4, 5, 5)), "no progress since restart 3")])
def test_may_a_start_go_ahead(facts, reason):
    decision = decide_start(facts)
    assert decision.allowed == (reason is None)
    assert (reason or "") in decision.reason and bool(decision.reason) == bool(reason)


FACTS = EndFacts(status=0, step=40, restarts=0, max_requeues=3)
SAVED = {"stopped_early": True, "saved_step": 1234, "saved_in_s": 1.84}
KILLED = 128 + signal.SIGKILL
TERMINATED = 128 + signal.SIGTERM
REQUEUED = "requeue requested (restart 1 of 3)"


@pytest.mark.parametrize("changes, outcome, reason", [
    # ended on its own
    ({"status": 0}, Outcome.DONE, ""),
    ({"status": 2}, Outcome.DONE, ""),
    ({"status": 2, "starting": True}, Outcome.DONE, ""),
    ({"status": 0, "starting": True, "job_state": "CANCELLED"}, Outcome.DONE, ""),
    ({"status": 1}, Outcome.FAILED, "ended with exit status 1"),
    ({"status": 1, "starting": True}, Outcome.FAILED, "ended with exit status 1"),
    ({"status": 134, "starting": True}, Outcome.FAILED, "ended with exit status 134"),
    # bad input of one rank; a stop signal, or the end of the others, does not change that
    *[({"status": status, "bad_input": True, **more}, Outcome.DONE, "") for status in (0, 1, 2, TERMINATED, KILLED)
      for more in ({}, {"stopped_early": True}, {"starting": True}, {"silent_nodes": ("n2",)})],
    # stopped by a request; torchrun then ends with 1
    ({"status": 0, **SAVED}, Outcome.REQUEUE, f"saved step 1234 in 1.8 s; {REQUEUED}"),
    ({"status": 1, **SAVED}, Outcome.REQUEUE, f"saved step 1234 in 1.8 s; {REQUEUED}"),
    ({"status": 0, "stopped_early": True}, Outcome.REQUEUE, f"stopped before there was anything to save; step 40 is on disk; {REQUEUED}"),
    ({"status": 0, "stopped_early": True, "silent_nodes": ("n2",)}, Outcome.REQUEUE, "stopped before there was anything to save"),
    # a stop signal in start-up kills the processes, later they handle it
    ({"status": TERMINATED, "starting": True}, Outcome.REQUEUE, "stopped before there was anything to save; step 40 is on disk"),
    ({"status": 128 + signal.SIGUSR2, "starting": True}, Outcome.REQUEUE, "stopped before"),
    ({"status": TERMINATED}, Outcome.FAILED, "ended with exit status 143"),
    # Slurm kills all processes, so that none can record the failure
    ({"status": KILLED}, Outcome.REQUEUE, "stopped before there was anything to save; step 40 is on disk"),
    ({"status": KILLED, "saved_in_s": 1.0, "saved_step": 30}, Outcome.REQUEUE, "step 40 is on disk"),  # an earlier checkpoint
    ({"status": KILLED, "failure_recorded": True}, Outcome.FAILED, "ended with exit status 137"),
    # a lost node, or srun itself
    ({"status": 1, "silent_nodes": ("n2",)}, Outcome.REQUEUE, f"n2 does not answer, step 40 is on disk; {REQUEUED}"),
    ({"status": 1, "silent_nodes": ("n2", "n4")}, Outcome.REQUEUE, "n2, n4 does not answer"),
    ({"status": 167, "starting": True}, Outcome.REQUEUE, f"srun could not start all tasks, step 40 is on disk; {REQUEUED}"),
    ({"status": 167, "starting": True, "silent_nodes": ("n2",)}, Outcome.REQUEUE, "n2 does not answer"),
    ({"status": 167}, Outcome.FAILED, "ended with exit status 167"),
    # no requeue: Slurm has the job in hand, or all restarts are used
    *[({"status": 0, "job_state": state, **SAVED}, Outcome.STOPPED, f"Slurm is ending the job ({state}), so no requeue is requested")
      for state in ("CANCELLED", "COMPLETING", "PENDING", "UNKNOWN")],
    ({"status": 1, "silent_nodes": ("n2",), "job_state": "CANCELLED"}, Outcome.STOPPED, "Slurm is ending the job (CANCELLED)"),
    ({"status": 0, "restarts": 3, **SAVED}, Outcome.STOPPED, "saved step 1234 in 1.8 s; not requeued: all 3 restarts are used"),
    ({"status": 0, "may_requeue": False, **SAVED}, Outcome.STOPPED, "saved step 1234 in 1.8 s; not requeued: the job was submitted with"),
    ({"status": 1, "silent_nodes": ("n2",), "may_requeue": False}, Outcome.STOPPED, "not requeued: the job was submitted with --no"),
    ({"status": 0, "may_requeue": False, "job_state": "CANCELLED", **SAVED}, Outcome.STOPPED, "Slurm is ending the job (CANCELLED)"),
    ({"status": 0, "restarts": 2, **SAVED}, Outcome.REQUEUE, "requeue requested (restart 3 of 3)"),
    ({"status": 0, "max_requeues": 0, **SAVED}, Outcome.STOPPED, "not requeued: all 0 restarts are used"),
    ({"status": 0, "restarts": 3, "job_state": "CANCELLED", **SAVED}, Outcome.STOPPED, "Slurm is ending the job (CANCELLED)")])
def test_what_follows_an_end(changes, outcome, reason):
    decision = decide_end(dataclasses.replace(FACTS, **changes))
    assert decision.outcome is outcome
    assert reason in decision.reason and bool(decision.reason) == bool(reason)


def test_a_failure_was_not_stopped_and_is_no_bad_input():
    for status in range(256):
        for stopped_early in (False, True):
            facts = dataclasses.replace(FACTS, status=status, stopped_early=stopped_early)
            assert is_failure(facts) == (not was_stopped(facts) and status not in (0, 2))
            assert (decide_end(facts).outcome is Outcome.FAILED) == is_failure(facts)
