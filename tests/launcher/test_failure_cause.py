"""The cause of a bad end: rank, host, error, what the scheduler says, and what to do."""

import os

import pytest
from fake_runs import COMMAND, dead_process, make_run, own, write_beat

from detector.run.files import write_json
from launcher.run_folders import Target
from launcher.run_summary import summarize

GLOO = "RuntimeError: [gloo/transport/tcp/pair.cc] Connection closed by peer"
AGAIN = f"start it again with: {COMMAND}"


def lines_of(run) -> list[str]:
    summary, = summarize([Target(run, run.name)], lambda note: None)
    return summary.cause.lines() if summary.cause else []


def fail(run, rank: int, how: str) -> None:
    """Records the end of a rank as its task of srun does."""
    write_json(run / "slurm" / "failed" / f"rank-{rank:05d}.json",
               {"rank": rank, "host": f"n{rank}", "how": how, "signal": how.startswith("signal"), "at": 0.0})


def test_a_killed_rank_comes_before_those_that_lost_it(slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", f"step 1\n{GLOO}\n", state="failed", step=100)
    slurm.set("7", "FAILED", Reason="NonZeroExitCode", ExitCode="137:0")
    write_beat(run, 0, 118, GLOO, failed_ago_s=30, skew_s=-3600)
    write_beat(run, 1, 118, written_ago_s=31)
    os.utime(run / "slurm" / "jobs.jsonl", (1e9, 1e9))
    fail(run, 0, "exit status 1")
    fail(run, 1, "signal SIGKILL")
    first, scheduler, remedy, again = lines_of(run)
    assert first == "rank 1 on n1 ended with signal SIGKILL at step 118"
    assert scheduler == "Slurm: FAILED (NonZeroExitCode), exit status 137" and again == AGAIN
    assert "memory may have run out" in remedy and "--memory-gib" in remedy


@pytest.mark.parametrize("skew_s", [0, 3600, -3600])
def test_the_first_rank_to_fail_is_named_with_its_own_error_whatever_its_clock_says(skew_s, slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", "srun: error: the last line\n", state="failed")
    slurm.set("7", "FAILED", Reason="NonZeroExitCode", ExitCode="1:0")
    write_beat(run, 0, 7, GLOO, failed_ago_s=12)
    write_beat(run, 1, 7, "RuntimeError: rank 2: ValueError: no box", failed_ago_s=11)
    write_beat(run, 2, 7, "ValueError: no box\nmore", failed_ago_s=10, skew_s=skew_s)
    write_beat(run, 3, 7, "KeyError: later", failed_ago_s=5)
    for rank in range(4):
        fail(run, rank, "exit status 1")
    assert lines_of(run) == ["rank 2 on n2 failed at step 7: ValueError: no box", "Slurm: FAILED (NonZeroExitCode), exit status 1", AGAIN]


def test_errors_of_an_earlier_start_are_no_cause(slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", "error: data.root=/x: no such folder\n", state="failed")
    slurm.set("7", "FAILED")
    write_beat(run, 0, 7, "ValueError: no box", failed_ago_s=3, written_ago_s=3600)
    fail(run, 1, "signal SIGKILL")
    os.utime(run / "slurm" / "failed" / "rank-00001.json", (1e9, 1e9))
    assert lines_of(run)[0] == "data.root=/x: no such folder"


def test_a_job_that_the_oom_killer_ended_says_memory(slurm, tmp_path):
    oom = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed.\n"
    for name, state in (("a", "OUT_OF_MEMORY"), ("b", "FAILED")):
        run = make_run(tmp_path, name, "7", oom, state="training")
        slurm.set("7", state, Reason="OutOfMemory", ExitCode="0:125")
        fail(run, 1, "signal SIGKILL")
        assert lines_of(run)[2].startswith("memory ran out (Detected 1 oom_kill event in StepId=7.0): lower run.num_workers")


def test_an_error_before_the_run_folder_is_used_is_read_in_the_log(slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", "error: data.root=/x: no such folder. Set data.root\nsrun: error: task 0: Exited\n")
    slurm.set("7", "FAILED", Reason="NonZeroExitCode", ExitCode="2:0")
    assert lines_of(run) == ["data.root=/x: no such folder. Set data.root", "Slurm: FAILED (NonZeroExitCode), exit status 2", AGAIN]


def test_a_run_folder_that_the_nodes_do_not_see_is_named(slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", None, started=False)
    slurm.set("7", "FAILED", Reason="NonZeroExitCode", ExitCode="0:53")
    first, scheduler, remedy, _ = lines_of(run)
    assert first == f"the job ended without a word: its node could not write {run}/slurm/7.log"
    assert scheduler == "Slurm: FAILED (NonZeroExitCode), exit code 0:53" and f"the nodes do not see {run}: set run.folder" in remedy


@pytest.mark.parametrize("state, text", [
    ("PREEMPTED", "does not requeue"), ("NODE_FAIL", "a node was lost"), ("TIMEOUT", "--hours"), ("DEADLINE", "--deadline")])
def test_an_end_by_slurm_says_what_it_means(state, text, slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", "step 4/9\n", state="training")
    slurm.set("7", state)
    assert any(text in line for line in lines_of(run)) and f"Slurm: {state}" in lines_of(run) and lines_of(run)[-1] == AGAIN


def test_a_run_that_waits_runs_or_was_cancelled_has_no_cause(slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", "step 4/9\n", state="stopped")
    for state in ("RUNNING", "PENDING", "COMPLETING", "CANCELLED"):
        slurm.set("7", state)
        assert lines_of(run) == []


@pytest.mark.parametrize("state, reason, text", [
    ("REQUEUE_HOLD", "JobHeldAdmin", "`scontrol release 7`"), ("PENDING", "JobHeldUser", "`scontrol release 7`"),
    ("SPECIAL_EXIT", "None", "`scontrol release 7`"), *[("PENDING", reason, "will not start like this") for reason in
      ("DependencyNeverSatisfied", "InvalidQOS", "QOSMaxWallDurationPerJobLimit", "QOSMaxGRESPerNode", "AccountNotAllowed",
       "PartitionConfig")],
    ("PENDING", "QOSMaxJobsPerUserLimit", "")])
def test_a_job_that_will_not_start_on_its_own_says_what_to_do(state, reason, text, slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", "step 4/9\n", state="stopped")
    slurm.set("7", state, Reason=reason)
    line, = lines_of(run) or [""]
    assert text in line and bool(line) == bool(text)


def test_a_run_that_stopped_early_tells_the_last_line_of_its_log(slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", "saved step 4 in 0.1 s; not requeued: all 3 restarts are used (run.max_requeues)\n", state="stopped")
    slurm.set("7", "FAILED", ExitCode="75:0")
    assert lines_of(run) == ["saved step 4 in 0.1 s; not requeued: all 3 restarts are used (run.max_requeues)",
                             "Slurm: FAILED, exit status 75", AGAIN]


def test_a_local_run_that_was_killed_names_its_process(tmp_path):
    run, pid = make_run(tmp_path, "a", state="training", step=90), dead_process()
    own(run, pid)
    write_json(run / "environment.json", {"command": ["/x/detector/__main__.py", "train", "coco.yaml", "run.name=my run"]})
    first, remedy, again = lines_of(run)
    assert f"process {pid} on " in first and "was killed, or the machine was restarted" in first
    assert "memory may have run out" in remedy and again == "start it again with: fleet-rcnn train coco.yaml 'run.name=my run'"


def test_a_rank_of_a_local_run_that_fell_silent_was_killed(tmp_path):
    run = make_run(tmp_path, "a", state="failed")
    write_beat(run, 0, 7, GLOO, failed_ago_s=3)
    write_beat(run, 1, 7, written_ago_s=9)
    write_beat(run, 2, 7, written_ago_s=1)
    assert lines_of(run)[0] == "rank 1 on n1 failed at step 7: no sign of life since then, probably killed (SIGKILL)"


def test_a_local_run_that_failed_tells_its_error(tmp_path):
    run = make_run(tmp_path, "a", state="failed")
    write_beat(run, 0, 7, "ValueError: no box", failed_ago_s=3)
    assert lines_of(run) == ["rank 0 on n0 failed at step 7: ValueError: no box"]


def test_a_log_without_an_error_gives_its_last_line_and_says_that_it_is_one(slurm, tmp_path):
    run = make_run(tmp_path, "a", "7", "rank  host  device  cores\n0     vm    cpu     2\n", state="failed")
    slurm.set("7", "FAILED", Reason="NonZeroExitCode", ExitCode="1:0")
    assert lines_of(run)[0] == "the last line of its log: 0     vm    cpu     2"
