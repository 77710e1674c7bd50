"""Runs that go on or went: the table, the log, the cancelling; options and the cluster file; who is late."""

import json
import time
from contextlib import closing
from pathlib import Path

import pytest

from detector.config.load import load_config
from detector.errors import BadInput
from detector.run.lock import RunLock
from launcher import cli, code_snapshot, hang_watch, jobs, resources, submission
from launcher.job import CODE, Job, Resources
from launcher.run_info import jobs_of, last_checkpoint, note_job, read_json, run_of, write_json


@pytest.fixture
def slurm(monkeypatch):
    """What Slurm would say: the queue by job, and states."""
    queue, states, asked = {}, {}, []
    monkeypatch.setattr(jobs, "queued", lambda: queue)
    monkeypatch.setattr(jobs, "has_slurm", lambda: True)
    for module in (jobs, submission):
        monkeypatch.setattr(module, "job_state", lambda name: {"JobState": states.get(name, "UNKNOWN")})
    monkeypatch.setattr(jobs, "slurm", lambda *command: asked.append(command))
    return queue, states, asked


def make_run(folder: Path, name: str, job: str = "", log: str = "", **status) -> Path:
    run = folder / name
    write_json(run / "status.json", {"at": time.time(), **status})
    if job:
        (run / "slurm").mkdir()
        (run / "slurm" / f"{job}.log").write_text(log)
        note_job(run, job=job, verb="train", log=f"{run}/slurm/{job}.log")
    return run


def test_the_table_of_runs(slurm, tmp_path, capsys):
    queue, states, _ = slurm
    running = make_run(tmp_path, "a", "7", state="training", step=120, total_steps=1000, images_per_s=31.4159, seconds_left=4000)
    note_job(running, job="7", verb="train", restart=2, step=100)
    (running / "metrics.jsonl").write_text('{"kind": "evaluation", "step": 100, "AP": 0.3712, "AP50": 0.6}\n{"kind": "tr')
    make_run(tmp_path, "b", "8", state="starting")
    make_run(tmp_path, "c", "9", "step 4\nValueError: no\n\n", state="training", step=4, total_steps=10)
    make_run(tmp_path, "d", state="finished", step=10, total_steps=10)
    (tmp_path / "no run").mkdir()
    queue.update({"7": "running", "8": "pending (Priority)"})
    states["9"] = "FAILED"
    assert jobs.jobs(tmp_path) == 0
    head, a, b, c, trouble, d = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "state", "job", "step", "images/s", "left", "restarts", "last", "metric"]
    assert a.split() == ["a", "running,", "training", "7", "120/1000", "31.4", "1:06", "h", "2", "AP", "0.3712"]
    assert "pending (Priority)" in b and "0/?" in b
    assert "ended (FAILED)" in c and trouble == "    ValueError: no" and d.split()[:3] == ["d", "finished", "10/10"]


def test_a_slurm_that_does_not_answer_hides_no_run(tmp_path, monkeypatch, capsys):
    """As on a machine that has Slurm's commands but no cluster."""
    make_run(tmp_path, "a", "7", state="training", step=120, total_steps=1000)
    make_run(tmp_path, "b", state="finished", step=10, total_steps=10)

    def silent(*command):
        raise BadInput("squeue: Unable to contact slurm controller")
    monkeypatch.setattr(jobs, "has_slurm", lambda: True)
    monkeypatch.setattr(jobs, "slurm", silent)
    assert jobs.jobs(tmp_path) == 0
    said = capsys.readouterr()
    assert said.err == "note: Slurm was not asked: squeue: Unable to contact slurm controller\n"
    assert [line.split()[0] for line in said.out.splitlines()] == ["run", "a", "b"] and "ended? was training" in said.out


@pytest.mark.parametrize("answer, queue", [
    ("", {}), ("7|RUNNING|None\n8|PENDING|Priority\n", {"7": "running", "8": "pending (Priority)"}),
    ("9|PENDING|None\n", {"9": "pending"})])
def test_the_queue(answer, queue, monkeypatch):
    monkeypatch.setattr(jobs, "has_slurm", lambda: True)
    monkeypatch.setattr(jobs, "slurm", lambda *command: answer)
    assert jobs.queued() == queue


def test_no_runs_are_told(tmp_path, slurm, capsys):
    (tmp_path / "none").mkdir()
    assert jobs.jobs(tmp_path / "none") == 0 and "no run in" in capsys.readouterr().out
    assert cli.main(["jobs", "--folder", str(tmp_path / "nope")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err == f"error: no folder {tmp_path / 'nope'}; --folder names the one where runs live\n"


def test_logs_are_followed_until_the_job_is_over(tmp_path, slurm, capsys, monkeypatch):
    _, states, _ = slurm
    run = make_run(tmp_path, "a", "7", "one\n")
    states["7"] = "RUNNING"

    def more(_seconds) -> None:
        with open(run / "slurm" / "7.log", "a") as file:
            file.write("two\n")
        states["7"] = "COMPLETED"
    monkeypatch.setattr(jobs.time, "sleep", more)
    assert jobs.logs(run, follow=True) == 0
    assert capsys.readouterr().out == "one\ntwo\n"
    assert jobs.logs(run, follow=False) == 0 and capsys.readouterr().out == "one\ntwo\n"


def test_a_run_without_a_job_has_a_log_too_and_one_without_both_says_so(tmp_path, slurm, capsys):
    run = make_run(tmp_path, "a", state="finished")
    with pytest.raises(BadInput, match="not there yet"):
        jobs.logs(run, follow=True)
    (run / "log.txt").write_text("here\n")
    assert jobs.logs(run, follow=True) == 0 and capsys.readouterr().out == "here\n"


def test_cancel_is_for_what_is_in_the_queue(tmp_path, slurm, capsys):
    _, states, asked = slurm
    run = make_run(tmp_path, "a", "7")
    states["7"] = "RUNNING"
    assert jobs.cancel(run) == 0 and asked == [("scancel", "7")] and "cancel job 7" in capsys.readouterr().out
    states["7"] = "COMPLETED"
    with pytest.raises(BadInput, match="a is not in Slurm's queue$"):
        jobs.cancel(run)
    with pytest.raises(BadInput, match="it was not submitted"):
        jobs.cancel(make_run(tmp_path, "b"))


def test_a_run_is_named_by_its_folder_or_its_name(tmp_path):
    run = make_run(tmp_path, "a", "7")
    assert jobs.known_run("a", tmp_path) == jobs.known_run(str(run), Path("elsewhere")) == run
    with pytest.raises(BadInput, match="no such run: b"):
        jobs.known_run("b", tmp_path)


def test_two_jobs_do_not_write_into_one_run(tmp_path, slurm):
    _, states, _ = slurm
    run = make_run(tmp_path, "a", "7")
    for state in ("RUNNING", "PENDING", "COMPLETING"):
        states["7"] = state
        with pytest.raises(BadInput, match=f"in the queue already, as job 7 \\({state}\\)"):
            submission.refuse_second(run)
    states["7"] = "COMPLETED"
    submission.refuse_second(run)
    submission.refuse_second(tmp_path / "new")
    with closing(RunLock(run)) as owner:  # nor beside a process that was started by hand
        owner.take()
        with pytest.raises(BadInput, match="is being trained by process"):
            submission.refuse_second(run)


def options(*words: str, on_slurm: bool = True) -> Resources:
    return resources.resources(cli.parser().parse_args(["train", *words]), on_slurm)


def test_the_command_line_wins_over_the_cluster_file_and_that_over_the_defaults(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert options("--hours", "1e1") == Resources(hours=10)
    own = tmp_path / "fleet-rcnn" / "cluster.yaml"
    own.parent.mkdir()
    own.write_text("partition: gpu\ngpus: 8\nmodules: [cuda, nccl]\nsnapshot: false\n")
    assert options("--gpus", "4") == Resources(partition="gpu", gpus=4, modules=("cuda", "nccl"), snapshot=False)
    assert options("--snapshot", "--sbatch=--qos=a", "--sbatch=--exclusive").sbatch == ("--qos=a", "--exclusive")
    assert options("--snapshot").snapshot and options() == options("--cluster", str(own), on_slurm=False)
    assert options(on_slurm=False) == Resources()  # a site's GPUs are not this machine's
    own.write_text("partitoin: gpu\ngpus: many\n")
    with pytest.raises(BadInput, match=r"(?s)2 mistakes.*partitoin: no such option.*gpus='many': a whole number"):
        options()


def test_the_example_is_a_cluster_file_and_names_every_key():
    said = options("--cluster", str(CODE / "configs" / "cluster" / "example.yaml"))
    assert said.partition == "gpu" and said.gpus == 8
    text = (CODE / "configs" / "cluster" / "example.yaml").read_text()
    for name in vars(Resources()):
        assert name in ("processes", "nodes") or f"\n{name}: " in text, name


def test_a_snapshot_runs_by_itself_and_replaces_the_one_before(tmp_path):
    import subprocess
    import sys
    code = code_snapshot.take_snapshot(tmp_path / "code")
    (code / "stale").touch()
    assert code_snapshot.take_snapshot(tmp_path / "code") == code and not (code / "stale").exists()
    done = subprocess.run([sys.executable, str(code), "options"], cwd=tmp_path, capture_output=True, text=True, env={})
    assert done.returncode == 0 and "run.max_requeues" in done.stdout
    assert subprocess.run([sys.executable, str(code), "begin"], cwd=tmp_path, env={}).returncode == 2
    assert (code / "COMMIT").is_file() and not list(tmp_path.glob("*.part"))


def test_the_rows_of_an_array(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("data: {root: /x}\n")
    (tmp_path / "rows.txt").write_text("run.name=a seed=1\n\n# none\nrun.name=b 'data.train=[x y]'  # said\n")
    job = Job("train", (str(tmp_path / "mine.yaml"), "optim.lr=0.1"))
    rows = cli.rows_of(str(tmp_path / "rows.txt"), job)
    assert [row.arguments[2:] for row in rows] == [("run.name=a", "seed=1"), ("run.name=b", "data.train=[x y]")]
    (tmp_path / "rows.txt").write_text("seed=1\nseed=2\n")
    with pytest.raises(BadInput, match="several lines lead to one run folder.*Give each a run.name"):
        cli.rows_of(str(tmp_path / "rows.txt"), job)
    (tmp_path / "rows.txt").write_text("# nothing\n")
    for name, said in (("rows.txt", "no line"), ("none.txt", "No such file")):
        with pytest.raises(BadInput, match=said):
            cli.rows_of(str(tmp_path / name), job)


def beat(run: Path, rank: int, step: int, phase: str, ago_s: float) -> None:
    write_json(run / "heartbeats" / f"rank-{rank:05d}.json",
               {"rank": rank, "host": f"n{rank // 2}", "phase": phase, "step": step, "at": time.time() - ago_s})


def test_a_standstill_names_the_late_rank_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hang_watch, "EVERY_S", 0.0)
    look = hang_watch.Watch(tmp_path, patience_s=600)
    look.started_at -= 10_000
    look()
    assert capsys.readouterr().err == ""  # nobody has said anything yet
    for rank in range(4):
        beat(tmp_path, rank, 1204, "step", 100)
    look()
    assert capsys.readouterr().err == ""
    for rank, (step, phase, ago_s) in enumerate([(1205, "step", 640), (1205, "step", 641), (1204, "loading data", 642),
                                                (1205, "step", 639)]):
        beat(tmp_path, rank, step, phase, ago_s)
    look()
    look()
    said = capsys.readouterr().err
    assert said.count("no progress for 639 s. Late is rank 2 on n1: loading data at step 1204, last seen 642 s ago") == 1
    look.started_at = time.time()  # beats of an earlier start say nothing
    look.told = 0
    look()
    assert capsys.readouterr().err == ""


def test_stalled_minutes_of_0_never_look(tmp_path):
    (tmp_path / "a.yaml").write_text("data: {root: /x}\nrun: {hang_timeout_minutes: 0}\n")
    assert hang_watch.patience_s(load_config(str(tmp_path / "a.yaml"))) == float("inf")
    assert hang_watch.patience_s(load_config(str(tmp_path / "a.yaml"), ["run.hang_timeout_minutes=1"])) > 60


def test_what_a_run_folder_tells(tmp_path):
    assert last_checkpoint(tmp_path) == 0 and jobs_of(tmp_path) == [] and read_json(tmp_path / "x") == {}
    (tmp_path / "checkpoints").mkdir()
    for name in ("step-00000003.pt", "step-00000012.pt", "step-00000099.part", "best.pt"):
        (tmp_path / "checkpoints" / name).touch()
    assert last_checkpoint(tmp_path) == 12
    (tmp_path / "x").write_text("[1]")
    assert read_json(tmp_path / "x") == {}
    note_job(tmp_path, job="1")
    with open(tmp_path / "slurm" / "jobs.jsonl", "a") as file:
        file.write('{"job": "2", "ve')
    assert [json.loads(json.dumps(line))["job"] for line in jobs_of(tmp_path)] == ["1"]
    with pytest.raises(BadInput, match="is no run folder"):
        run_of("evaluate", (str(tmp_path),))
    with pytest.raises(BadInput, match="train what"):
        run_of("train", ("--json",))
