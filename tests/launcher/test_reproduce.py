"""reproduce: the trainings that it starts, their order, and when it stops."""

import pytest

from detector.errors import BadInput
from launcher import cli
from launcher.cli import main
from launcher.reproduce import reproduce, training_commands

ROW = "voc07-res101-g8-b16"


@pytest.mark.parametrize("arguments, expected", [
    ((1, 0, []), [[f"run.name={ROW}", "seed=0"]]),
    ((3, 0, []), [[f"run.name={ROW}", "seed=0"], [f"run.name={ROW}-seed1", "seed=1"], [f"run.name={ROW}-seed2", "seed=2"]]),
    ((1, 5, ["--on", "slurm", "--gpus", "1", "data.root=/d"]),
     [["--on", "slurm", "--gpus", "1", "data.root=/d", "schedule.steps=5", f"run.name={ROW}", "seed=0"]])])
def test_a_training_for_each_seed(arguments, expected):
    seeds, steps, rest = arguments
    assert training_commands(ROW, seeds, steps, rest) == [["train", f"tables/{ROW}", *arguments] for arguments in expected]


def test_they_run_one_after_another_and_the_row_is_shown_in_the_end():
    started = []
    assert reproduce([ROW, "--seeds", "2", "run.folder=/r", "--gpus", "1"], lambda command: started.append(command) or 0) == 0
    assert [command[0] for command in started] == ["train", "train", "tables"]
    assert started[0] == ["train", f"tables/{ROW}", "run.folder=/r", "--gpus", "1", f"run.name={ROW}", "seed=0"]
    assert started[-1] == ["tables", "--row", ROW, "--runs", "/r"]
    started.clear()
    assert reproduce([ROW], lambda command: started.append(command) or 0) == 0 and started[-1][-1] == "runs"
    started.clear()
    assert reproduce([ROW, "--dry-run", "--on", "sbatch"], lambda command: started.append(command) or 0) == 0
    assert [command[0] for command in started] == ["train"], "nothing has run"


@pytest.mark.parametrize("status", [1, 2, 75])
def test_a_training_that_does_not_end_well_ends_it(status):
    started = []
    assert reproduce([ROW, "--seeds", "3"], lambda command: started.append(command) or status) == status
    assert len(started) == 1


@pytest.mark.parametrize("row, seeds, steps, pattern", [
    ("voc08", 1, 0, f"no such row: voc08. Rows: .*{ROW}"), ("../shapes/demo", 1, 0, "no such row"), ("", 1, 0, "no such row"),
    (ROW, 0, 0, "--seeds 0: must be at least 1"), (ROW, -1, 0, "--seeds -1: must be at least 1"),
    (ROW, 1, -5, "--steps -5: must be at least 0")])
def test_an_unknown_row_and_numbers_out_of_range_are_refused(row, seeds, steps, pattern):
    with pytest.raises(BadInput, match=pattern):
        training_commands(row, seeds, steps, [])


@pytest.mark.parametrize("before", [["--on", "local"], ["--on=sbatch", "--hours", "2"], ["--sbatch", "--qos=long", "--seeds", "1"]])
def test_options_of_train_may_come_before_the_row(before, monkeypatch):
    started = []
    monkeypatch.setattr(cli, "run_command_line", lambda arguments: started.append(arguments) or 0)
    assert main(["reproduce", *before, ROW, "run.folder=/r"]) == 0
    (_, config, *rest), tables = started
    assert config == f"tables/{ROW}" and tables == ["tables", "--row", ROW, "--runs", "/r"]
    parsed = cli.launch_parser().parse_known_args(["train", *rest])[0]
    asked = cli.launch_parser().parse_known_args(cli.attach_option_values(["train", *before]))[0]
    assert parsed == asked


@pytest.mark.parametrize("option, remedy", [
    ("seed=5", "set --seeds"), ("SEED=5", "set --seeds"), ("run.name=x", "set run.folder"), ("name=x", "set run.folder")])
def test_an_option_that_differs_by_run_is_refused(option, remedy, capsys):
    assert main(["reproduce", ROW, option]) == 2
    err = capsys.readouterr().err
    assert f"error: {option}: the runs of a row" in err and remedy in err


def test_mistakes_are_reported_once_with_status_2(capsys):
    assert main(["reproduce", "voc08"]) == 2
    err = capsys.readouterr().err
    assert err.count("no such row") == 1 and "Traceback" not in err
    assert main(["reproduce", ROW, "optim.rat=1"]) == 2
    assert "did you mean optim.lr" in capsys.readouterr().err
