"""Annotation files as texts of which only the changed objects are replaced; all other bytes stay as they are."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from detector.errors import BadInput

SPACE = re.compile(r"\s*")
DECODER = json.JSONDecoder()


def read_exactly(path: str, content: bytes, encoding: str) -> str:
    """Returns the text of a file that can be written back. Raises BadInput if that would change its bytes."""
    try:
        text = content.decode(encoding)
        if text.encode(encoding) == content:
            return text
    except ValueError:
        pass
    raise BadInput(f"{path} is not text in {encoding.upper()} that can be written back as it is. Save it as UTF-8")


def compose(gaps: Sequence[str], texts: Sequence[str]) -> str:
    """Returns a file with other objects in it.

    Args:
        gaps: what stands before, between and behind the objects of the old file, at least two texts; all are kept.
        texts: the objects of the new file.
    """
    first, *inner, last = gaps
    between = [inner[i] if i < len(inner) else "" for i in range(len(texts))]
    return first + "".join(text + gap for text, gap in zip(texts, between)) + "".join(inner[len(texts):]) + last


@dataclass
class JsonArray:
    """An array of a JSON file: its elements as they stand."""

    head: str            # up to the bracket
    lead: str            # white space before the first element
    commas: list[str]    # comma and white space before each element; the first one is not used
    elements: list[str]
    tail: str            # from behind the last element on

    def join(self) -> str:
        """Returns the text of the file."""
        return "".join([self.head, *(part for i, element in enumerate(self.elements)
                                     for part in (self.commas[i] if i else self.lead, element)), self.tail])

    def insert(self, position: int, element: str) -> None:
        known = next((comma for comma in reversed(self.commas) if comma.startswith(",")), "," + (self.lead or " "))
        self.commas.insert(position, known)
        self.elements.insert(position, element)
        if position == 0 and len(self.commas) > 1:
            self.commas[1] = known

    def remove(self, position: int) -> None:
        del self.commas[position], self.elements[position]


def split_array(text: str, key: str) -> JsonArray:
    """Returns the array of this key of the object that a JSON text is. Raises ValueError if there is none."""
    position = SPACE.match(text, text.index("{") + 1).end()
    while text[position] == '"':
        name, position = DECODER.raw_decode(text, position)
        position = SPACE.match(text, SPACE.match(text, position).end() + 1).end()  # behind the colon
        if name == key and text[position] == "[":
            return _split_elements(text, position + 1)
        position = SPACE.match(text, DECODER.raw_decode(text, position)[1]).end()
        position = SPACE.match(text, position + 1).end() if text[position] == "," else position
    raise ValueError(f"no array {key}")


def _split_elements(text: str, start: int) -> JsonArray:
    array = JsonArray(text[:start], "", [], [], "")
    end, position = start, SPACE.match(text, start).end()
    while text[position] != "]":
        array.commas.append(text[end:position])
        last = DECODER.raw_decode(text, position)[1]
        array.elements.append(text[position:last])
        end, position = last, SPACE.match(text, last).end()
        if text[position] == ",":
            position = SPACE.match(text, position + 1).end()
    array.lead, array.tail = array.commas[0] if array.commas else "", text[end:]
    return array


def json_like(value: object, text: str) -> str:
    """Returns a value as JSON in the style of a text: indented or on one line, spaces or none, escapes or none."""
    indents = re.search(r"\{\n([ \t]+).*\n([ \t]*)\}$", text, re.DOTALL)
    if indents:
        lines = json.dumps(value, ensure_ascii=text.isascii(), indent=indents[1].removeprefix(indents[2])).split("\n")
        return f"\n{indents[2]}".join(lines)
    separators = (", ", ": ") if ": " in text or not text else (",", ":")
    return json.dumps(value, ensure_ascii=text.isascii(), separators=separators)
