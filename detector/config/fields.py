"""The declaration of one option: default, description, allowed values."""

from dataclasses import field


def option(default, about: str, choices: tuple = (), low: float | None = None, high: float | None = None):
    """A dataclass field for one option: numbers must lie in low <= value <= high, texts in `choices`."""
    return field(default=default, metadata={"about": about, "choices": choices, "low": low, "high": high})


def section(kind: type):
    """A dataclass field for a group of options, with their defaults."""
    return field(default_factory=kind)
