"""Ids of a COCO file: one rule for numbers and texts, in the file itself and in detections that refer to it."""

import math
import re
from dataclasses import dataclass

INTEGER = re.compile(r"[+-]?[0-9]{1,40}(\.0*)?")
MIN_INT64, MAX_INT64 = -2**63, 2**63 - 1


def integer_id(value: object) -> int | None:
    """Returns the integer that an id stands for: 7, 7.0, "7", " 7 " and "007" are 7. None for any other value."""
    if type(value) is int:  # not bool
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and INTEGER.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    return None


def text_id(value: object) -> str | None:
    """Returns an id as text without surrounding white space. None for a value that is no id: no text and no number."""
    if isinstance(value, str):
        return value.strip() or None
    if type(value) is int:  # not bool
        return str(value)
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    return str(int(value)) if value.is_integer() else str(value)


@dataclass(frozen=True)
class IdTable:
    """Finds what an id refers to, whether it is written as a number or as a text."""

    by_integer: dict[int, int]  # ids that stand for an integer which no other id stands for -> what they refer to
    by_text: dict[str, int]     # all ids as texts -> what they refer to

    def find(self, value: object) -> int | None:
        """Returns what an id refers to; None for an unknown id."""
        text = text_id(value)
        if text is None:
            return None
        if text in self.by_text:
            return self.by_text[text]
        integer = integer_id(value)
        return None if integer is None else self.by_integer.get(integer)


def index_ids(ids: list, targets: list[int]) -> IdTable:
    """Returns the table of these ids.

    Args:
        ids: each one a number or a text, see `text_id`.
        targets: what each id refers to.
    """
    by_integer: dict[int, int] = {}
    ambiguous = set()
    for value, target in zip(ids, targets):
        integer = integer_id(value)
        if integer in by_integer:
            ambiguous.add(integer)
        elif integer is not None:
            by_integer[integer] = target
    for integer in ambiguous:
        del by_integer[integer]
    return IdTable(by_integer, {text_id(value) or "": target for value, target in zip(ids, targets)})


def int64_ids(ids: list) -> list[int] | None:
    """Returns the ids as integers of 64 bits; None if one of them is no such integer, or two stand for the same."""
    integers = {integer for integer in map(integer_id, ids)
                if integer is not None and MIN_INT64 <= integer <= MAX_INT64}
    return [integer_id(value) or 0 for value in ids] if len(integers) == len(ids) else None
