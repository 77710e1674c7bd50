"""One annotation file in PASCAL VOC's XML, in any encoding that Python knows. (VOC 2012 development kit, section 5)"""

import codecs
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from detector.data.formats.coordinates import box_around_rotated, to_coordinate
from detector.data.image_sizes import annotated_size
from detector.data.text_files import BYTE_ORDER_MARKS, read_bytes
from detector.errors import BadInput, shorten
from detector.structures import DIFFICULT

CORNERS = ("xmin", "ymin", "xmax", "ymax")
POLYGONS = ("polygon", "points", "segmentation")
ATTRIBUTE = re.compile(r"\s*<attribute(?=[\s>])[^>]*(?<!/)>.*?</attribute\s*>", re.DOTALL)
DECLARATION = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([^"']*)["']""")
# Encodings that files use whose declaration names a smaller one. (WHATWG Encoding Standard, section 4.2)
SUPERSETS = {"ascii": "utf-8", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}
PYTHON_ONLY = {"unicode-escape", "raw-unicode-escape", "idna", "punycode", "undefined"}  # no encodings of documents
MAX_EXAMPLES = 3  # mistakes of one file in a message
REPAIR = "Restore the file from a copy, or take it and its image out of the data set"


@dataclass(frozen=True)
class Annotation:
    """The content of one annotation file."""

    file_name: str                # of the image; "" if it is not stated, and often out of date
    size: tuple[int, int] | None  # height and width; None if they are not stated
    objects: list[tuple]          # (name, flags, xmin, ymin, xmax, ymax) of each object, corners as they stand


def read_xml(path: str) -> Annotation:
    """Reads one annotation file. The box of an object that has only a polygon is the box of the polygon.

    Raises:
        BadInput: the file is missing, is no XML or of another kind, or has an object without a name or box.
    """
    root = _parse(path)
    if root.tag.lower() != "annotation" and root.find("object") is None:
        raise BadInput(f"{path} is no annotation file of PASCAL VOC: its root element is <{root.tag[:50]}>, not "
                       "<annotation>. Export it as PASCAL VOC, or set data.format")
    objects, mistakes = [], []
    for number, entry in enumerate(root.iter("object"), start=1):
        if (entry.findtext("deleted") or "").strip() == "1":  # in LabelMe's web tool
            continue
        name = (entry.findtext("name") or "").strip()
        try:
            objects.append((name, _flags(entry), *box_around_rotated(_corners(entry), _rotation(entry))))
            mistake = "" if name else "has no name"
        except ValueError as error:
            mistake = str(error)
        if mistake:
            mistakes.append(f"object {number}{f' ({name})' if name else ''} {mistake}")
    if mistakes:
        raise BadInput(f"{path}: {shorten(mistakes, MAX_EXAMPLES, '; ')}. Each object needs a name and a bndbox of "
                       "numbers xmin, ymin, xmax, ymax, or a polygon")
    return Annotation((root.findtext("filename") or "").strip(),
                      annotated_size(root.findtext("size/height"), root.findtext("size/width")), objects)


def read_object(text: str) -> tuple:
    """Returns (name, flags, xmin, ymin, xmax, ymax) of one <object> as `Annotation.objects`. Raises ValueError."""
    try:
        entry = ElementTree.fromstring(text.strip())
    except ElementTree.ParseError as error:
        raise ValueError(f"is no XML: {error}") from error
    return (entry.findtext("name") or "").strip(), _flags(entry), *box_around_rotated(_corners(entry), _rotation(entry))


def drop_rotation(text: str) -> str:
    """Returns the text of an <object> without its attribute `rotation`; all else in it stays."""
    def without_rotation(match: re.Match) -> str:
        return "" if _is_rotation(ElementTree.fromstring(match[0].strip())) else match[0]
    return ATTRIBUTE.sub(without_rotation, text)


def _parse(path: str) -> ElementTree.Element:
    text = decode_xml(read_bytes(path), path)
    if "<!ENTITY" in text:
        raise BadInput(f"{path} declares entities (<!ENTITY>), which no annotation file needs. {REPAIR}")
    try:
        root = ElementTree.fromstring(text.lstrip("\ufeff \t\r\n"))  # of a str the parser ignores the declaration
    except (ElementTree.ParseError, ValueError) as error:
        cause = str(error) if text.strip() else "the file is empty"
        raise BadInput(f"{path} is no XML: {cause}. {REPAIR}") from error
    for element in root.iter() if "xmlns" in text else ():
        element.tag = element.tag.rpartition("}")[2]  # without its namespace
    return root


def decode_xml(content: bytes, path: str) -> str:
    """Returns the text of an XML file: in the encoding of its byte order mark, else of its declaration, else UTF-8.

    Raises:
        BadInput: the encoding is unknown, or the bytes are not text in it.
    """
    encoding = xml_encoding(content)
    try:
        name = codecs.lookup(encoding).name
        if name in PYTHON_ONLY:
            raise LookupError(name)
        return content.decode(SUPERSETS.get(name, encoding))
    except LookupError as error:
        raise BadInput(f"{path} declares an unknown encoding, {encoding!r}. Save it as UTF-8, and write "
                       'encoding="UTF-8" into its first line') from error
    except ValueError as error:
        position = getattr(error, "start", len(content))
        place = f": byte {content[position]:#04x} at position {position}" if position < len(content) else ""
        raise BadInput(f"{path} is not text in {encoding.upper()}{place}. Save it as UTF-8, and write "
                       'encoding="UTF-8" into its first line') from error


def xml_encoding(content: bytes) -> str:
    """Returns the encoding of an XML file by its byte order mark, else by its declaration, else UTF-8."""
    mark = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "")
    if mark:
        return mark
    if content[:2] in (b"<\0", b"\0<"):
        return "utf-16-le" if content[:1] == b"<" else "utf-16-be"
    declared = DECLARATION.match(content.lstrip()[:1000])
    name = declared[1].decode("latin-1").strip() if declared else "utf-8"
    # A declaration that is readable byte by byte is not in UTF-16: the program saved its text as UTF-8 after all.
    return "utf-8" if re.match(r"(utf|ucs)[-_]?(16|32|2|4)", name, re.I) else name


def _flags(entry: ElementTree.Element) -> int:
    text = (entry.findtext("difficult") or "").strip().lower()
    number = to_coordinate(text)
    is_difficult = text in ("true", "yes", "y", "t") if number is None else number > 0
    return DIFFICULT if is_difficult else 0


def _rotation(entry: ElementTree.Element) -> str:
    """Returns the attribute `rotation` of an object, degrees, as CVAT exports it; "" without one."""
    return next((part.findtext("value") or "" for part in entry.iter("attribute") if _is_rotation(part)), "")


def _is_rotation(attribute: ElementTree.Element) -> bool:
    return (attribute.findtext("name") or "").strip() == "rotation"


def _corners(entry: ElementTree.Element) -> list[float]:
    """Returns xmin, ymin, xmax, ymax of an object. Raises ValueError with the cause if it has no box."""
    box = entry.find("bndbox")
    polygon = next((part for part in map(entry.find, POLYGONS) if part is not None), None)
    if polygon is not None and (box is None or not any((box.findtext(key) or "").strip() for key in CORNERS)):
        return _box_of_polygon(polygon)
    if box is None:
        raise ValueError("has no bndbox")
    corners = []
    for key in CORNERS:
        text = box.findtext(key)
        if text is None:
            raise ValueError(f"has no {key} in its bndbox")
        number = to_coordinate(text)
        if number is None:
            raise ValueError(f"has {key}={text.strip()[:50]!r} in its bndbox, which is no number")
        corners.append(number)
    return corners


def _box_of_polygon(polygon: ElementTree.Element) -> list[float]:
    """Returns the box around the points of a polygon: elements x1, y1, x2 ..., or pt with x and y, or text x,y;x,y."""
    numbered = [(part.tag.lower(), part.text) for child in polygon for part in (child, *child)]
    axes = [[text for tag, text in numbered if re.fullmatch(rf"{axis}\d*", tag)] for axis in "xy"]
    if not axes[0] and not axes[1]:
        values = re.split(r"[\s,;]+", (polygon.text or "").strip())
        axes = [values[::2], values[1::2]]
    xs, ys = ([to_coordinate(text or "") for text in texts] for texts in axes)
    if not xs or len(xs) != len(ys) or None in xs or None in ys:
        raise ValueError(f"has no bndbox, and a {polygon.tag} that is no list of points x, y")
    return [min(xs), min(ys), max(xs), max(ys)]
