"""A new backend is one module and one entry in BACKENDS: every verb of the launcher then uses it."""

import dataclasses
import sys

import pytest

from detector.checks.problems import Problem
from launcher import check, cli
from launcher.backends import BACKENDS, Backend, load_backend
from launcher.run_info import add_job_record

MODULE = '''
from detector.checks.problems import Problem
from launcher.backends import Backend, JobState
from launcher.run_info import add_job_record, resolve_run

states = {}


def submit(launch):
    run, _ = resolve_run(launch.job.verb, launch.job.arguments)
    states["pbs.1"] = "R"
    add_job_record(run, job="pbs.1", verb=launch.job.verb, log=str(run / "pbs.log"), backend="pbs")
    return 0


PBS = Backend(preflight=lambda job, run, config: [Problem("queue", "closed", "Wait")] if job.resources.gpus > 8 else [],
              notes=lambda resources: ["a note of PBS"], script=lambda launch: f"#PBS -l nodes={launch.job.resources.nodes}\\n",
              submit=submit, queue=lambda: {job: JobState(name, False) for job, name in states.items() if name != "F"},
              state=lambda job: JobState(states[job], over=states[job] == "F"),
              cancel=lambda job: states.update({job: "F"}), is_cluster=True)
'''


@pytest.fixture
def pbs(tmp_path, monkeypatch) -> Backend:
    (tmp_path / "toy_pbs.py").write_text(MODULE)
    (tmp_path / "mine.yaml").write_text("data: {root: /x}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BACKENDS, "pbs", "toy_pbs:PBS")
    yield load_backend("pbs")
    del sys.modules["toy_pbs"]


def test_a_new_backend_is_used_by_train_jobs_logs_and_cancel(pbs, tmp_path, capsys):
    assert cli.main(["train", "mine.yaml", "--on", "pbs", "--nodes", "3", "--dry-run"]) == 0
    assert capsys.readouterr().out == "#PBS -l nodes=3\n" and not (tmp_path / "runs").exists()
    assert cli.main(["train", "mine.yaml", "--on", "pbs"]) == 0
    run = tmp_path / "runs" / "mine"
    assert cli.main(["jobs"]) == 0 and capsys.readouterr().out.splitlines()[1].split()[:3] == ["mine", "r", "pbs.1"]
    (run / "pbs.log").write_text("step 1\n")
    assert cli.main(["logs", "mine"]) == 0 and capsys.readouterr().out == "step 1\n"
    assert cli.main(["train", "mine.yaml"]) == 2 and "in the queue already, as job pbs.1 (R)" in capsys.readouterr().err
    assert cli.main(["cancel", "mine"]) == 0 and "cancelled job pbs.1" in capsys.readouterr().out
    assert cli.main(["cancel", "mine"]) == 2 and "its job pbs.1 is over" in capsys.readouterr().err


@pytest.mark.parametrize("gpus, expected", [(8, []), (9, [Problem("queue", "closed", "Wait")])])
def test_check_asks_the_backend(gpus, expected, pbs, monkeypatch):
    reports = []
    monkeypatch.setattr(check, "print_json_report", lambda job, problems, notes: reports.append((job, problems, notes)) or 0)
    assert cli.main(["check", "mine.yaml", "--json", "--on", "pbs", "--gpus", str(gpus), "--nodes", "2"]) == 0
    (job, problems, notes), = reports
    assert problems == expected and notes == ["a note of PBS"] and str(2 * gpus) in job.arguments


def test_an_array_needs_a_backend_that_has_arrays(pbs, capsys):
    assert cli.main(["train", "mine.yaml", "--on", "pbs", "--array", "rows.txt"]) == 2
    assert "--array is for train --on sbatch" in capsys.readouterr().err


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_offers_every_function(name):
    backend = load_backend(name)
    for field in dataclasses.fields(backend):
        assert field.name in ("is_cluster", "has_arrays", "past_state") or callable(getattr(backend, field.name)), field.name


def test_the_queue_of_a_backend_without_jobs_is_not_asked(pbs, tmp_path, monkeypatch, capsys):
    """A local run beside a submitted one: only the scheduler of the submitted one is asked."""
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "status.json").write_text('{"state": "finished", "step": 3}')
    add_job_record(tmp_path / "runs" / "a", job="pbs.7", verb="train", backend="pbs")
    monkeypatch.setattr("launcher.slurm_commands.slurm", lambda *command: pytest.fail("asked Slurm"))
    assert cli.main(["jobs"]) == 0 and [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["run", "a", "b"]
