"""check is one answer, of launcher and detector together."""

import json
import sys

import pytest

from detector.errors import BAD_INPUT, OK
from launcher import cli, preflight
from launcher.job import Job

SINFO = "gpu|gpu*|up|1-00:00:00|4|64|gpu:8\n"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("data: {root: /x}\n")
    monkeypatch.setattr(preflight, "has_slurm", lambda: True)
    monkeypatch.setattr(preflight, "slurm", lambda *command: SINFO)
    return "mine.yaml"


def detector_says(monkeypatch, text: str, status: int) -> list[Job]:
    asked = []

    def command(self) -> list[str]:
        asked.append(self)
        return [sys.executable, "-c", f"import sys; print({text!r}); sys.exit({status})"]
    monkeypatch.setattr(Job, "command", command)
    return asked


@pytest.mark.parametrize("gpus, status, expected", [("8", OK, OK), ("9", OK, BAD_INPUT), ("8", BAD_INPUT, BAD_INPUT), ("8", 1, 1)])
def test_the_status_is_that_of_both(gpus, status, expected, config, monkeypatch, capfd):
    asked = detector_says(monkeypatch, "of the data", status)
    assert cli.main(["check", config, "--on", "slurm", "--gpus", gpus]) == expected
    out = capfd.readouterr().out
    assert "of the data" in out and ("problem: gpus=9: partition gpu has 8 GPUs" in out) == (gpus == "9")
    assert asked[0].arguments == (config, "--processes", gpus, *(["--quick"] if gpus == "9" else []))


def test_a_check_for_here_asks_no_slurm(config, monkeypatch, capfd):
    monkeypatch.setattr(preflight, "slurm", lambda *command: pytest.fail("asked Slurm"))
    asked = detector_says(monkeypatch, "fine", OK)
    assert cli.main(["check", config]) == OK and asked[0].arguments == (config,) and capfd.readouterr().out == "fine\n"


@pytest.mark.parametrize("gpus", ["8", "9"])
@pytest.mark.parametrize("theirs", [[], [{"what": "data", "why": "no", "remedy": "Mend it"}]])
def test_scripts_get_one_object(gpus, theirs, config, monkeypatch, capfd):
    said = json.dumps({"problems": theirs, "notes": ["n"], "facts": {"cores": 2}})
    asked = detector_says(monkeypatch, said, BAD_INPUT if theirs else OK)
    status = cli.main(["check", config, "--json", "--on", "slurm", "--gpus", gpus])
    both = json.loads(capfd.readouterr().out)
    assert [problem["what"] for problem in both["problems"]] == ["gpus=9"] * (gpus == "9") + ["data"] * len(theirs)
    assert status == (BAD_INPUT if both["problems"] else OK) and both["facts"] == {"cores": 2} and both["notes"][-1] == "n"
    assert "--json" in asked[0].arguments


def test_a_detector_that_fails_is_no_finding(config, monkeypatch, capfd):
    detector_says(monkeypatch, "no JSON", 1)
    assert cli.main(["check", config, "--json"]) == 1 and capfd.readouterr().out == ""
