"""The command: help, mistakes told once before anything starts, and what becomes of a command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from launcher import check, cli, submission
from launcher.backends import local
from launcher.job import Job, Resources
from launcher.run_info import note_job

REPO = Path(__file__).resolve().parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "launcher.cli", *arguments], cwd=REPO, capture_output=True, text=True)


@pytest.fixture
def started(monkeypatch) -> list[Job]:
    """The jobs that would have been started."""
    jobs = []
    for module in (cli, check):
        monkeypatch.setattr(module, "run_here", lambda job, look=None: jobs.append(job) or 0)
    return jobs


@pytest.fixture
def config(tmp_path, monkeypatch) -> str:
    """A config of a data set that is not there, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("data: {root: /nowhere}\n")
    return "mine.yaml"


def test_help_names_every_verb():
    done = command("--help")
    assert done.returncode == 0 and done.stderr == ""
    for verb in ("train", "check", "evaluate", "predict", "options", "jobs", "logs", "cancel"):
        assert f"\n  {verb} " in done.stdout
    assert "--processes N" in done.stdout and "--on {here,torchrun,slurm,sbatch}" in done.stdout and "75 stopped early" in done.stdout


def test_each_verb_has_help_of_its_own(monkeypatch, capfd):
    """Told once, however many GPUs there are."""
    monkeypatch.setattr(local, "gpus_here", lambda: 2)
    monkeypatch.chdir(REPO)
    for verb in cli.VERBS:
        assert cli.main([verb, "--help"]) == 0
        out = capfd.readouterr().out
        assert out.count("usage: ") == 1 and f"usage: fleet-rcnn {verb} " in out, verb


@pytest.mark.parametrize("arguments, said", [
    (["trian"], "'train', 'check'"), ([], "VERB"), (["--processes", "two", "train", "x"], "processes='two': a whole number expected")])
def test_a_command_line_that_makes_no_sense_is_status_2(arguments, said):
    done = command(*arguments)
    assert done.returncode == 2 and said in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["train", "check"])
@pytest.mark.parametrize("arguments, said", [
    (["none.yaml"], ["no such config file: none.yaml"]),
    (["mine.yaml", "optim.rat=1"], ["optim.rat: no such option (did you mean optim.lr?)"]),
    (["mine.yaml", "optim.lr=fast", "model.roi_pooling=max", "seed"],  # all mistakes at once
     ["3 mistakes", "optim.lr='fast': a number expected", "model.roi_pooling='max': one of align, ",
      "overrides are key=value"]),
    (["mine.yaml", "--processes", "-1"], ["processes='-1': at least 0"]),
    (["mine.yaml", "--hours", "0", "--gpus", "x"], ["2 mistakes", "hours='0': at least 0.01", "gpus='x'"]),
    (["mine.yaml", "--cluster", "none.yaml"], ["--cluster none.yaml: no such file"])])
def test_bad_input_is_one_error_and_nothing_starts(verb, arguments, said, config, started, tmp_path, capsys):
    before = set(tmp_path.iterdir())
    assert cli.main([verb, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("error:") == 1 and err.startswith("error: ")
    assert all(part in err for part in said)
    assert started == [] and set(tmp_path.iterdir()) == before  # no run folder


def test_a_bad_config_ends_the_command_with_status_2(tmp_path):
    done = command("train", "custom/bccd", "optim.lr=fast", f"run.folder={tmp_path / 'runs'}")
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1 and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arguments, job", [
    (["train", "mine.yaml", "seed=1"], Job("train", ("mine.yaml", "seed=1"), Resources(2))),
    (["train", "mine.yaml", "--processes", "2", "seed=1"], Job("train", ("mine.yaml", "seed=1"), Resources(2))),
    (["check", "mine.yaml"], Job("check", ("mine.yaml",), Resources(1))),
    (["evaluate", "runs/a", "--checkpoint", "last"], Job("evaluate", ("runs/a", "--checkpoint", "last"))),
    (["predict", "runs/a", "b.jpg", "--score", "0.3"], Job("predict", ("runs/a", "b.jpg", "--score", "0.3"))),
    (["options"], Job("options", ()))])
def test_what_is_asked_for_is_what_is_started(arguments, job, config, started, monkeypatch):
    monkeypatch.setattr(local, "gpus_here", lambda: 2)
    assert cli.main(arguments) == 0
    assert started == [job]


def test_only_training_and_evaluation_run_in_several_processes(config, started, capsys):
    assert cli.main(["--processes", "2", "predict", "runs/a", "b.jpg"]) == 2 and started == []
    assert "predict runs in one process" in capsys.readouterr().err


def test_the_status_of_the_job_is_the_status_of_the_command(config, monkeypatch):
    for status in (0, 1, 2, 75, 137):
        monkeypatch.setattr(cli, "run_here", lambda job, look, status=status: status)
        assert cli.main(["train", "mine.yaml"]) == status


@pytest.mark.parametrize("place", ["here", "torchrun"])
def test_a_run_that_slurm_works_on_is_not_trained_here_too(place, config, started, tmp_path, monkeypatch, capsys):
    note_job(tmp_path / "runs" / "mine", job="7", verb="train", log="7.log")
    monkeypatch.setattr(cli, "run_torchrun", lambda job: started.append(job) or 0)
    for state, status in (("RUNNING", 2), ("PENDING", 2), ("COMPLETED", 0), ("UNKNOWN", 0)):
        monkeypatch.setattr(submission, "job_state", lambda name, state=state: {"JobState": state})
        assert cli.main(["train", "mine.yaml", "--on", place]) == status
    said = capsys.readouterr().err.splitlines()
    assert len(started) == 2 and len(said) == 2 and "mine is in the queue already, as job 7 (RUNNING)" in said[0]


def test_more_processes_than_gpus_are_refused(config, started, monkeypatch, capsys):
    monkeypatch.setattr(local, "gpus_here", lambda: 2)
    assert cli.main(["train", "mine.yaml", "--processes", "3"]) == 2
    assert "more processes than GPUs" in capsys.readouterr().err and started == []
    assert cli.main(["train", "mine.yaml", "--processes", "3", "run.device=cpu"]) == 0 and len(started) == 1
