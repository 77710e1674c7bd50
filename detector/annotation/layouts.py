"""Annotation files that are written in place: how objects of PASCAL VOC, YOLO and one JSON an image stand in them.

Each class has the methods of `AnnotationFiles`. coco_layout.py has that of COCO.
"""

import codecs
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from xml.sax.saxutils import escape

import numpy as np

from detector.annotation.texts import compose, read_exactly
from detector.data.formats import per_image_json, voc, voc_xml, yolo
from detector.data.layout_writers import NOT_IN_XML, format_number
from detector.data.text_files import decode, read_bytes
from detector.errors import BadInput
from detector.run.files import replace_file

Box = Sequence[float]  # x1, y1, x2, y2 in pixels
NO_BOX = (0.0, 0.0, 0.0, 0.0)  # of an object whose coordinates are nan or infinite: listed, and nothing of it drawn
VOC_OBJECT = re.compile(r"\s*<object\b[^>]*>.*?</object\s*>", re.DOTALL)
PART_OR_BNDBOX = re.compile(r"<part\b.*?</part\s*>|<bndbox\b.*?</bndbox\s*>", re.DOTALL)
NEW_VOC_FILE = ("<annotation>\n\t<filename>{}</filename>\n\t<size><width>{}</width><height>{}</height><depth>3</depth>"
                "</size>\n</annotation>\n")
NESTED_OR_NAME = re.compile(r"<(part|attributes?)\b.*?</\1\s*>|<name\b[^>]*>.*?</name\s*>", re.DOTALL)
BNDBOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
NEW_VOC_OBJECT = ("\n\t<object>\n\t\t<name>{}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>"
                  f"\n\t\t<difficult>0</difficult>\n\t\t{BNDBOX}\n\t</object>")
SHAPES_OF_POINTS = ("polygon", "line", "linestrip")  # of labelme
BLANK = "\ufeff\x00 \t\r\n\x1a"  # around the values of a YOLO line


class AnnotationFiles(Protocol):
    """The annotation files of a layout.

    paths: of all files. grid: the fraction of a pixel to which coordinates are rounded, at most 1.
    """

    paths: list[str]
    grid: float

    def texts(self, index: int) -> list[str] | None:
        """Returns each object of an image as it stands in the file; None: nobody has looked at the image yet."""

    def parse(self, index: int, text: str) -> tuple[str, Box]:
        """Returns class and box of an object. Raises ValueError."""

    def edit(self, index: int, text: str, name: str, box: Box) -> str:
        """Returns an object with this class and box; all else in it stays. An empty `text` is that of a new one."""

    def write(self, index: int, texts: list[str] | None) -> None:
        """Writes the objects of an image. Raises OSError; the file is then as it was."""


@dataclass(frozen=True)
class VocFiles:
    """XML files. `images`: their names; `sizes`: height and width of each image."""

    paths: list[str]
    images: list[str]
    sizes: Sequence[Sequence[int]]
    grid: float = 1

    def texts(self, index: int) -> list[str] | None:
        if not os.path.exists(self.paths[index]):
            return None
        texts = VOC_OBJECT.findall(self._text(index)[0])
        if len(texts) != len(voc_xml.read_xml(self.paths[index]).objects):
            raise BadInput(f"{self.paths[index]} cannot be edited in place: it has objects in comments, deleted "
                           "ones, or prefixes. Convert the data set first: fleet-rcnn convert")
        return texts

    def parse(self, index: int, text: str) -> tuple[str, Box]:
        name, _, *corners = voc_xml.read_object(text)
        points = voc.exclusive_corners(np.array([corners], np.float64)).reshape(2, 2)
        return name, [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]

    def edit(self, index: int, text: str, name: str, box: Box) -> str:
        if NOT_IN_XML.search(name):
            raise BadInput(f"the class {name!r} cannot be written into XML: rename it")
        new = [format_number(value + 1 if position < 2 else value, 2) for position, value in enumerate(box)]
        if not text:
            return NEW_VOC_OBJECT.format(escape(name), *new)
        old_name, old_box = self.parse(index, text)
        if name != old_name:
            text = _replace_name(text, name)
        if list(box) == rounded(old_box):
            return text
        corners = voc_xml.read_object(text)[2:]
        text = voc_xml.drop_rotation(text)  # of CVAT: the new box is drawn as it is
        is_rotated = voc_xml.read_object(text)[2:] != corners
        match = next((match for match in PART_OR_BNDBOX.finditer(text) if match[0].startswith("<bndbox")), None)
        if not match:
            return re.sub(r"(\s*</object\s*>)$", lambda match: BNDBOX.format(*new) + match[1], text)
        element = match[0]
        is_complete = all(f"<{corner}" in element for corner in voc_xml.CORNERS)
        edited = element if is_complete else BNDBOX.format(*new)
        x1, y1, x2, y2 = corners
        is_replaced = is_rotated or not (x1 <= x2 and y1 <= y2)  # also if one is nan
        for corner, value, before, after in zip(voc_xml.CORNERS, new, rounded(old_box), box):
            if before != after or is_replaced:
                edited = re.sub(rf"(<{corner}\b[^>]*>)[^<]*", lambda match: match[1] + value, edited)
        return text[:match.start()] + edited + text[match.end():]

    def write(self, index: int, texts: list[str] | None) -> None:
        if texts is None:
            return Path(self.paths[index]).unlink(missing_ok=True)
        height, width = self.sizes[index]
        text, encoding = self._text(index) if os.path.exists(self.paths[index]) else \
            (NEW_VOC_FILE.format(escape(os.path.basename(self.images[index])), width, height), "utf-8")
        gaps = VOC_OBJECT.split(text)
        if len(gaps) == 1:
            end = len(text[:text.rindex("</annotation")].rstrip()) if "</annotation" in text else len(text)
            gaps = [text[:end], text[end:]]
        replace_file(Path(self.paths[index]), compose(gaps, texts).encode(encoding, "xmlcharrefreplace"))

    def _text(self, index: int) -> tuple[str, str]:
        content = read_bytes(self.paths[index])
        name = codecs.lookup(voc_xml.xml_encoding(content)).name
        encoding = voc_xml.SUPERSETS.get(name, name)
        return read_exactly(self.paths[index], content, encoding), encoding


def _replace_name(text: str, name: str) -> str:
    """Returns an <object> with another class; names inside of its <part>s and <attributes> stay."""
    return NESTED_OR_NAME.sub(lambda match: match[0] if match[1] else f"<name>{escape(name)}</name>", text)


def rounded(box: Box) -> list[float]:
    """Returns a box as pages see it: to a hundredth of a pixel; NO_BOX for one that is not finite."""
    return [round(float(value), 2) for value in box] if all(map(math.isfinite, box)) else [*NO_BOX]


@dataclass(frozen=True)
class YoloFiles:
    """Text files with a line an object. `names`: the classes by number; `keypoints`: numbers behind a line's box."""

    paths: list[str]
    sizes: Sequence[Sequence[int]]
    names: list[str]
    keypoints: int = 0
    grid: float = 0.1

    def texts(self, index: int) -> list[str] | None:
        if not os.path.exists(self.paths[index]):
            return None
        return [line for line in self._lines(index) if line.strip(BLANK)]

    def parse(self, index: int, text: str) -> tuple[str, Box]:
        height, width = self.sizes[index]
        label, *box = yolo.parse_line(text.strip(BLANK).split(), tuple(self.names), self.keypoints,
                                      max(yolo.TOLERANCE, yolo.TOLERANCE_PIXELS / min(height, width)))
        return self.names[label], [value * side for value, side in zip(box, (width, height, width, height))]

    def edit(self, index: int, text: str, name: str, box: Box) -> str:
        height, width = self.sizes[index]
        new = [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
        centered = [format_number(value, 8) for value in (
            (new[0] + new[2]) / 2, (new[1] + new[3]) / 2, new[2] - new[0], new[3] - new[1])]
        number = str(self.names.index(name))
        if not text:
            return f"{number} {' '.join(centered)}\n"
        columns = text.strip(BLANK).split()
        old_name, old_box = self.parse(index, text)
        first = columns[0] if name == old_name else number
        if list(box) == rounded(old_box):
            values = columns[1:]
        elif len(columns) in (5, 6) or self.keypoints and len(columns) == 5 + self.keypoints:
            values = centered + columns[5:]
        else:  # a polygon moves and grows with its box
            old = [old_box[0] / width, old_box[1] / height, old_box[2] / width, old_box[3] / height]
            points = _fit_points([*zip(columns[1::2], columns[2::2])], old, new)
            values = [format_number(value, 8) for point in points for value in point]
        ending = text[len(text.rstrip("\r\n")):]
        return " ".join([first, *values]) + ending

    def write(self, index: int, texts: list[str] | None) -> None:
        if texts is None:
            return Path(self.paths[index]).unlink(missing_ok=True)
        lines = self._lines(index) if os.path.exists(self.paths[index]) else []
        gaps = [""]
        for line in lines:
            gaps = [*gaps, ""] if line.strip(BLANK) else [*gaps[:-1], gaps[-1] + line]
        gaps = gaps if len(gaps) > 1 else [gaps[0], ""]
        texts = [text if text.endswith(("\n", "\r")) or (i == len(texts) and not "".join(gaps[i:])) else f"{text}\n"
                 for i, text in enumerate(texts, start=1)]
        replace_file(Path(self.paths[index]), compose(gaps, texts).encode("utf-8"))

    def _lines(self, index: int) -> list[str]:
        content = read_bytes(self.paths[index], "label file")
        return read_exactly(self.paths[index], content, "utf-8").splitlines(keepends=True)


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
            shape["points"] = [rounded(point) for point in _fit_points(shape["points"], old, box)]
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


def _fit_points(points: Sequence, old: Box, new: Box) -> list[list[float]]:
    """Returns points that move and grow with the box around them."""
    scale = [(new[axis + 2] - new[axis]) / max(old[axis + 2] - old[axis], 1e-9) for axis in (0, 1)]
    return [[new[axis] + (float(point[axis]) - old[axis]) * scale[axis] for axis in (0, 1)] for point in points]
