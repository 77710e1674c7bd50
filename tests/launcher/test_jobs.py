"""jobs, logs and cancel: the table of runs, the log of a run, the cancellation of a job."""

import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.errors import BadInput
from detector.run.files import write_json
from detector.run.lock import RunLock
from launcher import cli, jobs, slurm_commands, submission
from launcher.run_info import add_job_record


@pytest.fixture
def slurm(monkeypatch):
    """A Slurm with a queue (job -> lines of squeue), states (job -> state), and the list of the other commands."""
    fake = SimpleNamespace(queue={}, states={}, commands=[])

    def run(*command: str, **_options) -> str:
        if command[0] == "squeue":
            return "".join(f"{job}|{state}|{reason}\n" for job, (state, reason) in fake.queue.items())
        if command[:4] == ("scontrol", "-o", "show", "job"):
            return f"JobId={command[4]} JobState={fake.states.get(command[4], 'UNKNOWN')}"
        fake.commands.append(command)
        return ""
    monkeypatch.setattr(slurm_commands, "slurm", run)
    monkeypatch.setattr(slurm_commands, "has_slurm", lambda: True)
    return fake


def make_run(folder: Path, name: str, job: str = "", log: str = "", **status) -> Path:
    run = folder / name
    write_json(run / "status.json", {"at": time.time(), **status})
    if job:
        (run / "slurm").mkdir()
        (run / "slurm" / f"{job}.log").write_text(log)
        add_job_record(run, job=job, verb="train", log=f"{run}/slurm/{job}.log")
    return run


def test_the_table_of_runs(slurm, tmp_path, capsys):
    running = make_run(tmp_path, "a", "7", state="training", step=120, total_steps=1000, images_per_s=31.4159, seconds_left=4000)
    add_job_record(running, job="7", verb="train", restart=2, step=100)
    (running / "metrics.jsonl").write_text('{"kind": "evaluation", "step": 100, "AP": 0.3712, "AP50": 0.6}\n{"kind": "tr')
    make_run(tmp_path, "b", "8", state="starting")
    make_run(tmp_path, "c", "9", "step 4\nValueError: no\n\n", state="training", step=4, total_steps=10)
    make_run(tmp_path, "d", state="finished", step=10, total_steps=10)
    (tmp_path / "no run").mkdir()
    slurm.queue.update({"7": ("RUNNING", "None"), "8": ("PENDING", "Priority")})
    slurm.states["9"] = "FAILED"
    assert jobs.print_jobs(tmp_path) == 0
    head, a, b, c, trouble, d = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "state", "job", "step", "images/s", "left", "restarts", "last", "metric"]
    assert a.split() == ["a", "running,", "training", "7", "120/1000", "31.4", "1:06", "h", "2", "AP", "0.3712"]
    assert "pending (Priority)" in b and "0/?" in b
    assert "ended (FAILED)" in c and trouble == "    ValueError: no" and d.split()[:3] == ["d", "finished", "10/10"]


def test_a_slurm_that_does_not_answer_hides_no_run(tmp_path, monkeypatch, capsys):
    """As on a machine that has Slurm's commands but no cluster."""
    make_run(tmp_path, "a", "7", state="training", step=120, total_steps=1000)
    make_run(tmp_path, "b", state="finished", step=10, total_steps=10)

    def unreachable(*command, **_options):
        raise BadInput("squeue: Unable to contact slurm controller")
    monkeypatch.setattr(slurm_commands, "has_slurm", lambda: True)
    monkeypatch.setattr(slurm_commands, "slurm", unreachable)
    assert jobs.print_jobs(tmp_path) == 0
    captured = capsys.readouterr()
    assert captured.err == "note: the states of jobs are unknown: squeue: Unable to contact slurm controller\n"
    assert [line.split()[0] for line in captured.out.splitlines()] == ["run", "a", "b"] and "unknown (last state: training)" in captured.out


def test_a_folder_without_runs_is_reported(tmp_path, slurm, capsys):
    (tmp_path / "none").mkdir()
    assert jobs.print_jobs(tmp_path / "none") == 0 and "no run in" in capsys.readouterr().out
    assert cli.main(["jobs", "--folder", str(tmp_path / "nope")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == f"error: no folder {tmp_path / 'nope'}; --folder names the folder of the runs\n"


def test_logs_are_followed_until_the_job_is_over(tmp_path, slurm, capsys, monkeypatch):
    run = make_run(tmp_path, "a", "7", "one\n")
    slurm.states["7"] = "RUNNING"

    def more(_seconds) -> None:
        with open(run / "slurm" / "7.log", "a") as file:
            file.write("two\n")
        slurm.states["7"] = "COMPLETED"
    monkeypatch.setattr(jobs.time, "sleep", more)
    assert jobs.print_log(run, follow=True) == 0
    assert capsys.readouterr().out == "one\ntwo\n"
    assert jobs.print_log(run, follow=False) == 0 and capsys.readouterr().out == "one\ntwo\n"


def test_the_log_of_a_run_without_a_job_is_its_log_txt(tmp_path, slurm, capsys):
    run = make_run(tmp_path, "a", state="finished")
    with pytest.raises(BadInput, match="does not exist yet"):
        jobs.print_log(run, follow=True)
    (run / "log.txt").write_text("here\n")
    assert jobs.print_log(run, follow=True) == 0 and capsys.readouterr().out == "here\n"


def test_only_a_job_in_the_queue_can_be_cancelled(tmp_path, slurm, capsys):
    run = make_run(tmp_path, "a", "7")
    slurm.states["7"] = "RUNNING"
    assert jobs.cancel_run(run) == 0 and slurm.commands == [("scancel", "7")] and "cancelled job 7" in capsys.readouterr().out
    slurm.states["7"] = "COMPLETED"
    with pytest.raises(BadInput, match="a is not in the queue: its job 7 is over$"):
        jobs.cancel_run(run)
    with pytest.raises(BadInput, match="b cannot be cancelled: it was not submitted"):
        jobs.cancel_run(make_run(tmp_path, "b"))
    assert slurm.commands == [("scancel", "7")]


def test_a_run_is_found_by_its_folder_or_its_name(tmp_path):
    run = make_run(tmp_path, "a", "7")
    assert jobs.find_run("a", tmp_path) == jobs.find_run(str(run), Path("elsewhere")) == run
    with pytest.raises(BadInput, match="no such run: b"):
        jobs.find_run("b", tmp_path)


def test_two_jobs_do_not_write_into_one_run(tmp_path, slurm):
    run = make_run(tmp_path, "a", "7")
    for state in ("RUNNING", "PENDING", "COMPLETING"):
        slurm.states["7"] = state
        with pytest.raises(BadInput, match=f"in the queue already, as job 7 \\({state}\\)"):
            submission.refuse_second_job(run)
    slurm.states["7"] = "COMPLETED"
    submission.refuse_second_job(run)
    submission.refuse_second_job(tmp_path / "new")
    with closing(RunLock(run)) as owner:  # nor beside a process that was started by hand
        owner.take()
        with pytest.raises(BadInput, match="is being trained by process"):
            submission.refuse_second_job(run)
