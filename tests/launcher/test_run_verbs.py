"""The command lines of jobs, logs and cancel: options and arguments that do not exist are refused with a hint."""

import pytest

from launcher import cli, run_verbs


@pytest.mark.parametrize("arguments, message", [
    (["logs", "a", "--folow"], "logs: --folow: no such option (did you mean --follow?)"),
    (["logs", "a", "-f"], "logs: -f: no such option (did you mean --follow?)"),
    (["logs", "a", "-n", "many"], "logs: argument -n: invalid int value: 'many'"), (["logs", "a", "-n", "-3"], "-n -3: a number of lines"),
    (["logs", "a", "--json"], "logs: --json: no such option"), (["logs"], "logs needs a run"), (["cancel"], "cancel needs a run"),
    (["cancel", "a", "--gpus", "3"], "cancel: --gpus: no such option"), (["cancel", "a", "--all=1"], "did you mean the names of the runs?"),
    (["jobs", "--jsn"], "jobs: --jsn: no such option (did you mean --json?)"), (["jobs", "a", "b"], "jobs takes one folder, not a and b"),
    (["jobs", "a", "--folder", "b"], "jobs takes one folder, not a and b"), (["jobs", "--watch", "--json"], "exclude each other"),
    (["jobs", "--follow"], "jobs: --follow: no such option")])
def test_what_a_verb_does_not_have_is_refused_with_a_hint(arguments, message, capsys):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err and captured.out == ""


def test_options_may_stand_anywhere(monkeypatch):
    seen = []
    monkeypatch.setitem(run_verbs.RUN_VERBS, "logs", lambda args: seen.append((args.names, args.follow, args.n)) or 0)
    for arguments in (["a", "--follow", "b", "-n", "5"], ["--follow", "-n5", "a", "b"], ["-n=5", "a", "--follow", "b"]):
        assert cli.main(["logs", *arguments]) == 0
    assert seen == [(["a", "b"], True, 5)] * 3


@pytest.mark.parametrize("verb", ["jobs", "logs", "cancel"])
def test_ctrl_c_ends_with_one_line(verb, monkeypatch, capsys):
    def interrupt(_args):
        raise KeyboardInterrupt
    monkeypatch.setitem(run_verbs.RUN_VERBS, verb, interrupt)
    assert cli.main([verb, "a"]) == 130 and capsys.readouterr().err == "interrupted\n"
