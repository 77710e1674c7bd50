"""Writes the annotations of one JSON an image in place: shapes of labelme, or lists of labels and boxes."""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from detector.annotation.layouts import Box, fit_points, rounded
from detector.data.formats import per_image_json
from detector.data.text_files import decode, read_bytes
from detector.errors import BadInput
from detector.run.files import replace_file

SHAPES_OF_POINTS = ("polygon", "line", "linestrip")  # of labelme


@dataclass(frozen=True)
class JsonFiles:
    """One JSON an image: labels and boxes, or labelme's shapes. An object's text is its shape, or [label, box].

    other_lists: keys of lists that in one of the files are not as long as there are objects.
    """

    paths: list[str]
    grid: float = 0.1
    other_lists: set[str] = field(default_factory=set)

    def texts(self, index: int) -> list[str] | None:
        if not os.path.exists(self.paths[index]):
            return None
        per_image_json.read_objects(self.paths[index])  # raises BadInput
        content = self._content(index)[0]
        entries = content["shapes"] if _is_labelme(content) else [*zip(content["labels"], content["boxes"])]
        self.other_lists.update(key for key, value in content.items()
                                if isinstance(value, list) and len(value) != len(entries))
        return [json.dumps(entry) for entry in entries]

    def parse(self, index: int, text: str) -> tuple[str, Box]:
        entry = json.loads(text)
        name, _, box = (per_image_json.read_shape if isinstance(entry, dict) else per_image_json.read_pair)(entry)
        return name, box

    def edit(self, index: int, text: str, name: str, box: Box) -> str:
        is_shape = text.startswith("{") if text else os.path.exists(self.paths[index]) \
            and _is_labelme(self._content(index)[0])
        if not is_shape:
            return json.dumps([name, list(box)])
        shape = json.loads(text or '{"points": [], "group_id": null, "shape_type": "rectangle", "flags": {}}')
        old = self.parse(index, text)[1] if text else []
        is_flat = not text or old[0] == old[2] or old[1] == old[3]
        if text and list(box) != rounded(old) and shape.get("shape_type") in SHAPES_OF_POINTS and not is_flat:
            shape["points"] = [rounded(point) for point in fit_points(shape["points"], old, box)]
        elif not text or list(box) != rounded(old):
            shape.pop("mask", None)  # a circle or a mask becomes its box
            shape.update(points=[list(box[:2]), list(box[2:])], shape_type="rectangle")
        return json.dumps({"label": name} | shape | {"label": name})

    def write(self, index: int, texts: list[str] | None) -> None:
        if texts is None:
            return Path(self.paths[index]).unlink(missing_ok=True)
        content, old = self._content(index) if os.path.exists(self.paths[index]) else ({}, "")
        entries = [json.loads(text) for text in texts]
        if _is_labelme(content):
            content["shapes"] = entries
        else:
            self._check_parallel_lists(content, len(entries), self.paths[index])
            content |= {"labels": [label for label, _ in entries], "boxes": [box for _, box in entries]}
        indent = re.search(r"\n([ \t]+)", old)
        text = json.dumps(content, indent=indent[1] if indent else None, ensure_ascii=old.isascii())
        if old.endswith("\n"):
            text += "\n"
        replace_file(Path(self.paths[index]), text.encode("utf-8"))

    def _check_parallel_lists(self, content: dict, count: int, path: str) -> None:
        """Raises BadInput if another list has an entry for each object, and the number of objects changes."""
        known = len(content.get("labels", []))
        parallel = [key for key, value in content.items() if isinstance(value, list) and len(value) == known
                    and key not in self.other_lists | {"labels", "boxes"}]
        if known and count != known and parallel:
            raise BadInput(f"{path}: the list {parallel[0]!r} has an entry for each of the {known} objects, which a "
                           "page does not know: objects can be changed, but none added or deleted. Remove the list "
                           "first")

    def _content(self, index: int) -> tuple[dict, str]:
        text = decode(read_bytes(self.paths[index]), self.paths[index])
        return json.loads(text), text


def _is_labelme(content: dict) -> bool:
    return isinstance(content.get("shapes"), list) and "boxes" not in content
