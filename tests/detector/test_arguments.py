"""The help of every verb: each argument is explained with default and example, within the width of the terminal."""

import argparse
import subprocess
import sys

import pytest
from conftest import REPO

from detector.arguments.verb import parser_of, shell_lines
from detector.arguments.verbs import parse
from detector.errors import BadInput
from launcher.arguments import GROUPS, VERBS


@pytest.fixture(params=VERBS)
def verb(request) -> str:
    return request.param


def help_of(verb: str, columns: int, monkeypatch) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    return parser_of(verb, VERBS[verb]).format_help()


def test_every_argument_is_explained_with_default_and_example(verb):
    for action in parser_of(verb, VERBS[verb])._actions:
        names = "/".join(action.option_strings) or action.dest
        assert action.help, names
        is_switch = action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction)
        if not is_switch:
            optional = action.option_strings and not action.required
            assert "default" in action.help or not optional, f"{names}: no default"
            assert action.choices or action.metavar == "N" or "such as" in action.help or action.required, f"{names}: no example"


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_help_fits_the_terminal_and_breaks_no_word(verb, columns, monkeypatch):
    lines = help_of(verb, columns, monkeypatch).splitlines()
    assert max(map(len, lines)) <= columns
    words = " ".join(lines).split()
    for action in parser_of(verb, VERBS[verb])._actions:
        assert all(word in words for word in (action.help % vars(action)).split()), action.dest


@pytest.mark.parametrize("columns", [60, 140])
def test_the_list_of_all_verbs_fits_the_terminal(columns):
    done = subprocess.run([sys.executable, "-m", "launcher.cli", "--help"], cwd=REPO, text=True, capture_output=True,
                          env={"COLUMNS": str(columns), "PYTHONPATH": str(REPO)})
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= columns
    assert all(f"{title}:\n" in done.stdout for title in GROUPS)


def test_examples_parse_and_each_verb_has_one(verb):
    from launcher.cli import attach_option_values
    assert VERBS[verb].examples
    for example in VERBS[verb].examples:
        assert parse(attach_option_values(example.partition(" > ")[0].split()), GROUPS).verb == verb


def test_a_long_example_is_one_command_in_several_lines(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    command = "fleet-rcnn " + " ".join(f"option{number}=value" for number in range(9))
    lines = shell_lines(command).splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 60
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert " ".join(line.removesuffix(" \\").strip() for line in lines) == command


@pytest.mark.parametrize("arguments, run, source", [
    (["coco", "--", "-x.jpg"], "coco", "./-x.jpg"), (["--", "coco", "-x.jpg"], "coco", "./-x.jpg"),
    (["coco", "--score", "0.3", "--", "--help"], "coco", "./--help"), (["coco", "--", "--"], "coco", "./--"),
    (["coco", "a.jpg", "--"], "coco", "a.jpg"), (["--", "-run", "-1.jpg"], "./-run", "./-1.jpg"),
    (["coco", "-"], "coco", "-")])
def test_all_arguments_behind_two_dashes_are_positional(arguments, run, source):
    args = parse(["predict", *arguments])
    assert (args.run, args.source) == (run, source)


def test_options_before_two_dashes_are_still_checked():
    with pytest.raises(BadInput, match="predict: -x: no such option"):
        parse(["predict", "coco", "-x", "--", "-y.jpg"])
    with pytest.raises(BadInput, match="the following arguments are required: SOURCE"):
        parse(["predict", "coco", "--"])


def test_help_and_the_mistakes_of_a_command_line_need_no_torch():
    for arguments in (["--help"], ["train", "--help"], ["predict", "a", "b", "--wrong"], ["evaluate", "a", "--lr", "1"]):
        code = ("import sys\nfrom launcher.cli import main\nmain(sys.argv[1:])\n"
                "sys.exit('torch' in sys.modules)")
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=REPO, capture_output=True, text=True)
        assert done.returncode == 0, (arguments, done.stderr)
