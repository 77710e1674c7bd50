"""Conversion of plain data, as YAML gives it, to the value of an option; and how values appear in error messages."""

import contextlib
import difflib
import importlib
import math
import sys
import typing

EXPECTED = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
NULL = (None, "null", "~")  # as YAML writes a value that is not there
LONGEST_VALUE = 60  # characters of a value in an error message


def convert(value: object, kind: type):
    """Converts plain data to the type of an option.

    A tuple option also takes a single item; an empty text and null are no item. A number may be a text: 1e3 is a whole
    number.

    Raises:
        ValueError: names the expected type.
    """
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        items = value if isinstance(value, (list, tuple)) else [] if value in ("", *NULL) else [value]
        return tuple(_convert_item(item, inner) for item in items)
    if kind is str and not isinstance(value, (dict, list)):
        return "" if value in NULL else str(value)
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            return int(value) if kind is int and str(value).lstrip("+-").isdigit() else _finite_number(value, kind)
    raise ValueError(f"{EXPECTED[kind]} expected")


def _convert_item(value: object, kind: type):
    """Returns an item of a list, in which a text `null` is a name. Raises ValueError for an empty text."""
    if kind is str and (value is None or str(value).strip() == ""):
        raise ValueError("an item is empty; write a text, or [] for an empty list")
    return value if kind is str and value in NULL else convert(value, kind)


def _finite_number(value: object, kind: type):
    number = float(value)
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise ValueError
    return kind(number)


def check_value(value, metadata: typing.Mapping):
    """Returns the value if the option's metadata (see fields.option) allows it.

    Raises:
        ValueError: lists the choices or the bounds.
    """
    choices = metadata["choices"]
    if choices and value not in choices and metadata["table"]:
        choices = tuple(dict.fromkeys((*choices, *table_keys(metadata["table"]))))
    if choices and value not in choices:
        raise ValueError(f"one of {', '.join(choices)}{did_you_mean(str(value), choices)}")
    low, high = metadata["low"], metadata["high"]
    too_low = low is not None and not value >= low
    too_high = high is not None and not value <= high
    if too_low or too_high:
        bounds = [f"at least {low}"] if low is not None else []
        bounds += [f"at most {high}"] if high is not None else []
        raise ValueError(" and ".join(bounds) + (", or auto" if metadata["auto"] else ""))
    return value


def table_keys(table: str) -> tuple[str, ...]:
    """Returns the keys of a dict that is named "module:DICT"; imports the module."""
    module, _, name = table.partition(":")
    return tuple(getattr(importlib.import_module(module), name))


def allowed_values(metadata: typing.Mapping) -> str:
    """Returns the choices or bounds of an option for `fleet-rcnn options`, such as ">= 0, <= 1"; empty: no limits.

    Entries that a program added to the option's table are listed as well; no table is imported for that.
    """
    if metadata["choices"]:
        module = metadata["table"].partition(":")[0]
        added = table_keys(metadata["table"]) if module in sys.modules else ()
        return " | ".join(dict.fromkeys((*metadata["choices"], *added)))
    bounds = [f">= {metadata['low']}"] if metadata["low"] is not None else []
    bounds += [f"<= {metadata['high']}"] if metadata["high"] is not None else []
    return ", ".join(bounds)


def closest(name: str, known: typing.Iterable[str]) -> str:
    """Returns the known name that a misspelt one most likely means; empty where none is similar.

    A path with the same last word in another section comes first.
    """
    known = list(known)
    last = name.split(".")[-1]
    same_word = [path for path in known if path.split(".")[-1] == last]
    similar = same_word or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return similar[0] if similar else ""


def did_you_mean(name: str, known: typing.Iterable[str]) -> str:
    """Returns " (did you mean ...?)" with the closest known name, or an empty text."""
    similar = closest(name, known)
    return f" (did you mean {similar}?)" if similar else ""


def format_value(value: object) -> str:
    """Returns the value for an error message, shortened to LONGEST_VALUE characters."""
    text = repr(to_plain(value))
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE - 3] + "..."


def to_plain(value):
    """Returns nested dicts and tuples as dicts and lists."""
    if isinstance(value, dict):
        return {key: to_plain(inner) for key, inner in value.items()}
    return [to_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
