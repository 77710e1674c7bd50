"""Parses annotation files as large as COCO's faster and in less memory than the json module alone."""

import gc
import json
import re
from contextlib import contextmanager
from typing import Iterator

KEY, LIST_START = b'"segmentation"', re.compile(rb"\s*:\s*\[")


def parse_annotations(text: bytes) -> object:
    """Returns the value of a JSON text in UTF-8, with None for every segmentation polygon.

    Raises:
        JSONDecodeError, UnicodeDecodeError: with positions in the original text. A mistake inside a polygon is not
            noticed.
    """
    with gc_paused():
        try:
            return json.loads(without_segmentations(text).decode("utf-8"))
        except ValueError:
            return json.loads(text.decode("utf-8"))


def without_segmentations(text: bytes) -> bytes:
    """Replaces segmentation polygons by null: they are two thirds of such a file, and are not used.

    A quote inside a JSON string has a backslash before it, so only keys match. Polygons are nested lists of numbers:
    they end at the last bracket before the next quote or brace.
    """
    pieces, copied, position = [], 0, text.find(KEY)
    while position >= 0:
        end = position + len(KEY)
        if text[position - 1:position] != b"\\" and LIST_START.match(text, end):
            limits = [limit for limit in (text.find(b'"', end), text.find(b"}", end)) if limit >= 0]
            close = text.rfind(b"]", end, min(limits, default=len(text)))
            if close >= 0:
                pieces += text[copied:end], b": null"
                copied = end = close + 1
        position = text.find(KEY, end)
    return b"".join([*pieces, text[copied:]])


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pauses the garbage collector, which would scan millions of new lists and dicts again and again for cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
