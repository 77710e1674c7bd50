"""Writes the annotations of PASCAL VOC in place, one XML file an image: what is not changed keeps its bytes."""

import codecs
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from detector.annotation.layouts import Box, rounded
from detector.annotation.texts import compose, read_exactly
from detector.data.formats import voc, voc_xml
from detector.data.layout_writers import NOT_IN_XML, format_number
from detector.data.text_files import read_bytes
from detector.errors import BadInput
from detector.run.files import replace_file

VOC_OBJECT = re.compile(r"\s*<object\b[^>]*>.*?</object\s*>", re.DOTALL)
PART_OR_BNDBOX = re.compile(r"<part\b.*?</part\s*>|<bndbox\b.*?</bndbox\s*>", re.DOTALL)
NEW_VOC_FILE = ("<annotation>\n\t<filename>{}</filename>\n\t<size><width>{}</width><height>{}</height><depth>3</depth>"
                "</size>\n</annotation>\n")
NESTED_OR_NAME = re.compile(r"<(part|attributes?)\b.*?</\1\s*>|<name\b[^>]*>.*?</name\s*>", re.DOTALL)
BNDBOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
NEW_VOC_OBJECT = ("\n\t<object>\n\t\t<name>{}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>"
                  f"\n\t\t<difficult>0</difficult>\n\t\t{BNDBOX}\n\t</object>")


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
