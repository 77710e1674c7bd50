"""What is typed, in whatever order."""

import pytest

from detector.cli import parse


@pytest.mark.parametrize("typed, name, words", [
    ("train c", "overrides", []),
    ("train c a.b=1 c.d=2", "overrides", ["a.b=1", "c.d=2"]),
    ("check c --quick a.b=1", "overrides", ["a.b=1"]),
    ("check c a.b=1 --quick c.d=2 --json e.f=-3", "overrides", ["a.b=1", "c.d=2", "e.f=-3"]),
    ("evaluate r --time a.b=1", "overrides", ["a.b=1"]),
    ("view anchors c --out page.html a.b=1", "words", ["c", "a.b=1"])])
def test_overrides_may_stand_before_and_behind_options(typed, name, words):
    assert getattr(parse(typed.split()), name) == words


@pytest.mark.parametrize("typed, strange", [
    ("check c --quick --loud", "--loud"), ("check c --quick --loud=1 a=1", "--loud=1"), ("check c --quick seed", "seed"),
    ("score a b --metric voc c=1", "c=1")])
def test_what_no_verb_knows_is_refused(typed, strange, capsys):
    with pytest.raises(SystemExit) as end:
        parse(typed.split())
    assert end.value.code == 2 and capsys.readouterr().err.endswith(f"unrecognized arguments: {strange}\n")


def test_a_missing_config_is_all_that_is_missing(capsys):
    with pytest.raises(SystemExit):
        parse(["train"])
    assert capsys.readouterr().err.endswith("required: config\n")
