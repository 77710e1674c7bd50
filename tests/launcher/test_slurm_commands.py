"""Slurm's commands: output parsed, errors explained."""

import subprocess

import pytest

from detector.errors import BadInput
from launcher import slurm_commands
from launcher.backends import JobState
from launcher.slurm_commands import expand_hostlist, job_state, parse_record


def test_no_host_is_an_error(monkeypatch):
    monkeypatch.setattr(slurm_commands, "slurm", lambda *command: "\n")
    for nodes in ("", "n[1-2]"):
        with pytest.raises(BadInput, match="MASTER_ADDR"):
            expand_hostlist(nodes)


def test_the_first_of_equal_keys_counts():
    assert parse_record("JobId=7 JobState=RUNNING Command=/x/JobState=FAILED JobState=FAILED")["JobState"] == "RUNNING"


@pytest.mark.parametrize("answer, state", [
    ("JobId=7 JobState=RUNNING", JobState("RUNNING", over=False)), ("JobId=7 JobState=PENDING", JobState("PENDING", over=False)),
    ("JobId=7 JobState=COMPLETING", JobState("COMPLETING", over=False)), ("JobId=7 JobState=COMPLETED", JobState("COMPLETED", over=True)),
    ("JobId=7 JobState=TIMEOUT", JobState("TIMEOUT", over=True)), ("", JobState("UNKNOWN", over=True))])
def test_the_state_of_a_job(answer, state, monkeypatch):
    monkeypatch.setattr(slurm_commands, "slurm", lambda *command: answer)
    assert job_state("7") == state


def test_a_job_that_slurm_has_forgotten_is_over(monkeypatch):
    def forgotten(*command: str) -> str:
        raise BadInput("slurm_load_jobs error: Invalid job id specified")
    monkeypatch.setattr(slurm_commands, "slurm", forgotten)
    assert job_state("7") == JobState("UNKNOWN", over=True)


def test_a_command_that_fails_hangs_or_is_missing_is_one_clear_error(monkeypatch, tmp_path):
    with pytest.raises(BadInput, match="no sbatch-of-nobody on this machine .*slurm/local-cluster"):
        slurm_commands.slurm("sbatch-of-nobody")
    with pytest.raises(BadInput, match="sh -c .*: invalid account"):
        slurm_commands.slurm("sh", "-c", "echo 'invalid  account' >&2; exit 1")

    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])
    monkeypatch.setattr(slurm_commands.subprocess, "run", hang)
    with pytest.raises(BadInput, match="squeue gave no answer in 60 s"):
        slurm_commands.slurm("squeue")
