"""Job arrays: how rows are written, what is wrong in which line, and which rows are submitted."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from detector.config.load import to_yaml
from detector.errors import BadInput
from launcher import arrays, cli, partitions
from launcher.arrays import describe_cores, parse_array_option, read_rows, split_line
from launcher.backends import JobState, sbatch
from launcher.job import Job, Resources
from launcher.run_info import add_job_record, resolve_run

SINFO = "gpu|gpu*|up|1-00:00:00|4|64|gpu:8\n"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A Slurm that takes every script, or answers with a text that is put into `refusal`; and a config with its data."""
    state = {"queue": {}, "refusal": "", "scripts": []}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("data: {root: /x}\nrun: {num_workers: 2}\n")

    def slurm(*command: str, **_) -> str:
        if command[0] == "sbatch":
            if state["refusal"]:
                raise BadInput(state["refusal"])
            state["scripts"].append(Path(command[1]).read_text())
            return "Submitted batch job 7\n"
        return SINFO if command[0] == "sinfo" else "MaxArraySize            = 5\n"
    for module in (partitions, arrays, sbatch):
        monkeypatch.setattr(module, "slurm", slurm)
    monkeypatch.setattr(partitions, "has_slurm", lambda: True)
    monkeypatch.setattr(sbatch, "queued_jobs", lambda: state["queue"])
    return state


def submit(rows: str, *options: str) -> int:
    Path("rows.txt").write_text(rows)
    return cli.main(["train", "mine.yaml", "--on", "sbatch", "--processes", "1", "--array",
                     *([] if options and options[0].startswith("rows") else ["rows.txt"]), *options])


@pytest.mark.parametrize("line, arguments", [
    ("data.root=/x/data#2 seed=7", ["data.root=/x/data#2", "seed=7"]), ("a=1 # lr=3", ["a=1"]), ("# a=1", []), ("  ", []),
    ("#a=1", []), ("a='x y' b=\"#z\"", ["a=x y", "b=#z"]), ("a=1 #'", ["a=1"]), (r"a=\#1 b=x\ y", ["a=#1", "b=x y"]),
    ("a=[[8],[16]]\tb=猫", ["a=[[8],[16]]", "b=猫"]), ("run.name=it''s", ["run.name=its"]), ("a=$HOME/x", ["a=$HOME/x"])])
def test_a_line_is_read_as_a_shell_reads_it(line, arguments):
    assert split_line(line) == arguments


@pytest.mark.parametrize("text, parsed", [
    ("rows.txt", ("rows.txt", 0)), ("rows.txt%4", ("rows.txt", 4)), ("", ("", 0)), ("a%b/r%12", ("a%b/r", 12))])
def test_the_limit_stands_behind_the_file(text, parsed):
    assert parse_array_option(text) == parsed


@pytest.mark.parametrize("text", ["rows.txt%0", "rows.txt%", "rows.txt%two"])
def test_a_limit_is_a_number(text):
    with pytest.raises(BadInput, match="how many rows may run at a time"):
        parse_array_option(text)


def test_a_file_may_have_a_byte_order_mark_and_lines_of_windows_and_a_percent_sign(cluster):
    Path("r%4").write_bytes("\ufeffrun.name=a\r\n\r\n# x\r\nrun.name=b 	seed=2".encode())
    rows = read_rows(parse_array_option("r%4")[0], Job("train", ("mine.yaml", "seed=1"), Resources()))
    assert [(row.line, row.run.name, row.config.seed) for row in rows] == [(1, "a", 1), (4, "b", 2)]


@pytest.mark.parametrize("rows, message", [
    ("run.name=a\nrun.name='b", "line 2: a quote is not closed"), ("run.name=a\n\nrun.name=b sede=3", "line 3: sede: no such option"),
    ("run.name=a\nrun.name=b\nfoo", "line 3: 'foo': overrides are key=value"),
    ("run.name=a --gpus=2", "line 1: --gpus=2: a row holds key=value"),
    ("run.name=a\nrun.name=b optim.lr=fast", "line 2: optim.lr='fast'"), ("seed=1\nseed=2", "lines 1, 2: the same run folder"),
    ("run.name=a\nrun.name=b run.num_workers=99", "cores of a node (1 x 100 = 100)"), ("# no", "no line of key=value"),
    ("run.name=a\nrun.name=b run.device=cuda", "line 2: gpus=0: run.device=cuda needs"),
    ("sede=1\nsede=1 run.name=b", "--array rows.txt: sede: no such option"),
    ("\n".join(f"run.name=r{i}" for i in range(6)), "6 rows, and this cluster allows 5")])
def test_a_mistake_names_its_line_and_leaves_nothing(rows, message, cluster, capsys):
    before = sorted(os.listdir())
    assert submit(rows) == 2 and message in capsys.readouterr().err
    assert sorted(os.listdir()) == sorted([*before, "rows.txt"]) and not cluster["scripts"]


def test_an_array_that_sbatch_refuses_leaves_nothing(cluster, capsys):
    cluster["refusal"] = "sbatch: Invalid feature specification"
    add_job_record(Path("runs/old"), job="3", verb="train", backend="sbatch")
    before = sorted(Path(".").rglob("*"))
    assert submit("run.name=a\nrun.name=deep/b\nrun.name=old run.folder=runs\n") == 2
    assert "Invalid feature specification" in capsys.readouterr().err
    assert [path for path in sorted(Path(".").rglob("*")) if path.name != "submit.lock"] == sorted([*before, Path("rows.txt")])


def test_an_array_has_one_folder_for_its_files_and_the_cores_of_its_largest_row(cluster, capsys):
    assert submit("run.name=a seed=3\nrun.name='b c' run.num_workers=5 data.root=/d#1\n", "rows.txt%1", "--sbatch=--qos=long") == 0
    out, (script,) = capsys.readouterr().out, cluster["scripts"]
    assert "submitted job 7: 2 runs, at most 1 at a time" in out and "6 cores for each process of every row, as line 2 needs" in out
    assert "#SBATCH --array=0-1%1\n" in script and "#SBATCH --qos=long\n" in script and script.count("--cpus-per-task=6") == 2
    folder = Path(re.search("script and logs: (.*)", out)[1])
    assert sorted(os.listdir(folder)) == ["array.sbatch", "code", "mine.yaml"] and folder.parent == Path.cwd() / "runs"
    record = json.loads(Path("runs/b c/slurm/jobs.jsonl").read_text())
    assert (record["job"], record["log"]) == ("7_1", f"{folder}/7_1.log")
    _, config = resolve_run("train", (str(folder / "mine.yaml"), "run.name=b c", "run.num_workers=5", "data.root=/d#1"))
    assert config.data.root == "/d#1" and "'\"'\"'run.name=b c'\"'\"'" in script


def test_variables_in_paths_are_those_of_the_submission(cluster, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/a b")
    assert submit("run.name=a data.root=$SCRATCH/x$$1\nrun.name=b\n") == 0
    rows = [shlex.split(shlex.split(line)[0]) for line in cluster["scripts"][0].splitlines() if line.startswith("    'train ")]
    monkeypatch.delenv("SCRATCH")
    _, config = resolve_run(rows[0][0], tuple(rows[0][1:]))
    assert config.data.root == "/scratch/a b/x$1" and rows[1][2:] == ["run.name=b"]


def finish(name: str) -> None:
    """Makes the run folder of a finished run."""
    run, config = resolve_run("train", ("mine.yaml", f"run.name={name}"))
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(config))
    (run / "status.json").write_text('{"state": "finished", "step": 30}')


ROWS = "run.name=done\nrun.name=queued\nrun.name=failed\nrun.name=new\n"


def test_only_rows_with_something_to_do_are_submitted(cluster, capsys):
    finish("done")
    for name, job in (("queued", "5_1"), ("failed", "5_2")):
        add_job_record(Path("runs") / name, job=job, verb="train", backend="sbatch")
    cluster["queue"] = {"5_1": JobState("RUNNING", over=False)}
    assert submit(ROWS) == 2
    err = capsys.readouterr().err
    assert "line 2: queued is in the queue, as job 5_1 (RUNNING)" in err and "--failed" in err and not cluster["scripts"]
    assert submit(ROWS, "--failed") == 0
    captured = capsys.readouterr()
    assert "line 1: done is finished (30 steps), left out" in captured.err and "line 2: queued is in the queue" in captured.err
    script, = cluster["scripts"]
    assert "--array=0-1\n" in script and "run.name=failed" in script and "run.name=new" in script and "run.name=done" not in script


def test_an_array_with_nothing_left_to_do_submits_nothing(cluster, capsys):
    finish("done")
    assert submit("run.name=done") == 0 and "no row is left to submit" in capsys.readouterr().out and not cluster["scripts"]
    assert submit("run.name=done schedule.steps=99") == 0 and len(cluster["scripts"]) == 1, "more steps are something to do"


def test_the_script_of_a_dry_run_has_the_same_rows_and_limit(cluster, capsys):
    finish("done")
    before = sorted(Path(".").rglob("*"))
    assert submit(ROWS, "rows.txt%2", "--dry-run", "--failed") == 0
    out = capsys.readouterr().out
    assert "#SBATCH --array=0-2%2" in out and "run.name=done" not in out
    assert sorted(Path(".").rglob("*")) == sorted([*before, Path("rows.txt")])


def test_failed_is_for_arrays(cluster, capsys):
    assert cli.main(["train", "mine.yaml", "--on", "sbatch", "--failed"]) == 2 and "--failed is for the rows" in capsys.readouterr().err


def test_rows_with_equal_cores_name_none(cluster):
    Path("rows.txt").write_text("run.name=a\nrun.name=b\n")
    rows = read_rows("rows.txt", Job("train", ("mine.yaml",), Resources()))
    assert describe_cores(rows) == "3 cores for each process"
