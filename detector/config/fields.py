"""The declaration of options: a dataclass field with default, description and allowed values."""

from dataclasses import field

AUTO = -1  # value of a number, or of the only item of a list, that is `auto` in YAML: the run finds it when it starts
AUTO_TEXT = "auto"  # the same of a text


def option(default, description: str, choices: tuple = (), low: float | None = None, high: float | None = None,
           table: str = "", auto: bool = False, path: bool = False):
    """Returns a dataclass field for one option.

    Args:
        description: for `fleet-rcnn options`; states the unit and the meaning of special values.
        choices: allowed texts; empty: any text.
        low, high: inclusive bounds of a number.
        table: "module:DICT" whose keys are allowed as well. The module is imported only for a value that is not among
            `choices`: an entry need not be listed here, and listed values are checked without importing torch.
        path: the value is a path, or several; see paths.py.
        auto: the value may be AUTO, (AUTO,) or AUTO_TEXT, written `auto`; training/auto_options.py replaces it.
    """
    return field(default=default, metadata={"description": description, "choices": choices, "low": low, "high": high,
                                            "table": table, "auto": auto, "path": path})


def section(kind: type):
    """Returns a dataclass field for a group of options, filled with their defaults."""
    return field(default_factory=kind)
