"""Plain data, as YAML gives it, as the value of an option; and how a mistake is shown."""

import contextlib
import difflib
import math
import typing


def convert(value: object, kind: type):
    """Plain data -> the type of an option. Raises ValueError that says what is expected."""
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        items = value if isinstance(value, (list, tuple)) else [] if value in ("", None) else [value]
        return tuple(convert(item, inner) for item in items)
    if kind is str and not isinstance(value, (dict, list)):
        return "" if value in (None, "null", "~") else str(value)
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            return int(value) if kind is int and str(value).lstrip("+-").isdigit() else _finite(value, kind)
    expected = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}[kind]
    raise ValueError(f"{expected} expected")


def _finite(value: object, kind: type):
    """A number that is no NaN and not infinite, and whole if it must be: 1e3 is a whole number."""
    number = float(value)
    if not math.isfinite(number) or kind is int and not number.is_integer():
        raise ValueError
    return kind(number)


def checked(value, metadata: dict):
    """The value, if it is allowed. Raises ValueError that says what is."""
    choices, low, high = metadata["choices"], metadata["low"], metadata["high"]
    if choices and value not in choices:
        raise ValueError(f"one of {', '.join(choices)}{did_you_mean(str(value), choices)}")
    if low is not None and not value >= low or high is not None and not value <= high:
        bounds = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
        raise ValueError(" and ".join(bounds))
    return value


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    known = list(known)
    last = word.split(".")[-1]
    close = [k for k in known if k.split(".")[-1] == last][:1]  # the right word in the wrong section
    close = close or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def show(value: object) -> str:
    text = repr(plain(value))
    return text if len(text) <= 60 else text[:57] + "..."


def plain(value):
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
