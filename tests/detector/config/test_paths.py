"""Paths in options: expanded as a shell does it, written so that they are read back, mistakes named."""

import os
from pathlib import Path

import pytest
import yaml

from detector.config.load import load_config, run_folder, to_yaml
from detector.config.names import find_config
from detector.config.paths import expand_path
from detector.errors import BadInput

ENVIRON = {"SCRATCH": "/scratch/me", "EMPTY": ""}


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.delenv("NOWHERE", raising=False)
    return tmp_path / "home"


@pytest.mark.parametrize("text, path", [
    ("$SCRATCH/runs", "/scratch/me/runs"), ("${SCRATCH}2/runs", "/scratch/me2/runs"), ("/x/$SCRATCH", "/x//scratch/me"),
    ("${NOWHERE:-/tmp/x}/runs", "/tmp/x/runs"), ("${SCRATCH:-/tmp/x}", "/scratch/me"), ("${EMPTY:-b}", "b"),
    ("$$SCRATCH/runs", "$SCRATCH/runs"), ("a$/b", "a$/b"), ("5$", "5$"), ("a/~/b", "a/~/b"), ("./~x", "./~x"),
    ("", ""), ("runs", "runs"), ("{a}", "{a}")])
def test_a_path_is_expanded_as_a_shell_does_it(text, path):
    assert expand_path(text, ENVIRON) == path


def test_a_home_folder_is_expanded_at_the_start(home):
    assert expand_path("~/runs") == f"{home}/runs" and expand_path("~") == str(home)
    assert expand_path("~root/x") == os.path.expanduser("~root") + "/x"


@pytest.mark.parametrize("text, message", [
    ("$NOWHERE/runs", r"variable NOWHERE is not set. Write \$\$ for a dollar"), ("${EMPTY}/x", "variable EMPTY is empty"),
    ("$(date)/x", r"only \$NAME, \$\{NAME\} and \$\{NAME:-default\} are expanded"), ("${A+b}", "only "),
    ("~nobody-here/x", r"no home folder is known for ~nobody-here. Write ./~nobody-here for a folder of this name")])
def test_what_a_shell_would_not_find_is_an_error_with_a_remedy(text, message):
    with pytest.raises(ValueError, match=message):
        expand_path(text, ENVIRON)


def test_every_option_that_is_a_path_is_expanded_in_files_and_overrides(tmp_path, home):
    (tmp_path / "base.yaml").write_text("run: {folder: $SCRATCH/runs}\n")
    (tmp_path / "mine.yaml").write_text(f"base: ${{NOWHERE:-{tmp_path}}}/base.yaml\nmodel: {{weights: ~/w.pth}}\n"
                                        "data: {cache: $SCRATCH/cache, train: [$SCRATCH/a.json, b.json]}\n")
    config = load_config(str(tmp_path / "mine.yaml"), ["data.root=~/data", "data.images=$SCRATCH/images", "run.name=a/b"])
    assert run_folder(config) == Path("/scratch/me/runs/a/b") and config.model.weights == f"{home}/w.pth"
    assert (config.data.root, config.data.images) == (f"{home}/data", "/scratch/me/images")
    assert config.data.train == ("/scratch/me/a.json", "b.json") and config.data.cache == "/scratch/me/cache"
    assert config.data.val == ("val",)


def test_the_config_of_a_run_folder_is_read_back_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("run: {folder: $SCRATCH/$$x}\ndata: {root: /a$$b}\n")
    config = load_config(str(tmp_path / "mine.yaml"))
    assert config.run.folder == "/scratch/me/$x" and config.data.root == "/a$b"
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    monkeypatch.delenv("SCRATCH")
    assert load_config(str(tmp_path / "config.yaml")) == config
    assert yaml.safe_load(to_yaml(config))["data"]["val"] == ["val"]


def test_all_variables_that_are_not_set_are_reported_at_once(tmp_path):
    (tmp_path / "mine.yaml").write_text("run: {folder: $NOWHERE/runs}\n")
    with pytest.raises(BadInput) as error:
        load_config(str(tmp_path / "mine.yaml"), ["data.root=$NOWHERE/data"])
    assert "2 mistakes" in str(error.value) and "run.folder='$NOWHERE/runs': the environment variable NOWHERE" in str(error.value)
    assert "data.root='$NOWHERE/data'" in str(error.value)


def test_a_config_is_found_in_the_home_folder(home):
    home.mkdir()
    (home / "mine.yaml").write_text("")
    assert find_config("~/mine.yaml") == home / "mine.yaml"
