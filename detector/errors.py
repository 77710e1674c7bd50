"""The exceptions that end a run, and the exit statuses."""

OK = 0
FAILED = 1
BAD_INPUT = 2
STOPPED = 75  # EX_TEMPFAIL: stopped early with everything saved; the same command resumes the run


class BadInput(Exception):
    """An error that the user can fix. The message states the cause, the value, what is allowed and a remedy."""


class Stopped(Exception):
    """A stop was requested (SIGTERM, for example); all ranks raise this at the same step."""


class NotFinite(Exception):
    """The loss became infinite or NaN; the message names the file that describes the step."""


def combine_mistakes(subject: str, mistakes: list[str]) -> BadInput:
    """Returns one BadInput that lists all mistakes found in `subject`, such as "config custom/bccd"."""
    if len(mistakes) == 1:
        return BadInput(f"{subject}: {mistakes[0]}")
    return BadInput(f"{subject}: {len(mistakes)} mistakes\n" + "\n".join(f"  - {mistake}" for mistake in mistakes))
