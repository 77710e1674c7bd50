"""Configs and runs by name, and what is suggested for a name that does not exist."""

import pytest

from detector import BadInput, load_config
from detector.arguments.verbs import parse
from detector.config.load import to_yaml
from detector.config.names import config_names, find_config, named_run, run_names


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The current folder, with the runs cells and exp1/a; runs/empty is no run."""
    monkeypatch.chdir(tmp_path)
    for name in ("cells", "exp1/a"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(to_yaml(load_config("shapes/demo", [f"run.name={name}", "seed=7"])))
    (tmp_path / "runs" / "empty").mkdir()
    return tmp_path


def test_names_of_runs_and_none_without_runs(runs, tmp_path, monkeypatch):
    assert run_names() == ["cells", "exp1/a"]
    monkeypatch.chdir(tmp_path / "runs" / "empty")
    assert run_names() == [] and named_run("cells") == "cells"


@pytest.mark.parametrize("name, folder", [
    ("cells", "runs/cells"), ("exp1/a", "runs/exp1/a"), ("runs/cells", "runs/cells"), ("none", "none"), ("", ""), (".", ".")])
def test_a_run_is_named_by_folder_or_name(name, folder, runs):
    assert named_run(name) == folder


def test_a_folder_that_is_there_comes_before_the_name_of_a_run(runs):
    (runs / "cells").mkdir()
    assert named_run("cells") == "cells"


@pytest.mark.parametrize("line, folders", [
    ("evaluate cells seed=1", {"run": "runs/cells"}),
    ("predict cells a.jpg", {"run": "runs/cells"}), ("export exp1/a", {"run": "runs/exp1/a"}),
    ("compare cells runs/exp1/a", {"run_a": "runs/cells", "run_b": "runs/exp1/a"}),
    ("evaluate --weights a.pth --recipe b", {"run": ""})])
def test_every_verb_takes_the_name_of_a_run(line, folders, runs):
    args = parse(line.split())
    assert {dest: getattr(args, dest) for dest in folders} == folders


@pytest.mark.parametrize("name", ["cells", "runs/cells", "runs/cells/"])
def test_a_run_is_a_config_so_that_train_resumes_it(name, runs):
    config = load_config(name, ["optim.lr=0.25"])
    assert (config.run.folder, config.run.name, config.seed, config.optim.lr) == ("runs", "cells", 7, 0.25)


def test_a_run_whose_config_names_another_folder_says_what_to_type(runs, monkeypatch):
    (runs / "runs" / "cells").rename(runs / "moved")
    with pytest.raises(BadInput, match="moved holds the config of a run in runs/cells") as caught:
        load_config("moved")
    remedy = "moved/config.yaml run.folder=. run.name=moved"
    assert remedy in str(caught.value)
    path, *overrides = remedy.split()
    config = load_config(path, overrides)
    assert (config.run.folder, config.run.name) == (".", "moved")


@pytest.mark.parametrize("name, similar", [
    ("bccd", "custom/bccd"),
    ("bcd", "custom/bccd"), ("demo", "shapes/demo"), ("custom/bcdd", "custom/bccd"), ("cels", "cells"), ("a", "exp1/a")])
def test_a_name_that_is_no_config_is_answered_with_a_similar_one(name, similar, runs):
    with pytest.raises(BadInput, match=rf"no such config file: {name} \(did you mean {similar}\?\)"):
        find_config(name)


def test_a_name_like_no_other_is_answered_with_the_list(runs):
    with pytest.raises(BadInput, match="no such config file: qqqqqqq. Give a YAML file, or one of: ") as caught:
        find_config("qqqqqqq")
    assert all(name in str(caught.value) for name in config_names())


def test_a_run_that_is_not_there_is_answered_with_a_similar_one(runs):
    from detector.inference.load_detector import find_checkpoint
    for name in ("cels", "runs/cels"):
        with pytest.raises(BadInput, match=rf"no such run folder: {name} \(did you mean cells\?\)"):
            find_checkpoint(name)
    with pytest.raises(BadInput, match="no such run folder: qqqq. Name the folder"):
        find_checkpoint("qqqq")
