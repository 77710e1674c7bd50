"""Problems keep every message whole: paths are not split, and long lists are cut in the text only."""

import json

import pytest

from detector.checks.problems import MAX_EXAMPLES, NO_PROBLEM, CheckReport, Problem, parse_problem, problems_from_error
from detector.errors import MAX_MISTAKES, BadInput, combine_mistakes


@pytest.mark.parametrize("text, cause, remedy", [
    ("no such annotation file: St. Gallen/Annotations/a.xml", "no such annotation file: St. Gallen/Annotations/a.xml", ""),
    ("no such annotation file: d/a.xml. Set data.root", "no such annotation file: d/a.xml", "Set data.root"),
    ("cannot read St. Gallen/a: no. Let this user read it", "cannot read St. Gallen/a: no", "Let this user read it"),
    ("a.png is 3x4: fix it, or go", "a.png is 3x4", "Fix it, or go"),
    ("image 3: the file lacks it; add it. It is needed", "image 3: the file lacks it", "Add it. It is needed"),
    ("data.format='x': one of a, b", "data.format='x': one of a, b", ""),
    ("a: b: settings.json", "a: b: settings.json", ""), ("", "", "")])
def test_a_remedy_begins_with_a_verb_and_a_path_stays_whole(text, cause, remedy):
    assert parse_problem(text, "s") == Problem("s", cause, remedy)
    assert parse_problem(f"s: {text}", "s") == Problem("s", cause, remedy)


def test_a_problem_without_a_remedy_has_no_full_stop():
    assert str(Problem("a", "b", "")) == "a: b" and str(Problem("a", "b", "Fix it")) == "a: b. Fix it"


def test_all_mistakes_of_an_error_are_problems_and_its_message_lists_the_first():
    mistakes = [f"{index}.xml is no XML. Fix it" for index in range(MAX_MISTAKES + 2)]
    error = combine_mistakes("voc train", mistakes)
    assert str(error).endswith("  and 2 more") and str(error).count("  - ") == MAX_MISTAKES
    problems = problems_from_error(error, "data.train")
    assert [problem.cause for problem in problems] == [f"{index}.xml is no XML" for index in range(MAX_MISTAKES + 2)]
    assert {problem.subject for problem in problems} == {"voc train"}


def test_an_error_of_one_mistake_has_its_own_subject():
    assert problems_from_error(combine_mistakes("a.json", ["no"]), "data.train") == [Problem("a.json", "no", "")]
    assert problems_from_error(BadInput("no"), "data.train") == [Problem("data.train", "no", "")]
    assert problems_from_error(BadInput("needs:\n  - a\n  - b"), "data.root") == [Problem("data.root", "needs:\n  - a\n  - b", "")]


def test_the_text_shows_the_first_problems_of_a_subject_and_json_all():
    many = [Problem("voc train", f"no such file: {index}", "") for index in range(MAX_EXAMPLES + 5)]
    report = CheckReport(problems=[*many, Problem("data.val", "no", "")])
    lines = report.verdict().splitlines()
    assert len(lines) == MAX_EXAMPLES + 3 and lines[-1] == f"{MAX_EXAMPLES + 6} problems"
    assert lines[MAX_EXAMPLES] == "problem: voc train: 5 more; --json lists all"
    assert len(json.loads(report.as_json())["problems"]) == MAX_EXAMPLES + 6
    assert CheckReport().verdict() == NO_PROBLEM and CheckReport(problems=many[:1]).verdict().endswith("\n1 problem")


def test_json_holds_names_in_any_encoding():
    text = CheckReport(problems=[Problem("a", "stra\udcdfe", "")]).as_json()
    assert text.isascii() and json.loads(text)["problems"][0]["why"] == "stra\udcdfe"
