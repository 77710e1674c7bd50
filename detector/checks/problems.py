"""The result of a check: facts, notes and problems, for a person and for a script."""

import json
import re
from dataclasses import dataclass, field

from detector.errors import BadInput

NO_PROBLEM = "no problem found"  # the last line of a report without problems
MAX_EXAMPLES = 10                # of one kind that the text shows; JSON has all
VERBS = ("Add Ask Change Check Choose Convert Copy Correct Cut Delete Download Draw Enlarge Fix Free Give Install "
         "Leave Let List Look Make Mark Move Name Pass Put Read Remove Rename Repair Replace Request Resize Restore "
         "Run Save Select Set Split Start State Submit Undo Use Wait Write").replace(" ", "|")
# The start of a remedy. A full stop, a colon or a capital alone may be part of a path, as in "St. Gallen/a.xml".
REMEDY = re.compile(rf"\. (?=(?:{VERBS})\b)|[:;] (?=(?:{VERBS.lower()})\b)")


@dataclass(frozen=True)
class Problem:
    """A reason why the run would fail or be useless."""

    subject: str  # the file, option or part of the machine
    cause: str    # the mistake, with values
    remedy: str   # what to do about it; empty where the cause says it

    def __str__(self) -> str:
        return f"{self.subject}: {self.cause}" + (f". {self.remedy}" if self.remedy else "")


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
        """Returns one line for each problem, at most MAX_EXAMPLES of one subject, and a last line with their number."""
        if not self.problems:
            return NO_PROBLEM
        by_subject: dict[str, list[Problem]] = {}
        for problem in self.problems:
            by_subject.setdefault(problem.subject, []).append(problem)
        lines = []
        for subject, problems in by_subject.items():
            lines += [f"problem: {problem}" for problem in problems[:MAX_EXAMPLES]]
            if len(problems) > MAX_EXAMPLES:
                lines.append(f"problem: {subject}: {len(problems) - MAX_EXAMPLES} more; --json lists all")
        return "\n".join([*lines, count_of_problems(len(self.problems))])


def count_of_problems(count: int) -> str:
    """Returns the last line of a report with problems."""
    return "1 problem" if count == 1 else f"{count} problems"


def problems_from_error(error: BadInput, subject: str) -> list[Problem]:
    """Returns the mistakes that an error lists.

    Args:
        error: of one mistake, or made by errors.combine_mistakes.
        subject: the subject of an error that has none itself.
    """
    own_subject, mistakes = split_mistakes(error)
    if not mistakes:
        return [parse_problem(str(error), subject)]
    return [parse_problem(mistake, own_subject) for mistake in mistakes]


def split_mistakes(error: BadInput) -> tuple[str, list[str]]:
    """Returns the subject and the mistakes of an error of errors.combine_mistakes; no mistakes for another one."""
    return error.subject, list(error.mistakes)


def parse_problem(text: str, subject: str) -> Problem:
    """Splits a message into cause and remedy, which begins with a verb after a full stop, or else after a colon.

    A message without a remedy stays whole: nothing of it is changed, as it may be the path of a file.
    """
    text = text.removeprefix(f"{subject}: ")
    matches = list(REMEDY.finditer(text))
    if not matches:
        return Problem(subject, text, "")
    match = next((match for match in matches if match.group() == ". "), matches[0])
    remedy = text[match.end():]
    return Problem(subject, text[:match.start()], remedy[:1].upper() + remedy[1:])


def join_examples(items: list[str], separator: str = "; ") -> str:
    """Returns the first MAX_EXAMPLES items, and how many more there are."""
    rest = [f"and {len(items) - MAX_EXAMPLES} more"] if len(items) > MAX_EXAMPLES else []
    return separator.join([*items[:MAX_EXAMPLES], *rest])
