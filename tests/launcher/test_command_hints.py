"""Options of sbatch and mistyped options of the launcher are refused on every backend, with what to write instead."""

import pytest

from detector.errors import BAD_INPUT
from launcher import cli
from launcher.backends import BACKENDS


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("option, remedy", [
    ("--gpu=8", "did you mean --gpus?"), ("--node=2", "did you mean --nodes?"), ("--partion=high", "did you mean --partition?"),
    ("--qos=long", "--sbatch=--qos=long"), ("--time=10", "--sbatch=--time=10, or --hours N"), ("--mem=20G", "or --memory-gib N"),
    ("--mem 20G", "--sbatch=--mem=20G"), ("-p high", "write --partition high"), ("-w node2", "--sbatch=--nodelist=node2"),
    ("--exclusive", "--sbatch=--exclusive"), ("--ntasks=4", "Write --processes N"), ("--output=x.log", "`logs` reads the log"),
    ("-c 4", "or --cores N"), ("--gres=gpu:a100:2", "or --gpus N")])
def test_an_option_of_sbatch_is_answered_with_what_to_write(option, remedy, backend, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("data: {root: /x}\n")
    assert cli.main(["train", "mine.yaml", "--on", backend, *option.split()]) == BAD_INPUT
    error = capsys.readouterr().err
    assert "no such option" in error and remedy in error and not (tmp_path / "runs").exists()


def test_evaluate_refuses_a_mistyped_option_before_it_is_queued(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path), "--checkpont", "last", "--on", "slurm"]) == BAD_INPUT
    assert "did you mean --checkpoint?" in capsys.readouterr().err
