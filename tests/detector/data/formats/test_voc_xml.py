"""One XML file of PASCAL VOC: encodings, numbers as programs write them, polygons, and files that are none."""

import codecs
import math
import time

import pytest

from detector.data.formats.voc_xml import read_xml
from detector.errors import BadInput
from detector.structures import DIFFICULT

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"


def document(*objects: str, more: str = "") -> str:
    return f"<annotation>{more}{''.join(f'<object>{content}</object>' for content in objects)}</annotation>"


def read(tmp_path, content: str | bytes):
    (tmp_path / "a.xml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_xml(str(tmp_path / "a.xml"))


def refused(tmp_path, content: str | bytes) -> str:
    with pytest.raises(BadInput) as caught:
        read(tmp_path, content)
    assert "a.xml" in str(caught.value)
    return str(caught.value)


# Encodings

@pytest.mark.parametrize("name, text", [
    ("utf-8", "Äpfel 苹果"), ("utf8", "Äpfel"), ("UTF8", "Äpfel"), ("gbk", "苹果"), ("GB2312", "苹果镕"), ("gb18030", "苹果"), ("big5", "蘋果"),
    ("latin-1", "Äpfel"), ("ISO-8859-1", "Äpfel"), ("windows-1252", "Äpfel €"), ("cp1251", "яблоко"), ("koi8-r", "яблоко"),
    ("shift_jis", "林檎"),
    ("euc-kr", "사과"), ("us-ascii", "apple"), ("mac_roman", "Äpfel"), ("cp437", "Äpfel")])
def test_an_encoding_that_python_knows(tmp_path, name, text):
    content = f'<?xml version="1.0" encoding="{name}"?>\n' + document(f"<name>{text}</name>{BOX}")
    encoding = {"GB2312": "gb18030"}.get(name, name)
    assert read(tmp_path, content.encode(encoding)).objects == [(text, 0, 1, 2, 3, 4)]


@pytest.mark.parametrize("declared", ["utf-8", "utf-16", "gbk", ""])
@pytest.mark.parametrize("mark, encoding", [
    (b"", "utf-8"), (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"), (b"", "utf-16-le"),
    (b"", "utf-16-be"), (codecs.BOM_UTF32_LE, "utf-32-le")])
def test_byte_order_marks_and_utf16_come_before_the_declaration(tmp_path, declared, mark, encoding):
    if (declared, mark, encoding) == ("gbk", b"", "utf-8"):
        return  # nothing tells that the declaration is wrong
    head = f"<?xml version='1.0' encoding='{declared}'?>" if declared else ""
    content = mark + (head + document(f"<name>Äpfel</name>{BOX}")).encode(encoding)
    assert read(tmp_path, content).objects[0][0] == "Äpfel"


@pytest.mark.parametrize("name", ["unknown", "x-user-defined", "hex", "rot13", "unicode_escape", "punycode", "x" * 300])
def test_an_unknown_encoding_is_named(tmp_path, name):
    message = refused(tmp_path, f'<?xml version="1.0" encoding="{name}"?>' + document())
    assert f"declares an unknown encoding, '{name}'" in message and "Save it as UTF-8" in message


def test_bytes_that_are_no_text_in_the_encoding_are_named(tmp_path):
    assert "is not text in UTF-8: byte 0xc4 at position 26. Save it as UTF-8" in refused(
        tmp_path, document("<name>Äpfel</name>").encode("latin-1"))
    assert "is not text in GBK" in refused(tmp_path, b'<?xml version="1.0" encoding="gbk"?><annotation>\xff</annotation>')


def test_every_encoding_of_python_gives_a_result_or_an_error_that_names_the_file(tmp_path):
    import encodings.aliases
    for name in sorted(set(encodings.aliases.aliases.values()) | {"idna", "punycode", "undefined", "unicode_escape", "mbcs"}):
        for content in (document(f"<name>cat</name>{BOX}").encode(), document("<name>\\ud800</name>" + BOX).encode(), b"\xff\x00\x81"):
            try:
                read(tmp_path, f'<?xml version="1.0" encoding="{name}"?>'.encode() + content)
            except BadInput as error:
                assert "a.xml" in str(error)


# What the file says

@pytest.mark.parametrize("text, flags", [
    ("1", 1), ("1 ", 1), ("1.0", 1), ("True", 1), ("true", 1), ("yes", 1), ("Y", 1), ("2", 1), ("0", 0), ("0.0", 0), ("False", 0),
    ("no", 0),
    ("", 0), ("None", 0), ("nan", 0), ("-1", 0), ("Unspecified", 0)])
def test_difficult_as_programs_write_it(tmp_path, text, flags):
    annotation = read(tmp_path, document(f"<name>cat</name><difficult>{text}</difficult>{BOX}"))
    assert annotation.objects[0][1] == flags * DIFFICULT


@pytest.mark.parametrize("height, width, size", [
    ("48", "64", (48, 64)), ("48.0", " 64 ", (48, 64)), ("None", "64", None), ("", "", None), ("0", "64", None),
    ("99999999999", "64", None),
    ("48.5", "64", None), ("-48", "64", None), ("4.8e1", "64", (48, 64))])
def test_a_size_is_read_or_left_to_the_image(tmp_path, height, width, size):
    text = document(more=f"<size><width>{width}</width><height>{height}</height></size>")
    assert read(tmp_path, text).size == size


def test_the_file_name_of_the_image(tmp_path):
    assert read(tmp_path, document(more="<filename> a b.png\n</filename>")).file_name == "a b.png"
    assert read(tmp_path, document()).file_name == "" and read(tmp_path, document()).size is None


@pytest.mark.parametrize("text, number", [
    ("1.5", 1.5), (" 2\n", 2), ("-3", -3), ("1e2", 100), ("nan", None), ("inf", None), ("1e300", None)])
def test_corners_are_delivered_as_they_stand(tmp_path, text, number):
    value = read(tmp_path, document(f"<name>cat</name>{BOX.replace('>3<', f'>{text}<')}")).objects[0][4]
    assert math.isnan(value) if number is None else value == number


@pytest.mark.parametrize("polygon", [
    "<polygon><x1>5</x1><y1>6</y1><x2>9.5</x2><y2>2</y2><x3>7</x3><y3>8</y3></polygon>",
    "<polygon><username>me</username><pt><x>5</x><y>2</y></pt><pt><x>9.5</x><y>8</y></pt></polygon>",
    "<polygon><point><x>5</x><y>2</y></point><point><x>9.5</x><y>8</y></point></polygon>",
    "<points>5,2;9.5,8;6,6</points>", "<polygon>5 2 9.5 8</polygon>", "<segmentation>5,2,9.5,8</segmentation>"])
def test_the_box_of_a_polygon(tmp_path, polygon):
    assert read(tmp_path, document(f"<name>cat</name>{polygon}")).objects == [("cat", 0, 5, 2, 9.5, 8)]
    assert read(tmp_path, document(f"<name>cat</name><bndbox/>{polygon}")).objects == [("cat", 0, 5, 2, 9.5, 8)]
    assert read(tmp_path, document(f"<name>cat</name>{BOX}{polygon}")).objects == [("cat", 0, 1, 2, 3, 4)], "the box comes first"


# Files that are none

def test_objects_that_were_deleted_in_labelme_are_left_out(tmp_path):
    content = document(f"<name>cat</name><deleted>1</deleted>{BOX}", f"<name>dog</name><deleted>0</deleted>{BOX}")
    assert [entry[0] for entry in read(tmp_path, content).objects] == ["dog"]


@pytest.mark.parametrize("degrees, corners", [("90.0", [1.5, 1, 2.5, 3]), ("0.0", [1, 1.5, 3, 2.5]), ("", [1, 1.5, 3, 2.5])])
def test_a_rotated_box_of_cvat_is_the_box_around_it(tmp_path, degrees, corners):
    box = "<bndbox><xmin>1</xmin><ymin>1.5</ymin><xmax>3</xmax><ymax>2.5</ymax></bndbox>"
    attributes = f"<attributes><attribute><name>rotation</name><value>{degrees}</value></attribute></attributes>"
    assert read(tmp_path, document(f"<name>cat</name>{box}{attributes}")).objects[0][2:] == pytest.approx(corners)


@pytest.mark.parametrize("content, sentence", [
    ("", "is no XML: the file is empty"), (" \n", "is no XML: the file is empty"), ("cat 1 2 3 4", "is no XML: syntax error"),
    ("<annotation>", "is no XML: no element found"), (document("<name>&cat;</name>"), "is no XML: undefined entity"),
    ("<html><body/></html>", "its root element is <html>, not <annotation>"),
    ("<annotations><image/></annotations>", "its root element is <annotations>, not <annotation>"),
    (document("<name>cat</name><polygon><x1>1</x1></polygon>"), "object 1 (cat) has no bndbox, and a polygon that is no list of points"),
    (document("<name>cat</name><polygon><x1>1</x1><y1>?</y1></polygon>"), "a polygon that is no list of points x, y"),
    (document(f"<name>cat</name>{BOX}", BOX), "object 2 has no name")])
def test_what_is_wrong_is_said(tmp_path, content, sentence):
    assert sentence in refused(tmp_path, content)


def test_a_missing_and_a_forbidden_file(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="no such annotation file: .*b.xml"):
        read_xml(str(tmp_path / "b.xml"))

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", path)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(BadInput, match="cannot read annotation file .*b.xml: Permission denied"):
        read_xml(str(tmp_path / "b.xml"))


def test_entities_and_deep_nesting_end_quickly(tmp_path):
    started_at = time.process_time()
    entities = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 12))
    bomb = f'<!DOCTYPE annotation [<!ENTITY e0 "lol">{entities}]>' + document(f"<name>&e11;</name>{BOX}")
    assert "declares entities" in refused(tmp_path, bomb)
    for tag in ("a", "object", "polygon"):
        deep = f"<{tag}>" * 100_000 + f"</{tag}>" * 100_000
        try:
            read(tmp_path, document(f"<name>cat</name>{BOX}{deep}"))
        except BadInput as error:
            assert "a.xml: object 2 has no bndbox" in str(error) and tag == "object"
    assert time.process_time() - started_at < 10


def test_a_document_type_without_entities_is_read(tmp_path):
    assert read(tmp_path, '<!DOCTYPE annotation SYSTEM "voc.dtd">' + document(f"<name>cat</name>{BOX}")).objects
