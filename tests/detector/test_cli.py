"""The command line of the detector: overrides in any position, unknown arguments, old forms, and texts."""

import subprocess
import sys

import pytest
from conftest import REPO

import detector
from detector.__main__ import main
from detector.arguments.verbs import VERBS, parse
from detector.cli import SINGLE
from detector.config.aliases import PRINTED_NOTES


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


@pytest.mark.parametrize("command, message", [
    ("check c --quick --loud", "check: --loud: no such option; options of a config are written key=value"),
    ("check c --quick --quik", "check: --quik: no such option (did you mean --quick?)"),
    ("score a b --metric voc c=1", "score: c=1: no such argument"),
    ("predict r s --conf 0.3", "--conf: no such option (did you mean --score?)"),
    ("predict --source=a.jpg r", "write SOURCE without an option"),
    ("predict r s --batch-size 8", "(did you mean --batch?)"),
    ("export r --imgsz 640", "(did you mean --padded-size?)"),
    ("train --config-file c.yaml", "write the config file without an option: fleet-rcnn train c.yaml"),
    ("train c --lr=0.1", "--lr=0.1: no such option; write optim.lr=0.1"),
    ("train c --lr 0.1", "--lr: no such option; write optim.lr=0.1"),
    ("evaluate r --batch-size 8", "write evaluate.batch_size=8"), ("evaluate r --conf", "write evaluate.score_thresh=..."),
    ("train c --resume", "--resume: no such option; nothing needs to be set; the same command"),
    ("train", "train: the following arguments are required: CONFIG"),
    ("predict r s --score high", "predict: argument --score: invalid float value: 'high'"),
    ("val r", "(did you mean `fleet-rcnn evaluate`?)"),
    ("trian c", "(did you mean `fleet-rcnn train`?)"),
    ("score a b --wrong 1", "--wrong: no such option. Options: --help, --metric"), ("", "a VERB is missing")])
def test_a_mistake_is_one_line_with_what_to_write(command, message, capsys):
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.startswith("error: ") and captured.err.count("\n") == 1 and captured.out == ""


def test_all_unknown_options_are_reported_at_once(capsys):
    assert main("train c --epochs=3 --imgsz=320".split()) == 2
    err = capsys.readouterr().err
    assert "write schedule.epochs=3" in err and "set augment.min_size=[320]" in err


def test_view_anchors_is_the_verb_anchors_and_says_so_once(capsys, monkeypatch):
    monkeypatch.setenv(PRINTED_NOTES, "")
    for _ in range(2):
        args = parse("view anchors custom/bccd data.root=/data --out page.html".split())
        assert (args.verb, args.config, args.overrides, args.out) == ("anchors", "custom/bccd", ["data.root=/data"], "page.html")
    assert capsys.readouterr().err == "note: view anchors is now called anchors\n"
    for command in ("view anchors", "view anchors data.root=/data"):
        assert main(command.split()) == 2
        assert "view anchors: a config is missing" in capsys.readouterr().err


@pytest.mark.parametrize("command, usage", [("help", "fleet-rcnn VERB ..."), ("help train", "fleet-rcnn train CONFIG")])
def test_help_is_also_a_verb(command, usage, capsys):
    with pytest.raises(SystemExit) as end:
        main(command.split())
    assert not end.value.code and capsys.readouterr().out.startswith(f"usage: {usage}")


def test_every_verb_is_either_collective_or_has_a_function():
    assert {*SINGLE, "train"} == set(VERBS)


def test_the_version_is_that_of_the_package(capsys):
    for command in (["-m", "detector"], ["-m", "launcher.cli"]):
        done = subprocess.run([sys.executable, *command, "--version"], cwd=REPO, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"fleet-rcnn {detector.__version__}\n"), done.stderr
