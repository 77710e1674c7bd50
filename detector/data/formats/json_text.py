"""Parses annotation files as large as COCO's faster and in less memory than the json module alone."""

import codecs
import gc
import json
import re
from contextlib import contextmanager
from typing import Iterator

from detector.data.text_files import decode, read_bytes
from detector.errors import BadInput

KEY, LIST_START = b'"segmentation"', re.compile(rb"\s*:\s*\[")
LISTS = ("images", "annotations", "categories")  # keys that an object may have once


def read_annotations(path: str, keep_segmentations: bool = False, kind: str = "annotation file") -> object:
    """Returns the value of a JSON file; see `parse_annotations`.

    Args:
        kind: of the file, for messages.

    Raises:
        BadInput: the file cannot be read, or is no JSON.
    """
    content = read_bytes(path, kind)
    try:
        return parse_annotations(content, keep_segmentations)
    except UnicodeDecodeError as error:
        decode(content, path)  # names the byte and the remedy, unless the encoding was guessed
        raise BadInput(f"{path} is no JSON: it is not text in {error.encoding.upper()}. Save it as UTF-8") from error
    except RecursionError as error:
        raise BadInput(f"{path} is no {kind}: its lists are nested too deeply") from error
    except ValueError as error:
        problem = "is no JSON" if isinstance(error, json.JSONDecodeError) else "cannot be used"
        remedy = "Copy or export it again" if content.strip() else "It is empty: copy or export it again"
        raise BadInput(f"{path} {problem}: {error}. {remedy}") from error


def parse_annotations(content: bytes, keep_segmentations: bool = False) -> object:
    """Returns the value of a JSON text, with None for every segmentation polygon unless these are kept.

    Args:
        content: in UTF-8, with or without a byte order mark, or in UTF-16 or UTF-32.

    Raises:
        ValueError: JSONDecodeError or UnicodeDecodeError with positions in the text, or another one where an object has
            one of LISTS twice. A mistake inside a polygon is not noticed, unless polygons are kept.
        RecursionError: lists or objects are nested too deeply.
    """
    text = to_utf8(content)
    with gc_paused():
        if not keep_segmentations:
            try:
                return load_json(without_segmentations(text))
            except ValueError:
                pass  # raised again, with positions in the whole text
        return load_json(text)


def to_utf8(content: bytes) -> bytes:
    """Returns a JSON text in UTF-8 without a byte order mark. (RFC 8259, section 8.1; RFC 4627, section 3)"""
    if content.startswith(codecs.BOM_UTF8):
        return content[len(codecs.BOM_UTF8):]
    encoding = json.detect_encoding(content)
    return content if encoding == "utf-8" else content.decode(encoding).encode("utf-8")


def load_json(text: bytes) -> object:
    """Returns the value of a JSON text in UTF-8. Raises ValueError if an object has one of LISTS twice."""
    is_repeated = any(text.count(b'"%b"' % name.encode()) > 1 for name in LISTS)
    return json.loads(text.decode("utf-8"), object_pairs_hook=refuse_repeated_lists if is_repeated else None)


def refuse_repeated_lists(pairs: list[tuple[str, object]]) -> dict:
    """Returns a JSON object as a dict. Raises ValueError if it has one of LISTS twice: dict would keep the last one."""
    for name in LISTS:
        if sum(key == name for key, _ in pairs) > 1:
            raise ValueError(f"an object has {name} twice, of which only one can count")
    return dict(pairs)


def without_segmentations(text: bytes) -> bytes:
    """Replaces segmentation polygons by null: they are two thirds of such a file, and are rarely used.

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
