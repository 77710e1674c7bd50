"""Visual Genome's own JSON files, entry by entry: version 1.0 has `id` where later ones have `image_id`."""

import json
import os
import reprlib
from collections.abc import Iterator

from detector.data.formats.coordinates import to_coordinate
from detector.data.image_sizes import annotated_size
from detector.data.text_files import cannot_read
from detector.errors import BadInput

BLOCK = 1 << 20        # characters that are read at once
LONGEST_TOKEN = 16     # characters of a number or literal that the end of the buffer may cut
REPAIR = "Fetch it again with `fleet-rcnn data get visual_genome`, or correct it"


def iter_json_list(path: str) -> Iterator[object]:
    """Yields the entries of a JSON list one by one; objects.json as a whole would take several GiB of memory.

    Raises:
        BadInput: the file cannot be read, is no JSON list, or is truncated.
    """
    try:
        with open(path, "rb") as file:
            encoding = json.detect_encoding(file.read(4))
        with open(path, encoding=encoding) as file:
            yield from _entries(file, path)
    except OSError as error:
        raise cannot_read(path, error, "annotation file") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not text in {encoding.upper()}. Save it as UTF-8") from error
    except RecursionError as error:
        raise BadInput(f"{path} is nested too deeply. {REPAIR}") from error


def _entries(file, path: str) -> Iterator[object]:
    decoder, buffer, position, at_end = json.JSONDecoder(), "", 0, False
    while True:
        while position < len(buffer) and buffer[position] in " \t\r\n,[":
            position += 1
        try:
            entry, position = decoder.raw_decode(buffer, position)
        except ValueError as error:  # usually because the entry continues beyond the buffer
            rest = buffer[position:]
            if at_end and rest.strip() == "]":
                return
            if at_end and not rest.strip():
                is_empty = not os.path.getsize(path)
                raise BadInput(f"{path} is {'empty' if is_empty else 'truncated: its list has no end'}. {REPAIR}")
            if at_end or _is_faulty(error, len(buffer)):
                raise BadInput(f"{path} is no JSON list, or is truncated: {error}. {REPAIR}") from error
            block = file.read(BLOCK)
            buffer, position, at_end = rest + block, 0, not block
            continue
        yield entry


def _is_faulty(error: ValueError, length: int) -> bool:
    """Returns whether a parsing error lies before the end of the buffer, so that reading on does not help."""
    if not isinstance(error, json.JSONDecodeError):  # a number of thousands of digits
        return True
    return error.pos + LONGEST_TOKEN < length and not error.msg.startswith("Unterminated string")


def image_id_of(entry: object, path: str, position: int) -> int:
    """Returns the image that an entry of a file is about; ids may be texts.

    Raises:
        BadInput: the entry has no such id.
    """
    value = entry.get("image_id", entry.get("id")) if isinstance(entry, dict) else None
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadInput(f"{path}: entry {position} has no image_id that is a number, but {reprlib.repr(value)}. "
                       f"{REPAIR}")
    return value


def size_of(entry: dict) -> tuple[int, int] | None:
    """Returns height and width of an entry of image_data.json; None if it does not state them."""
    return annotated_size(entry.get("height"), entry.get("width"))


def objects_of(entry: dict, path: str, with_boxes: bool = True
               ) -> tuple[list[tuple[list[str], list[float]]], list[str]]:
    """Returns the names and the box (x1, y1, x2, y2) of each object of an entry of objects.json, and its mistakes."""
    place = f"{path}: image {entry.get('image_id', entry.get('id'))}"
    objects, mistakes = [], []
    entries = entry.get("objects")
    if not isinstance(entries, list):
        return [], [f"{place} has no list of objects. {REPAIR}"]
    for number, annotation in enumerate(entries, start=1):
        try:
            names = _names(annotation)
            objects.append((names, _box(annotation) if with_boxes else []))
        except ValueError as error:
            mistakes.append(f"{place}: object {number} {error}")
    if len(mistakes) > 1:
        mistakes = [f"{mistakes[0]}, and {len(mistakes) - 1} more objects"]
    return objects, [f"{mistake}. {REPAIR}" for mistake in mistakes]


def _names(annotation: object) -> list[str]:
    names = annotation.get("names", annotation.get("name")) if isinstance(annotation, dict) else None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"has no list of names, but {reprlib.repr(names)}")
    return names


def _box(annotation: dict) -> list[float]:
    x, y, width, height = (_number(annotation, *keys) for keys in (("x",), ("y",), ("w", "width"), ("h", "height")))
    if x is None or y is None or width is None or height is None:
        raise ValueError("has no box x, y, w, h of numbers")
    return [x, y, x + width, y + height]


def _number(annotation: dict, *keys: str) -> float | None:
    return to_coordinate(next((annotation[key] for key in keys if key in annotation), None))
