"""Visual Genome's JSON files: versions 1.0, 1.2 and 1.4, numbers as texts, and files that are none."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.corrections import fix_duplicates
from detector.data.formats import visual_genome
from detector.data.formats.visual_genome_json import iter_json_list
from detector.errors import BadInput

OBJECTS = {"1.0": {"id": 1058498, "synsets": [{"synset_name": "man.n.01"}]}, "1.2": {"object_id": 1058498, "synsets": ["man.n.01"]},
           "1.4": {"object_id": 1058498, "synsets": ["man.n.01"], "merged_object_ids": [5046]}}
BOX = {"names": ["man"], "x": 1, "y": 2, "w": 3, "h": 4}


def make(root: Path, image_data: list, objects: list, lines: str = "VG_100K/1.jpg xml/1.xml\n") -> Path:
    (root / "v").mkdir(parents=True)
    (root / "v" / "objects_vocab.txt").write_text("man\ntree\n")
    (root / "val.txt").write_text(lines)
    (root / "image_data.json").write_text(json.dumps(image_data))
    (root / "objects.json").write_text(json.dumps(objects))
    (root / "VG_100K").mkdir()
    Image.new("RGB", (60, 40)).save(root / "VG_100K" / "1.jpg")
    return root


def refused(root: Path) -> str:
    with pytest.raises(BadInput) as caught:
        visual_genome.read(str(root), "v/val")
    return str(caught.value)


@pytest.mark.parametrize("version, image_key, entry_key", [
    ("1.0", "id", "id"), ("1.2", "image_id", "image_id"), ("1.4", "image_id", "image_id")])
@pytest.mark.parametrize("number", [1, "1", " 1 ", 1.0])
def test_every_version_is_read_alike(tmp_path, version, image_key, entry_key, number):
    root = make(tmp_path / "vg", [{image_key: number, "width": "60", "height": 40.0, "url": "https://x", "coco_id": None, "flickr_id": 7}],
                [{entry_key: number, "objects": [{**BOX, **OBJECTS[version]}], "image_url": "https://x"}])
    dataset = visual_genome.read(str(root), "v/val")
    assert dataset.boxes.tolist() == [[1, 2, 4, 6]] and dataset.labels.tolist() == [1]
    assert dataset.sizes.tolist() == [[40, 60]] and dataset.sized_by_header == () and dataset.warnings == ()


@pytest.mark.parametrize("size", [{}, {"width": None, "height": None}, {"width": 0, "height": 40}, {"width": 2**40, "height": 40}])
def test_a_size_that_is_not_stated_comes_from_the_photograph(tmp_path, size):
    dataset = visual_genome.read(str(make(tmp_path / "vg", [{"image_id": 1, **size}], [{"image_id": 1, "objects": []}])), "v/val")
    assert dataset.sizes.tolist() == [[40, 60]] and dataset.sized_by_header == (0,)


@pytest.mark.parametrize("change, box", [({"x": "1", "w": "3.0"}, [1, 2, 4, 6]), ({"w": 1e300}, None), ({"x": 10**400}, None),
                                         ({"names": "man"}, [1, 2, 4, 6])])
def test_numbers_and_names_as_programs_write_them(tmp_path, change, box):
    root = make(tmp_path / "vg", [], [{"image_id": 1, "objects": [{**BOX, **change}]}])
    boxes = visual_genome.read(str(root), "v/val").boxes
    assert np.isnan(boxes).any() if box is None else boxes.tolist() == [box]


@pytest.mark.parametrize("entry, sentence", [
    ({"image_id": 1}, "objects.json: image 1 has no list of objects"), ({"image_id": 1, "objects": {}}, "image 1 has no list of objects"),
    ({"objects": []}, "objects.json: entry 1 has no image_id that is a number, but None"), (5, "entry 1 has no image_id"),
    ({"image_id": "one", "objects": []}, "entry 1 has no image_id that is a number, but 'one'"), ({"image_id": True}, "but True"),
    ({"image_id": 1, "objects": [{**BOX, "x": None}]}, "image 1: object 1 has no box x, y, w, h of numbers"),
    ({"image_id": 1, "objects": [BOX, {**BOX, "names": [1]}, 7]}, "image 1: object 2 has no list of names, but [1], and 1 more objects")])
def test_entries_that_cannot_be_used_are_named(tmp_path, entry, sentence):
    assert sentence in refused(make(tmp_path / "vg", [], [entry]))


@pytest.mark.parametrize("content, sentence", [
    (b"[{]", "objects.json is no JSON list, or is truncated"), (b"[" + b'{"a":' * 100_000, "objects.json is nested too deeply"),
    (b'[{"image_id": 1, "objects": "\xdf"}]', "objects.json is not text in UTF-8. Save it as UTF-8"), (b"{", "is no JSON list"),
    (b"[" + b"9" * 5000 + b"]", "is no JSON list")])
def test_files_that_are_none_are_named(tmp_path, content, sentence):
    root = make(tmp_path / "vg", [], [])
    (root / "objects.json").write_bytes(content)
    assert sentence in refused(root)


def test_a_mistake_far_from_the_end_is_noticed_before_the_whole_file_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, x' + "1" * (3 << 20) + "]")
    with pytest.raises(BadInput, match="Expecting value: line 1 column 12 "):
        list(iter_json_list(str(path)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_may_have_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "a.json").write_bytes('[{"names": ["Äpfel"]}]'.encode(encoding))
    assert list(iter_json_list(str(tmp_path / "a.json"))) == [{"names": ["Äpfel"]}]


def test_photographs_may_lie_in_another_folder(tmp_path):
    root = make(tmp_path / "vg", [], [{"image_id": 1, "objects": []}])
    for folder in ("VG_100K_2", "images", "elsewhere"):
        (root / folder).mkdir(exist_ok=True)
        next(root.glob("*/1.jpg")).rename(root / folder / "1.jpg")
        images = folder if folder == "elsewhere" else ""
        assert Path(visual_genome.read(str(root), "v/val", images).path(0)) == root / folder / "1.jpg"
    assert "no such image file" in refused(root)


def test_lines_that_repeat_an_image_stay_with_ids_of_their_own_for_the_option_that_counts_them(tmp_path):
    root = make(tmp_path / "vg", [], [{"image_id": 1, "objects": [BOX]}], "VG_100K/1.jpg xml/1.xml\nVG_100K\\1.jpg xml\\1.xml\n")
    dataset = visual_genome.read(str(root), "v/val")
    assert dataset.image_ids.tolist() == [1, 2] and dataset.boxes_per_image().tolist() == [1, 1]
    fixed = fix_duplicates(dataset, "drop")
    assert fixed.image_ids.tolist() == [1] and len(fixed.boxes) == 1 and fixed.warnings[0].startswith("1 image is listed again")


@pytest.mark.parametrize("name", ["val.txt", "v/objects_vocab.txt"])
def test_a_list_that_is_not_utf8_or_empty_is_named(tmp_path, name):
    root = make(tmp_path / "vg", [], [{"image_id": 1, "objects": []}])
    text = (root / name).read_text()
    (root / name).write_bytes(text.encode() + b"Stra\xdfe")
    assert f"{name} is not text in UTF-8: byte 0xdf" in refused(root)
    (root / name).write_bytes(text.encode("utf-16"))
    assert len(visual_genome.read(str(root), "v/val")) == 1
    (root / name).write_text("\n")
    assert "lists no image" in refused(root) if name == "val.txt" else "contains no class" in refused(root)


@pytest.mark.parametrize("content, sentence", [
    ("", "objects.json is empty. Fetch it again"),
    ('[{"image_id": 1, "objects": []}', "objects.json is truncated: its list has no end. Fetch it"),
    ('[{"image_id": 1, "objects": []},\n', "is truncated"), ("[", "is truncated"), (" \n", "is truncated")])
def test_a_file_without_the_end_of_its_list_is_truncated(tmp_path, content, sentence):
    root = make(tmp_path / "vg", [], [])
    (root / "objects.json").write_text(content)
    assert sentence in refused(root)
