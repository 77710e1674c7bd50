"""The result of a check: facts, notes and problems, for a person and for a script."""

import json
from dataclasses import dataclass, field

from detector.errors import BadInput

NO_PROBLEM = "no problem found"  # the last line of a report without problems


@dataclass(frozen=True)
class Problem:
    """A reason why the run would fail or be useless."""

    subject: str  # the file, option or part of the machine
    cause: str    # the mistake, with values
    remedy: str   # what to do about it

    def __str__(self) -> str:
        return f"{self.subject}: {self.cause}. {self.remedy}"


@dataclass
class CheckReport:
    """The results of all checks; each check appends to it."""

    facts: dict = field(default_factory=dict)               # by name; plain data
    notes: list[str] = field(default_factory=list)          # worth knowing, but no reason to stop
    problems: list[Problem] = field(default_factory=list)

    def as_json(self) -> str:
        """Returns the report as JSON with the keys problems (each: what, why, remedy), notes and facts."""
        problems = [{"what": problem.subject, "why": problem.cause, "remedy": problem.remedy}
                    for problem in self.problems]
        return json.dumps({"problems": problems, "notes": self.notes, "facts": self.facts}, indent=1)

    def verdict(self) -> str:
        """Returns one line for each problem, and a last line with their number."""
        count = len(self.problems)
        if not count:
            return NO_PROBLEM
        total = "1 problem" if count == 1 else f"{count} problems"
        return "\n".join([*(f"problem: {problem}" for problem in self.problems), total])


def problems_from_error(error: BadInput, subject: str) -> list[Problem]:
    """Returns the mistakes that the message of an error lists.

    Args:
        error: a message of one mistake, or a heading and one line "  - mistake" for each.
        subject: the subject of a message without a list; a list has its subject in its heading.
    """
    list_subject, mistakes = split_mistakes(error)
    if not mistakes:
        return [_parse_problem(str(error), subject)]
    return [_parse_problem(mistake, list_subject) for mistake in mistakes]


def split_mistakes(error: BadInput) -> tuple[str, list[str]]:
    """Returns the subject and the mistakes that a message of errors.combine_mistakes lists; none for another one."""
    heading, *mistakes = str(error).split("\n  - ")
    return heading.rsplit(": ", 1)[0], mistakes


def _parse_problem(text: str, subject: str) -> Problem:
    """Splits a message into its cause and its remedy, which follows the first full stop or else the last colon."""
    text = text.removeprefix(f"{subject}: ")
    cause, separator, remedy = text.partition(". ")
    if not separator:
        cause, separator, remedy = text.rpartition(": ")
    if not separator:
        return Problem(subject, text, "Fix it")
    return Problem(subject, cause, remedy[:1].upper() + remedy[1:])
