"""What a check has found: facts, notes and problems, for a person and for a script."""

import json
from dataclasses import asdict, dataclass, field

from detector.errors import BadInput


@dataclass(frozen=True)
class Problem:
    """Something that would make the run fail, or be for nothing."""

    what: str    # the file, option or part that it is about
    why: str     # what is wrong there, with values
    remedy: str  # what to do

    def __str__(self) -> str:
        return f"{self.what}: {self.why}. {self.remedy}"


@dataclass
class CheckReport:
    """Grows while the checks run."""

    facts: dict = field(default_factory=dict)               # by name; plain data
    notes: list[str] = field(default_factory=list)          # worth knowing, and no reason to stop
    problems: list[Problem] = field(default_factory=list)

    def as_json(self) -> str:
        return json.dumps({"problems": [asdict(problem) for problem in self.problems], "notes": self.notes,
                           "facts": self.facts}, indent=1)

    def verdict(self) -> str:
        """The problems and their number, a line each."""
        count = len(self.problems)
        return "\n".join([*(f"problem: {problem}" for problem in self.problems),
                          f"{count} problem{'s' * (count > 1)}" if count else "no problem found"])


def problems_of(error: BadInput, what: str) -> list[Problem]:
    """The mistakes that an error tells of; `what` it is about, where it lists none by itself."""
    head, *mistakes = str(error).split("\n  - ")
    return [_split(mistake, head.rsplit(": ", 1)[0]) for mistake in mistakes] or [_split(head, what)]


def _split(text: str, what: str) -> Problem:
    """A message says what is wrong, and after a full stop or a colon what to do about it."""
    text = text.removeprefix(f"{what}: ")
    why, found, remedy = text.partition(". ")
    if not found:
        why, found, remedy = text.rpartition(": ")
    return Problem(what, why, remedy[:1].upper() + remedy[1:]) if found else Problem(what, text, "Mend it")
