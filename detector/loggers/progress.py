"""Time left in a run."""

import time


class Progress:
    """Estimates the time left from the pace since this start of the run."""

    def __init__(self, first_step: int, total_steps: int):
        self.first_step, self.total_steps = first_step, total_steps
        self.started_at = time.monotonic()

    def seconds_left(self, step: int) -> float:
        """Returns the seconds from `step` to the end of the run, evaluations included."""
        elapsed_s = time.monotonic() - self.started_at
        return elapsed_s / max(step - self.first_step, 1) * (self.total_steps - step)


def format_duration(seconds: float) -> str:
    """Returns a duration as h:mm:ss."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
