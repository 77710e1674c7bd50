"""How an option is written down: default, what it is about, what is allowed."""

from dataclasses import field


def option(default, about: str, choices: tuple = (), low: float | None = None, high: float | None = None):
    """One option. Numbers are checked against low <= value <= high, texts against `choices`."""
    return field(default=default, metadata={"about": about, "choices": choices, "low": low, "high": high})


def section(kind: type):
    return field(default_factory=kind)
