"""check prints one report of launcher and detector."""

import json
import sys
from pathlib import Path

import pytest

from detector.errors import BAD_INPUT, OK
from launcher import cli, partitions, preflight
from launcher.job import Job

SINFO = "gpu|gpu*|up|1-00:00:00|4|64|gpu:8\n"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("data: {root: /x}\n")
    monkeypatch.setattr(partitions, "has_slurm", lambda: True)
    monkeypatch.setattr(partitions, "slurm", lambda *command: SINFO)
    monkeypatch.setattr(preflight, "run_once", lambda *_: (0, "", "sbatch: Job 5 to start at 2030-01-31T12:00:00 using 8 processors"))
    monkeypatch.setattr("launcher.backends.submitit.script", lambda launch: f"#SBATCH --gpus={launch.job.resources.gpus}")
    return "mine.yaml"


def fake_detector(monkeypatch, text: str, status: int) -> list[Job]:
    """The detector prints a text and ends with a status; returns the list of the jobs that it is started with."""
    started = []

    def command(self) -> list[str]:
        started.append(self)
        return [sys.executable, "-c", f"import sys; print({text!r}); sys.exit({status})"]
    monkeypatch.setattr(Job, "command", command)
    return started


@pytest.mark.parametrize("gpus, status, expected", [("8", OK, OK), ("9", OK, BAD_INPUT), ("8", BAD_INPUT, BAD_INPUT), ("8", 1, 1)])
def test_the_status_is_that_of_both(gpus, status, expected, config, monkeypatch, capfd):
    started = fake_detector(monkeypatch, "of the data", status)
    assert cli.main(["check", config, "--on", "slurm", "--gpus", gpus]) == expected
    out = capfd.readouterr().out
    assert "of the data" in out and ("problem: gpus=9: partition gpu has 8 GPUs" in out) == (gpus == "9")
    assert out.endswith("of the data\n1 problem\n") == (gpus == "9")
    assert started[0].arguments == (config, "--processes", gpus, *(["--quick"] if gpus == "9" else []))


def test_the_problems_of_launcher_and_detector_are_counted_once(config, monkeypatch, capfd):
    fake_detector(monkeypatch, "fact\nproblem: a\nproblem: b\n2 problems", BAD_INPUT)
    cli.main(["check", config, "--on", "slurm", "--gpus", "9"])
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "3 problems" and [line for line in lines if line.endswith(" problems")] == ["3 problems"]


@pytest.mark.parametrize("gpus", ["8", "9"])
def test_a_problem_of_the_launcher_is_not_followed_by_no_problem_found(gpus, config, monkeypatch, capfd):
    fake_detector(monkeypatch, "facts\nno problem found", OK)
    cli.main(["check", config, "--on", "slurm", "--gpus", gpus])
    out = capfd.readouterr().out
    assert ("no problem found" in out) == (gpus == "8") and "facts\n" in out


@pytest.mark.parametrize("status, message, line", [
    (0, "sbatch: Job 5 to start at 2030-01-31T12:00:00 using 8", "sbatch --test-only: the job would start at 2030-01-31T12:00:00 using 8"),
    (1, "allocation failure: Invalid feature specification", "problem: sbatch --test-only: Invalid feature specification. Change the"),
    (1, "sbatch timed out", "problem: sbatch --test-only: sbatch timed out")])
def test_a_check_asks_sbatch_about_the_real_script(status, message, line, config, monkeypatch, capfd):
    scripts = []

    def run_once(command, environment, timeout_s):
        scripts.append(Path(command[-1]).read_text())
        return status, "", message
    monkeypatch.setattr(preflight, "run_once", run_once)
    fake_detector(monkeypatch, "facts\nno problem found", OK)
    assert cli.main(["check", config, "--on", "slurm", "--gpus", "8"]) == (BAD_INPUT if status else OK)
    out = capfd.readouterr().out
    assert line in out and scripts == ["#SBATCH --gpus=8"] and ("no problem found" in out) == (status == 0)


def test_a_check_is_of_one_run(config, capsys):
    assert cli.main(["check", config, "--on", "sbatch", "--array", "rows.txt"]) == BAD_INPUT
    assert "--array is for train" in capsys.readouterr().err


def test_a_check_for_this_machine_does_not_ask_slurm(config, monkeypatch, capfd):
    monkeypatch.setattr(partitions, "slurm", lambda *command: pytest.fail("asked Slurm"))
    started = fake_detector(monkeypatch, "fine", OK)
    assert cli.main(["check", config]) == OK and started[0].arguments == (config,) and capfd.readouterr().out == "fine\n"


@pytest.mark.parametrize("gpus", ["8", "9"])
@pytest.mark.parametrize("of_detector", [[], [{"what": "data", "why": "no", "remedy": "Fix it"}]])
def test_scripts_get_one_object(gpus, of_detector, config, monkeypatch, capfd):
    report = json.dumps({"problems": of_detector, "notes": ["n"], "facts": {"cores": 2}})
    started = fake_detector(monkeypatch, report, BAD_INPUT if of_detector else OK)
    status = cli.main(["check", config, "--json", "--on", "slurm", "--gpus", gpus])
    both = json.loads(capfd.readouterr().out)
    assert [problem["what"] for problem in both["problems"]] == ["gpus=9"] * (gpus == "9") + ["data"] * len(of_detector)
    assert all(set(problem) == {"what", "why", "remedy"} for problem in both["problems"])
    assert status == (BAD_INPUT if both["problems"] else OK) and both["facts"] == {"cores": 2} and both["notes"][-1] == "n"
    assert "--json" in started[0].arguments


def test_a_detector_that_fails_is_not_a_problem_of_the_config(config, monkeypatch, capfd):
    fake_detector(monkeypatch, "no JSON", 1)
    assert cli.main(["check", config, "--json"]) == 1 and capfd.readouterr().out == ""
