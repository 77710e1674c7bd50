"""The command line of the detector: overrides in any position, unknown arguments, old forms, and texts."""

import subprocess
import sys

import pytest
from conftest import REPO

import detector
from detector.__main__ import main
from detector.cli import SINGLE, build_parser, parse
from detector.config.aliases import PRINTED_NOTES
from detector.config.fields import AUTO
from detector.config.options import all_options


@pytest.mark.parametrize("command, overrides", [
    ("train c", []),
    ("train c a.b=1 c.d=2", ["a.b=1", "c.d=2"]),
    ("check c --quick a.b=1", ["a.b=1"]),
    ("check c a.b=1 --quick c.d=2 --json e.f=-3", ["a.b=1", "c.d=2", "e.f=-3"]),
    ("evaluate r --time a.b=1", ["a.b=1"]),
    ("view c --out page.html a.b=1", ["a.b=1"]),
    ("anchors c --out page.html a.b=1", ["a.b=1"]),
    ("view anchors c --out page.html a.b=1", ["a.b=1"])])
def test_overrides_may_stand_before_and_behind_flags(command, overrides):
    assert parse(command.split()).overrides == overrides


@pytest.mark.parametrize("command, unknown", [
    ("check c --quick --loud", "--loud"), ("check c --quick --loud=1 a=1", "--loud=1"), ("check c --quick seed", "seed"),
    ("score a b --metric voc c=1", "c=1")])
def test_unknown_arguments_are_refused(command, unknown, capsys):
    with pytest.raises(SystemExit) as end:
        parse(command.split())
    assert end.value.code == 2 and capsys.readouterr().err.endswith(f"unrecognized arguments: {unknown}\n")


@pytest.mark.parametrize("command, answer", [
    ("train c --lr=0.1", "--lr=0.1: write optim.lr=0.1"), ("train c --resume", "--resume: nothing needs to be set; the same command"),
    ("train c --epochs=3 --imgsz=320", "--epochs=3: write schedule.epochs=3; --imgsz=320: set augment.min_size=[320]")])
def test_flags_of_other_tools_are_answered_with_the_option(command, answer, capsys):
    with pytest.raises(SystemExit):
        parse(command.split())
    assert answer in capsys.readouterr().err


def test_a_missing_config_is_the_only_mistake_that_is_named(capsys):
    with pytest.raises(SystemExit):
        parse(["train"])
    assert capsys.readouterr().err.endswith("required: config\n")


def test_view_anchors_is_the_verb_anchors_and_says_so_once(capsys, monkeypatch):
    monkeypatch.setenv(PRINTED_NOTES, "")
    for _ in range(2):
        args = parse("view anchors custom/bccd data.root=/data --out page.html".split())
        assert (args.verb, args.config, args.overrides, args.out) == ("anchors", "custom/bccd", ["data.root=/data"], "page.html")
    assert capsys.readouterr().err == "note: view anchors is now called anchors\n"
    for command in ("view anchors", "view anchors data.root=/data"):
        with pytest.raises(SystemExit):
            parse(command.split())
        assert "view anchors: a config is missing" in capsys.readouterr().err


def test_every_verb_is_either_collective_or_has_a_function():
    verbs = build_parser()._subparsers._group_actions[0].choices
    assert {*SINGLE, "train"} == set(verbs)


def test_the_version_is_that_of_the_package(capsys):
    for command in (["-m", "detector"], ["-m", "launcher.cli"]):
        done = subprocess.run([sys.executable, *command, "--version"], cwd=REPO, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"fleet-rcnn {detector.__version__}\n"), done.stderr


def test_options_prints_every_option_with_default_description_and_allowed_values(capsys):
    assert main(["options"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(all_options())
    for (path, field), first, second in zip(all_options().items(), lines[::2], lines[1::2]):
        is_auto = field.metadata["auto"] and field.default in (AUTO, (AUTO,))
        assert first == f"{path} = {'auto' if is_auto else repr(field.default)}"
        assert second.startswith(f"    {field.metadata['description']}")
    text = "\n".join(lines)
    assert "early stopping follow [" not in text and "[auto | cpu | cuda]" in text and "[>= 0, <= 1]" in text and "[>= 1]" in text
