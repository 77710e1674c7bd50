"""Slurm's commands: output parsed, errors explained, and a controller that does not answer asked again."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.config.aliases import PRINTED_NOTES
from detector.errors import BadInput
from launcher import cli, slurm_commands
from launcher.backends import JobState, sbatch, submitit
from launcher.job import Job
from launcher.slurm_commands import (
    SlurmSilent,
    SubmissionInterrupted,
    SubmissionUnanswered,
    expand_hostlist,
    job_record,
    job_state,
    parse_record,
    past_job_state,
    queued_jobs,
    slurm,
    submission_error,
)

REFUSED = "Unable to contact slurm controller (connect failure)"


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """Makes a program of Slurm in PATH that answers with each of the given (exit status, text) in turn; the last one stays."""
    def make(program: str, *answers: tuple[int, str]) -> Path:
        calls = tmp_path / f"{program}.calls"
        script = tmp_path / program
        script.write_text(f"#!{sys.executable}\nimport os, sys\ncalls = open({str(calls)!r}, 'a')\n"
                          f"print(' '.join(sys.argv[1:]), file=calls, flush=True)\nanswers = {answers!r}\n"
                          f"status, text = answers[min(len(open({str(calls)!r}).readlines()), len(answers)) - 1]\n"
                          "print(text, file=sys.stderr if status else sys.stdout)\nsys.exit(status)\n")
        script.chmod(0o755)
        return calls
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm_commands, "PAUSE_S", 0.01)
    monkeypatch.setattr(slurm_commands, "has_slurm", lambda: True)
    return make


def count(calls: Path) -> int:
    return len(calls.read_text().splitlines())


def test_no_host_is_an_error(monkeypatch):
    monkeypatch.setattr(slurm_commands, "slurm", lambda *command: "\n")
    for nodes in ("", "n[1-2]"):
        with pytest.raises(BadInput, match="MASTER_ADDR"):
            expand_hostlist(nodes)


def test_the_first_of_equal_keys_counts():
    assert parse_record("JobId=7 JobState=RUNNING Command=/x/JobState=FAILED JobState=FAILED")["JobState"] == "RUNNING"


@pytest.mark.parametrize("name, over", [
    *((name, False) for name in ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "COMPLETING", "STAGE_OUT", "SIGNALING",
                                 "RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")),
    *((name, True) for name in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE",
                                "BOOT_FAIL", "REVOKED"))])
def test_the_states_in_which_a_job_is_over(name, over, monkeypatch):
    monkeypatch.setattr(slurm_commands, "has_slurm", lambda: True)
    monkeypatch.setattr(slurm_commands, "slurm", lambda *command: f"JobId=7 JobState={name} Reason=None")
    assert job_state("7") == JobState(name, over)


@pytest.mark.parametrize("message", ["slurm_load_jobs error: Invalid job id specified", "Job 1_1 not found",
                                     "scontrol: error: fetch_config: DNS SRV lookup failed, Could not establish a configuration source"])
def test_a_job_that_slurm_has_forgotten_and_a_machine_without_a_cluster_have_no_job(message, fake_slurm):
    calls = fake_slurm("scontrol", (1, message))
    assert job_state("7") == JobState("UNKNOWN", over=True) and count(calls) == 1


@pytest.mark.parametrize("message", [
    f"slurm_load_jobs error: {REFUSED}", "slurm_load_jobs error: Socket timed out on send/recv operation", "Connection refused",
    "Zero Bytes were transmitted or received", "Transport endpoint is not connected", "Slurm backup controller in standby mode",
    "error: If munged is up, restart with --num-threads=10"])
def test_a_silent_controller_is_asked_again_until_it_answers(message, fake_slurm):
    calls = fake_slurm("scontrol", (1, message), (1, message), (0, "JobId=7 JobState=RUNNING"))
    assert job_state("7") == JobState("RUNNING", over=False) and count(calls) == 3


def test_a_controller_that_stays_silent_is_no_end_of_a_job(fake_slurm, monkeypatch):
    calls = fake_slurm("scontrol", (1, REFUSED))
    with pytest.raises(SlurmSilent, match=r"Slurm has not answered scontrol show for \d+ s .*connect failure.* `scontrol ping`"):
        slurm("scontrol", "show", "job", "7", limit_s=0.2)
    assert count(calls) >= 1
    monkeypatch.setattr(slurm_commands, "slurm", lambda *command: slurm(*command, limit_s=0.0))
    with pytest.raises(SlurmSilent):
        job_record("7")


@pytest.mark.parametrize("message, expected, remedy", [(REFUSED, 2, ""), ("Socket timed out on send/recv operation", 1, "squeue --me")])
def test_a_submission_whose_answer_was_lost_is_not_repeated(message, expected, remedy, fake_slurm):
    calls = fake_slurm("sbatch", (1, message), (0, "Submitted batch job 7"))
    if remedy:
        with pytest.raises(SubmissionUnanswered, match=remedy):
            slurm("sbatch", "job.sh")
    else:
        assert slurm("sbatch", "job.sh") == "Submitted batch job 7\n"
    assert count(calls) == expected


@pytest.mark.parametrize("backend", ["sbatch", "submitit"])
def test_after_ctrl_c_before_the_answer_of_sbatch_the_job_may_be_in_the_queue(backend, tmp_path, monkeypatch, capsys):
    def interrupt(*_arguments, **_options) -> None:
        raise KeyboardInterrupt
    monkeypatch.setattr(slurm_commands, "run_until_answered", interrupt)
    monkeypatch.setattr(submitit, "build_executor", lambda _submission: SimpleNamespace(submit=interrupt))
    submission = SimpleNamespace(job=Job("train", ("c.yaml",)))
    send = {"sbatch": lambda: sbatch.run_sbatch(tmp_path / "job.sh"), "submitit": lambda: submitit.send(submission)}[backend]
    monkeypatch.setattr(cli, "run_command_line", lambda _arguments: send())
    assert cli.main(["train"]) == 130 and "may be in the queue all the same. `squeue --me`" in capsys.readouterr().err
    with pytest.raises(SubmissionInterrupted):
        send()
    with pytest.raises(KeyboardInterrupt, match="^$"):
        slurm("squeue")


@pytest.mark.parametrize("message, kind, text", [
    ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", SubmissionUnanswered, "squeue --me"),
    (f"sbatch: error: {REFUSED}", SlurmSilent, "Try again later"),
    ("sbatch: error: Batch job submission failed: Protocol authentication error", SubmissionUnanswered, "squeue --me"),
    ("sbatch: error: invalid partition specified: gpu", BadInput, "sbatch refused the job: sbatch: error: invalid partition")])
def test_a_message_of_sbatch_that_submitit_has_run_is_a_refusal_or_silence(message, kind, text):
    error = submission_error(message)
    assert type(error) is kind and text in str(error)


def test_a_command_that_hangs_is_noted_after_a_while_and_given_up(monkeypatch, capsys):
    monkeypatch.setattr(slurm_commands, "NOTE_AFTER_S", 0.1)
    monkeypatch.setattr(slurm_commands, "MIN_TRY_S", 0.5)
    monkeypatch.setenv(PRINTED_NOTES, "")
    with pytest.raises(SlurmSilent, match="Slurm has not answered sleep 20 for"):
        slurm("sleep", "20", limit_s=0)
    assert capsys.readouterr().err.count("note: Slurm does not answer sleep yet") == 1


def test_a_command_that_fails_or_is_missing_is_one_clear_error():
    with pytest.raises(BadInput, match="no sbatch-of-nobody on this machine .*slurm/local-cluster"):
        slurm("sbatch-of-nobody")
    with pytest.raises(BadInput, match="sh -c .*: invalid account"):
        slurm("sh", "-c", "echo 'invalid  account' >&2; exit 1")


def test_the_formats_a_user_likes_do_not_change_what_is_read(monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SLURM_CONF", "/x")
    assert slurm("sh", "-c", "echo $SQUEUE_STATES$SLURM_TIME_FORMAT$SLURM_CONF") == "/x\n"
    assert slurm("sh", "-c", "echo $SLURM_CONF", environment={"SLURM_CONF": "/y"}) == "/y\n"


@pytest.mark.parametrize("answer, queue", [
    ("", {}), ("7|RUNNING|None\n8_1|PENDING|Priority\n", {"7": JobState("RUNNING", False), "8_1": JobState("PENDING", False, "Priority")}),
    ("9|PENDING|ReqNodeNotAvail, Nodes:n[1|2]\n", {"9": JobState("PENDING", False, "ReqNodeNotAvail, Nodes:n[1|2]")})])
def test_the_queue(answer, queue, monkeypatch):
    monkeypatch.setattr(slurm_commands, "has_slurm", lambda: True)
    monkeypatch.setattr(slurm_commands, "slurm", lambda *command, limit_s: answer)
    assert queued_jobs() == queue
    monkeypatch.setattr(slurm_commands, "has_slurm", lambda: False)
    assert queued_jobs() is None


@pytest.mark.parametrize("accounting, state", [
    ((0, "CANCELLED by 1000|None|0:15"), JobState("CANCELLED", True, "", "0:15")),
    ((0, "OUT_OF_MEMORY|OutOfMemory|0:125"), JobState("OUT_OF_MEMORY", True, "OutOfMemory", "0:125")),
    ((0, "COMPLETED|None|0:0"), JobState("COMPLETED", True)), ((0, ""), JobState("UNKNOWN", True)),
    ((1, "Slurm accounting storage is disabled"), JobState("UNKNOWN", True))])
def test_accounting_knows_a_job_that_the_controller_has_forgotten(accounting, state, fake_slurm):
    fake_slurm("scontrol", (1, "Invalid job id specified"))
    fake_slurm("sacct", accounting)
    assert past_job_state("7") == state


def test_the_exit_code_is_that_of_the_job_or_of_a_step(fake_slurm):
    calls = fake_slurm("scontrol", (0, "JobState=FAILED Reason=NonZeroExitCode DerivedExitCode=0:9 ExitCode=1:0"),
                       (0, "JobState=CANCELLED Reason=None DerivedExitCode=0:15 ExitCode=0:0"))
    assert job_state("7") == JobState("FAILED", True, "NonZeroExitCode", "1:0")
    assert past_job_state("7") == JobState("CANCELLED", True, "", "0:15") and count(calls) == 2
