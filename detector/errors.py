"""What ends a run, and the exit status that says so."""


OK = 0
FAILED = 1
BAD_INPUT = 2
STOPPED = 75  # EX_TEMPFAIL: stopped early, start me again


class BadInput(Exception):
    """The user can mend this. The message says the cause, the value, what is allowed and what to do."""


class Stopped(Exception):
    """A rank was asked to stop; all ranks raise this together, at the same step."""


class NotFinite(Exception):
    """The loss became infinite or NaN; the message names the file that describes the step."""


def listed(what: str, mistakes: list[str]) -> BadInput:
    """All mistakes of one kind as one error, so that a user mends them in one go."""
    if len(mistakes) == 1:
        return BadInput(f"{what}: {mistakes[0]}")
    return BadInput(f"{what}: {len(mistakes)} mistakes\n" + "\n".join(f"  - {mistake}" for mistake in mistakes))
