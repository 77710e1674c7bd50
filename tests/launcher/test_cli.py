"""The command line: help, mistakes reported once before anything starts, and the job that a command line becomes."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from detector.config.aliases import PRINTED_NOTES
from launcher import check, cli, slurm_commands
from launcher.backends import BACKENDS, local
from launcher.job import Job, Resources
from launcher.run_info import add_job_record

REPO = Path(__file__).resolve().parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "launcher.cli", *arguments], cwd=REPO, capture_output=True, text=True)


@pytest.fixture
def started(monkeypatch) -> list[Job]:
    """The jobs that would have been started on this machine."""
    jobs = []
    for module in (cli, check, local):
        monkeypatch.setattr(module, "run_local", lambda job, on_poll=None: jobs.append(job) or 0)
    return jobs


@pytest.fixture
def config(tmp_path, monkeypatch) -> str:
    """A config whose data set does not exist, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("data: {root: /nowhere}\n")
    return "mine.yaml"


def test_help_names_every_verb():
    done = command("--help")
    assert done.returncode == 0 and done.stderr == ""
    for verb in cli.VERBS:
        assert f"\n  {verb} " in done.stdout
    assert "75 stopped early" in done.stdout


def test_each_verb_has_help_of_its_own(monkeypatch, capfd):
    """Printed once, for any number of GPUs."""
    monkeypatch.setattr(local, "count_gpus", lambda: 2)
    monkeypatch.chdir(REPO)
    for verb in cli.VERBS:
        assert cli.main([verb, "--help"]) == 0
        out = capfd.readouterr().out
        assert out.count("usage: ") == 1 and f"usage: fleet-rcnn {verb} " in out, verb
        launches = verb in (*cli.LAUNCHER_VERBS, "reproduce")
        assert ("  --on {local,torchrun,slurm,sbatch}" in out and "  --processes N" in out) == launches, verb


@pytest.mark.parametrize("arguments, usage", [
    (["help"], "fleet-rcnn VERB ..."), (["help", "train"], "fleet-rcnn train CONFIG"), (["help", "jobs"], "fleet-rcnn jobs [FOLDER]"),
    (["help", "reproduce"], "fleet-rcnn reproduce ROW"), (["help", "--help"], "fleet-rcnn VERB ...")])
def test_help_is_also_a_verb(arguments, usage, capsys):
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"usage: {usage}") and captured.err == ""


@pytest.mark.parametrize("arguments, messages", [
    (["help", "trian"], ["no such verb: trian (did you mean `fleet-rcnn train`?)"]),
    (["trian"], ["no such verb: trian (did you mean `fleet-rcnn train`?)", "train, check"]), ([], ["VERB"]),
    (["--processes", "two", "train", "x"], ["processes='two': a whole number expected"])])
def test_an_invalid_command_line_is_status_2(arguments, messages):
    done = command(*arguments)
    assert done.returncode == 2 and all(message in done.stderr for message in messages) and done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb, answer", [
    ("val", "(did you mean `fleet-rcnn evaluate`?)"), ("detect", "(did you mean `fleet-rcnn predict`?)"),
    ("version", "(did you mean `fleet-rcnn --version`?)"), ("jbos", "(did you mean `fleet-rcnn jobs`?)"),
    ("xyzzy", "no such verb: xyzzy. Verbs")])
def test_verbs_of_other_tools_and_typos_get_an_answer(verb, answer, config, started, capsys):
    assert cli.main([verb, config]) == 2 and started == []
    err = capsys.readouterr().err
    assert err.startswith("error: no such verb: ") and answer in err and err.count("\n") == 1


@pytest.mark.parametrize("options, answer", [
    (["--resume"], "--resume: no such option; nothing needs to be set"),
    (["--lr", "0.01"], "write optim.lr=0.01"), (["--lr=0.01"], "write optim.lr=0.01"), (["--batch-size", "8"], "write batch.size=8"),
    (["--batch_size", "8"], "write batch.size=8"), (["--epochs", "3"], "write schedule.epochs=3"), (["--epochs"], "write schedule.epochs="),
    (["--optim.lr", "0.01"], "write optim.lr=0.01"), (["--optim.rate", "0.01"], "write optim.lr=0.01"), (["--amp"], "run.precision=bf16"),
    (["--config-file", "a.yaml"], "write the config file without an option: fleet-rcnn train a.yaml"),
    (["--num-gpus", "8"], "write --gpus"), (["--gpu", "8"], "(did you mean --gpus?)"), (["--dry_run"], "(did you mean --dry-run?)"),
    (["--xyzzy"], "`fleet-rcnn options` lists them"), (["-v"], "-v: no such option")])
def test_options_of_other_tools_are_answered_with_what_to_write(options, answer, config, started, capsys):
    assert cli.main(["train", config, *options]) == 2 and started == []
    err = capsys.readouterr().err
    assert err.startswith("error: train: ") and answer in err and err.count("\n") == 1


def test_all_unknown_options_are_reported_at_once_and_before_anything_else(config, started, capsys):
    assert cli.main(["train", "--lr", "0.01", "--momentum", "0.9", "none.yaml"]) == 2 and started == []
    err = capsys.readouterr().err
    assert "2 mistakes" in err and "write optim.lr=0.01" in err and "write optim.momentum=0.9" in err and "none.yaml" not in err


@pytest.mark.parametrize("arguments", [
    ["evaluate", "runs/a", "--checkpoint", "last", "--report"], ["evaluate", "--weights", "a.pth", "--recipe", "custom/bccd"],
    ["evaluate", "runs/a", "--time"], ["check", "mine.yaml", "--json", "--quick"]])
def test_options_of_the_detector_are_passed_to_it(arguments, config, started, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(check, "print_json_report", lambda job, problems, notes: seen.append(job) or 0)
    assert cli.main(arguments) == 0
    job = (started + seen)[0]
    assert job.arguments[:len(arguments) - 1] == tuple(arguments[1:])


@pytest.mark.parametrize("verb", ["train", "check"])
@pytest.mark.parametrize("arguments, messages", [
    (["none.yaml"], ["no such config file: none.yaml"]), (["--", "-n.yaml"], ["no such config file: ./-n.yaml"]),
    (["mine.yaml", "optim.rat=1"], ["optim.rat: no such option (did you mean optim.lr?)"]),
    (["mine.yaml", "optim.lr=fast", "model.roi_pooling=max", "seed"],  # all mistakes at once
     ["3 mistakes", "optim.lr='fast': a number expected", "model.roi_pooling='max': one of align, ",
      "overrides are key=value"]),
    (["mine.yaml", "--processes", "-1"], ["processes='-1': at least 0"]),
    (["mine.yaml", "--hours", "0", "--gpus", "x"], ["2 mistakes", "hours='0': at least 0.01", "gpus='x'"]),
    (["mine.yaml", "--cluster", "none.yaml"], ["--cluster none.yaml: no such file"])])
def test_bad_input_is_one_error_and_nothing_starts(verb, arguments, messages, config, started, tmp_path, capsys):
    before = set(tmp_path.iterdir())
    assert cli.main([verb, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("error:") == 1 and err.startswith("error: ")
    assert all(message in err for message in messages)
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
    (["predict", "runs/a", "--", "-b.jpg"], Job("predict", ("runs/a", "./-b.jpg"))),
    (["train", "--", "mine.yaml", "seed=1"], Job("train", ("mine.yaml", "seed=1"), Resources(2))),
    (["check", "--quick", "--", "mine.yaml"], Job("check", ("--quick", "mine.yaml"), Resources(1))),
    (["--", "predict", "runs/a", "--on"], Job("predict", ("runs/a", "./--on"))),
    (["options"], Job("options", ()))])
def test_the_job_of_a_command_line(arguments, job, config, started, monkeypatch):
    monkeypatch.setattr(local, "count_gpus", lambda: 2)
    assert cli.main(arguments) == 0
    assert started == [job]


@pytest.mark.parametrize("arguments", [
    ["--processes", "2", "predict", "runs/a", "b.jpg"], ["predict", "runs/a", "b.jpg", "--on", "slurm"],
    ["predict", "runs/a", "b.jpg", "--on=slurm"], ["export", "runs/a", "--gpus", "2"], ["options", "--dry-run"]])
def test_only_training_and_evaluation_run_in_several_processes(arguments, config, started, capsys):
    assert cli.main(arguments) == 2 and started == []
    verb = next(argument for argument in arguments if argument in cli.VERBS)
    assert f"error: {verb} runs in one process on this machine: leave out --on, " in capsys.readouterr().err


@pytest.mark.parametrize("options, message", [
    (["--nodes", "2"], "--nodes 2: several nodes need --on slurm or --on sbatch"),
    (["--nodes", "2", "--on", "torchrun"], "--nodes 2: several nodes need --on slurm or --on sbatch"),
    (["--array", "rows.txt"], "--array is for train --on sbatch"),
    (["--array", "rows.txt", "--on", "slurm"], "--array is for train --on sbatch")])
def test_options_that_a_backend_cannot_serve_are_refused(options, message, config, started, capsys):
    assert cli.main(["train", config, *options]) == 2 and started == []
    assert message in capsys.readouterr().err


def test_here_still_means_local_and_one_note_says_so(config, started, monkeypatch, capsys):
    monkeypatch.setenv(PRINTED_NOTES, "")
    monkeypatch.setattr(local, "count_gpus", lambda: 1)
    for _ in range(2):
        assert cli.main(["train", config, "--on", "here"]) == 0
    assert capsys.readouterr().err == "note: --on here is now called --on local\n"
    assert cli.main(["train", config, "--on", "local"]) == 0
    assert capsys.readouterr().err == "" and started == [Job("train", (config,), Resources(1))] * 3


def test_the_status_of_the_job_is_the_status_of_the_command(config, monkeypatch):
    for status in (0, 1, 2, 75, 137):
        monkeypatch.setattr(local, "run_local", lambda job, on_poll, status=status: status)
        assert cli.main(["train", "mine.yaml"]) == status


@pytest.mark.parametrize("backend", ["local", "torchrun"])
def test_a_run_with_a_job_in_the_queue_is_not_trained_on_this_machine(backend, config, started, tmp_path, monkeypatch, capsys):
    add_job_record(tmp_path / "runs" / "mine", job="7", verb="train", log="7.log")
    monkeypatch.setattr(local, "run_torchrun", lambda job: started.append(job) or 0)
    for state, status in (("RUNNING", 2), ("PENDING", 2), ("COMPLETED", 0), ("UNKNOWN", 0)):
        monkeypatch.setattr(slurm_commands, "job_record", lambda job, state=state: {"JobState": state})
        assert cli.main(["train", "mine.yaml", "--on", backend]) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(started) == 2 and len(lines) == 2 and "mine is in the queue already, as job 7 (RUNNING)" in lines[0]


def test_more_processes_than_gpus_are_refused(config, started, monkeypatch, capsys):
    monkeypatch.setattr(local, "count_gpus", lambda: 2)
    assert cli.main(["train", "mine.yaml", "--processes", "3"]) == 2
    assert "more processes than GPUs" in capsys.readouterr().err and started == []
    assert cli.main(["train", "mine.yaml", "--processes", "3", "run.device=cpu"]) == 0 and len(started) == 1


def test_gpus_of_a_machine_without_one_are_refused_with_a_remedy_that_works(config, started, monkeypatch, capsys):
    monkeypatch.setattr(local, "count_gpus", lambda: 0)
    for backend in ("local", "torchrun"):
        assert cli.main(["train", "mine.yaml", "--gpus", "2", "--on", backend]) == 2
    assert started == [] and "start processes on the CPU with --processes 2 run.device=cpu" in capsys.readouterr().err
    assert cli.main(["train", "mine.yaml", "--processes", "2", "run.device=cpu"]) == 0 and len(started) == 1


def test_dry_run_prints_the_command_and_starts_nothing(config, started, monkeypatch, capsys):
    monkeypatch.setattr(local, "count_gpus", lambda: 2)
    assert cli.main(["train", config, "--dry-run"]) == 0
    assert capsys.readouterr().out == f"{sys.executable} -m detector train mine.yaml\n"
    assert cli.main(["train", config, "--dry-run", "--on", "torchrun"]) == 0
    out = capsys.readouterr().out
    assert "torch.distributed.run --standalone --nproc-per-node=2 " in out and out.endswith("-m detector train mine.yaml\n")
    assert started == [] and not Path("runs").exists()


def test_no_backend_loads_torch_or_submitit_before_it_is_used():
    code = ("import sys, launcher.cli\nfrom launcher.backends import BACKENDS, load_backend\n"
            "for name in BACKENDS: load_backend(name)\nsys.exit({'torch', 'submitit'} & set(sys.modules) != set())")
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0
    assert set(BACKENDS) == {"local", "torchrun", "slurm", "sbatch"}


def test_a_file_that_cannot_be_read_is_one_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("launcher.cli.run_verb", lambda *_: (_ for _ in ()).throw(
        PermissionError(errno.EACCES, "Permission denied", "runs/a/config.yaml")))
    assert cli.main(["train", "custom/bccd"]) == 2
    assert capsys.readouterr().err.startswith("error: runs/a/config.yaml: Permission denied. Check its permissions")


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-"])
@pytest.mark.parametrize("verb", ["options", "score --help"])
def test_closed_streams_end_no_command(redirection, verb):
    line = f"{sys.executable} -m launcher.cli {verb} {redirection}"
    process = subprocess.run(line, cwd=REPO, shell=True, stderr=subprocess.PIPE, text=True)
    assert (process.returncode, process.stderr) == (0, "")


def test_a_working_folder_that_was_deleted_is_one_error(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.yaml").write_text(f"data: {{root: {tmp_path}}}\n")
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    (tmp_path / "deleted").rmdir()
    assert cli.main(["train", str(tmp_path / "mine.yaml")]) == 2
    assert capsys.readouterr().err.startswith("error: the working folder was deleted")
