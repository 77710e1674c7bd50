"""jobs: the table of runs, JSON, and runs that cannot be read."""

import json
import os
from pathlib import Path

import pytest
from fake_runs import COMMAND, make_run

from launcher import cli, job_table
from launcher.job_table import text_width
from launcher.run_info import add_job_record


@pytest.fixture
def unreadable(monkeypatch):
    """Makes a path unreadable, for root as well."""
    paths = []
    real_open, real_scandir = open, os.scandir

    def refuse(function):
        def checked(path, *arguments, **options):
            if isinstance(path, (str, Path)) and any(str(path).startswith(str(closed)) for closed in paths):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *arguments, **options)
        return checked
    monkeypatch.setattr("builtins.open", refuse(real_open))
    monkeypatch.setattr("io.open", refuse(real_open))
    monkeypatch.setattr(os, "scandir", refuse(real_scandir))
    return paths.append


def write_metrics(run: Path, *values: tuple[int, float]) -> None:
    lines = [{"kind": "evaluation", "step": step, "AP": value, "AP50": 0.9} for step, value in values]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "evaluation", "st')


def test_the_table_of_runs(slurm, tmp_path, capsys):
    running = make_run(tmp_path, "a", "7", state="training", step=120, total_steps=1000, images_per_s=31.4159, seconds_left=4000)
    add_job_record(running, job="7", verb="train", restart=2, step=100)
    write_metrics(running, (50, 0.41), (100, float("nan")), (110, 0.3712))
    make_run(tmp_path, "b", "8", started=False)
    make_run(tmp_path, "exp1/lr0.1", "9", "step 4\nTraceback (most recent call last):\nValueError: no\nsrun: error: the last line\n",
             state="training", step=4, total_steps=10)
    make_run(tmp_path, "exp1", state="finished", step=10, total_steps=10)
    (tmp_path / "no run").mkdir()
    slurm.set("7", "RUNNING")
    slurm.set("8", "PENDING", Reason="Priority")
    slurm.set("9", "FAILED", Reason="NonZeroExitCode", ExitCode="1:0")
    assert cli.main(["jobs", str(tmp_path)]) == 0
    head, a, b, outer, inner, *cause = capsys.readouterr().out.splitlines()
    assert head.split() == "run state job step images/s left restarts best metric last metric cost".split()
    assert a.split() == "a running, training 7 120/1000 31.4 1:06 h 2 AP 0.41 at 50 0.3712 at 110".split()
    assert "pending (Priority)" in b and "0/?" in b and outer.split()[:3] == ["exp1", "finished", "10/10"]
    assert inner.split()[:4] == ["exp1/lr0.1", "failed", "9", "4/10"]
    assert cause == ["    ValueError: no", "    Slurm: FAILED (NonZeroExitCode), exit status 1", f"    start it again with: {COMMAND}"]


def test_json_has_every_field_of_every_run(slurm, tmp_path, capsys):
    write_metrics(make_run(tmp_path, "größe_数据", "7", "error: no room\n", state="training", step=4, total_steps=10), (4, float("nan")))
    slurm.set("7", "FAILED", Reason="NonZeroExitCode", ExitCode="1:0")
    assert cli.main(["jobs", str(tmp_path), "--json"]) == 0
    run, = json.loads(capsys.readouterr().out)
    assert (run["name"], run["phase"], run["job"], run["jobs"], run["step"]) == ("größe_数据", "failed", "7", ["7"], 4)
    assert run["scheduler"] == {"state": "FAILED", "reason": "NonZeroExitCode", "exit_code": "1:0"}
    assert run["cause"]["error"] == "no room" and run["last"] == {"name": "AP", "value": None, "step": 4} and run["best"] is None
    assert cli.main(["jobs", str(tmp_path / "größe_数据" / "slurm"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_run_of_a_colleague_that_cannot_be_read_hides_no_other_run(slurm, unreadable, tmp_path, capsys):
    for name in ("a", "closed", "half", "z"):
        make_run(tmp_path, name, "7" if name == "half" else "", state="finished")
    slurm.set("7", "COMPLETED")
    unreadable(tmp_path / "closed")
    unreadable(tmp_path / "half" / "slurm" / "jobs.jsonl")
    assert cli.main(["jobs", str(tmp_path)]) == 0
    _, a, closed, half, z = capsys.readouterr().out.splitlines()
    assert "unreadable (Permission denied, owner " in closed and "unreadable" in half and "finished" in a and "finished" in z
    assert cli.main(["jobs", str(tmp_path), "--json"]) == 0 and len(json.loads(capsys.readouterr().out)) == 4


def test_a_slurm_that_does_not_answer_hides_no_run(slurm, tmp_path, capsys):
    make_run(tmp_path, "a", "7", state="training", step=120, total_steps=1000)
    make_run(tmp_path, "b", state="finished", step=10, total_steps=10)
    slurm.silent = True
    assert cli.main(["jobs", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == "note: the states of jobs are unknown: Slurm has not answered squeue for 60 s\n"
    assert [line.split()[0] for line in captured.out.splitlines()] == ["run", "a", "b"] and "unknown (last state: training)" in captured.out


def test_a_narrow_terminal_leaves_columns_out_and_names_them(slurm, tmp_path):
    run = make_run(tmp_path, "a_rather_long_name_of_a_run", "7", "error: " + "long " * 40, state="training", step=4, total_steps=10,
                   images_per_s=3.0, seconds_left=300)
    write_metrics(run, (4, 0.5))
    slurm.set("7", "FAILED")
    summaries = job_table.summarize_folder(tmp_path, lambda note: None)
    for width in (80, 140):
        lines = job_table.format_table(summaries, width).splitlines()
        assert max(map(len, lines)) <= width
    narrow = job_table.format_table(summaries, 80)
    assert "restarts" not in narrow.splitlines()[0] and "(not shown: " in narrow and "left out" not in narrow
    assert max(map(len, job_table.format_table(summaries, None).splitlines())) > 200  # in a pipe, nothing is cut or wrapped


def test_wide_characters_are_two_columns_wide():
    assert text_width("größe_数据") == 10 and text_width("e\u0301") == 1


@pytest.mark.parametrize("arguments", [["{}"], ["--folder", "{}"]])
def test_a_folder_without_runs_is_reported(arguments, tmp_path, slurm, capsys):
    assert cli.main(["jobs", *(argument.format(tmp_path) for argument in arguments)]) == 0 and "no run in" in capsys.readouterr().out
    assert cli.main(["jobs", *(argument.format(tmp_path / "nope") for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"error: no folder {tmp_path / 'nope'}: ")


def test_watch_prints_again_until_ctrl_c(tmp_path, slurm, capsys, monkeypatch):
    make_run(tmp_path, "a", state="finished")
    pauses = iter([None, KeyboardInterrupt()])

    def sleep(_seconds):
        if error := next(pauses):
            raise error
    monkeypatch.setattr(job_table.time, "sleep", sleep)
    assert cli.main(["jobs", str(tmp_path), "--watch"]) == 130
    assert capsys.readouterr().out.count("finished") == 2
