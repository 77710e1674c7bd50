"""What runs on what: frozen and printable."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """Processes on this machine; 0 leaves it to the machine: one for each GPU, or one for its CPU."""

    processes: int = 0


@dataclass(frozen=True)
class Job:
    """One verb of the detector with its arguments, and what it may use."""

    verb: str
    arguments: tuple[str, ...]
    resources: Resources = Resources()

    def command(self) -> list[str]:
        """The command line of one process."""
        return [sys.executable, "-m", "detector", self.verb, *self.arguments]
