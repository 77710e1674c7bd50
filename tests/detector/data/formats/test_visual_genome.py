"""Visual Genome: a small tree in both of its layouts, its vocabulary, its splits, and what is said of mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.config.schema import Data
from detector.data.corrections import fix_invalid_boxes
from detector.data.formats import visual_genome, visual_genome_json
from detector.data.formats.visual_genome import normalize_name, read, read_vocabulary, sources, write_vocabulary
from detector.data.formats.visual_genome_json import iter_json_list
from detector.data.read import read_datasets
from detector.errors import BadInput

# id -> (height, width) and objects: names, x, y, w, h
PICTURES = {
    1: ((40, 60), [(["man"], 1, 2, 10, 20), (["Tree."], 0, 0, 60, 40), (["unheard of"], 5, 5, 5, 5)]),
    2: ((60, 40), [(["a  Gentleman"], 3, 4, 5, 6)]),
    3: ((50, 50), []),
    4: ((30, 30), [(["oak"], 10, 10, 30, 30), (["man"], 5, 5, 0, 5)])}
VOCABULARY = "man,a gentleman,guy\ntree,oak\n\nunicorn\n"
LISTS = {"train": [2, 1, 3], "val": [4], "test": [4, 3]}


def make(root: Path, layout: str) -> Path:
    (root / "3").mkdir(parents=True)
    (root / "3" / "objects_vocab.txt").write_text(VOCABULARY)
    for name, ids in LISTS.items():
        (root / f"{name}.txt").write_text("".join(f"VG_100K{'_2' * (n % 2)}/{n}.jpg xml/{n}.xml\n" for n in ids))
    for n, ((height, width), _) in PICTURES.items():
        path = root / f"VG_100K{'_2' * (n % 2)}" / f"{n}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (width, height)).save(path)
    if layout == "json":
        (root / "image_data.json").write_text(json.dumps([
            {"image_id": n, "width": width, "height": height, "url": f"https://x/{n}.jpg"}
            for n, ((height, width), _) in PICTURES.items()]))
        (root / "objects.json").write_text(json.dumps([
            {"image_id": n, "objects": [{"names": names, "x": x, "y": y, "w": w, "h": h, "object_id": 1, "synsets": []}
                                        for names, x, y, w, h in objects]} for n, (_, objects) in PICTURES.items()]))
        return root
    (root / "xml").mkdir()
    for n, ((height, width), objects) in PICTURES.items():
        if objects:  # there is no file for an image without an object
            (root / "xml" / f"{n}.xml").write_text(
                f"<annotation><size><width>{width}</width><height>{height}</height></size>" + "".join(
                    f"<object><name>{normalize_name(names[0])}</name><difficult>0</difficult><attribute>red</attribute><bndbox>"
                    f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                    for names, x, y, w, h in objects) + "</annotation>")
    return root


@pytest.fixture(params=["json", "xml"])
def root(request, tmp_path) -> str:
    return str(make(tmp_path / "vg", request.param))


def test_both_layouts_are_read_alike(root):
    dataset = read(root, "3/train")
    assert dataset.classes == ("man", "tree", "unicorn") and dataset.category_ids.tolist() == [1, 2, 3]
    assert dataset.image_ids.tolist() == [2, 1, 3], "in the order of the list"
    assert [dataset.path(n) for n in range(3)] == [f"{root}/VG_100K/2.jpg", f"{root}/VG_100K_2/1.jpg",
                                                    f"{root}/VG_100K_2/3.jpg"]
    assert dataset.sizes.tolist() == [[60, 40], [40, 60], [50, 50]]
    assert dataset.boxes_per_image().tolist() == [1, 2, 0]
    assert dataset.labels.tolist() == [1, 1, 2], "by a synonym; case, spaces and full stops do not count"
    assert dataset.boxes.tolist() == [[3, 4, 8, 10], [1, 2, 11, 22], [0, 0, 60, 40]]
    assert dataset.areas.tolist() == [30, 200, 2400] and not dataset.flags.any()


def test_faulty_boxes_are_mended_as_everywhere(root):
    dataset = read(root, "3/val")
    assert dataset.boxes.tolist() == [[10, 10, 40, 40], [5, 5, 5, 10]] and dataset.labels.tolist() == [2, 1]
    mended = fix_invalid_boxes(dataset, "clip")
    assert mended.boxes.tolist() == [[10, 10, 30, 30]] and len(mended.warnings) == len(dataset.warnings) + 2


def test_training_and_validation_have_the_whole_vocabulary(root, tmp_path):
    train, val = read_datasets(Data(format="visual_genome", root=root, train=("3/train",), val=("3/test",),
                                    cache=str(tmp_path / "cache")))
    assert train.classes == val.classes == ("man", "tree", "unicorn") and len(val) == 2
    again, _ = read_datasets(Data(format="visual_genome", root=root, train=("3/train",), val=("3/test",),
                                  cache=str(tmp_path / "cache")))
    assert np.array_equal(again.boxes, train.boxes)


def test_an_image_without_annotations_has_no_objects_and_its_size_from_the_file(tmp_path):
    root = make(tmp_path / "json", "json")
    for name in ("objects.json", "image_data.json"):
        kept = [entry for entry in json.loads((root / name).read_text()) if entry["image_id"] != 1]
        (root / name).write_text(json.dumps(kept))
    for place in (root, make(tmp_path / "xml", "xml")):
        (place / "xml" / "1.xml").unlink(missing_ok=True)
        dataset = read(str(place), "3/train")
        assert dataset.boxes_per_image().tolist() == [1, 0, 0] and dataset.sizes[1].tolist() == [40, 60]
        assert "images without objects" in dataset.warnings[0] or "an image without objects" in dataset.warnings[0]


def test_the_sources_are_all_that_a_change_would_show_in(root):
    files = {Path(path).name for path in sources(root, "3/train")}
    assert {"train.txt", "objects_vocab.txt"} < files
    assert files - {"train.txt", "objects_vocab.txt"} in ({"1.xml", "2.xml"}, {"objects.json", "image_data.json"})


def test_the_smaller_splits_are_the_first_lines(tmp_path):
    """lib/datasets/factory.py of the published tables: mini and small of training and validation."""
    lines = [(f"VG_100K/{n}.jpg", f"xml/{n}.xml") for n in range(1, 20502)]
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{image} {xml}\n" for image, xml in lines))
    for split, count in [("minitrain", 1000), ("smalltrain", 20000), ("minival", 100), ("smallval", 2000),
                         ("train", 20501), ("val", 20501), ("test", 20501)]:
        assert visual_genome._lines(str(tmp_path), split) == lines[:count]


@pytest.mark.parametrize("split, pattern", [
    ("train", "VERSION/NAME, such as 2500/train"), ("3/trainval", "NAME is one of train, val, test"),
    ("4/train", r"no vocabulary .*4.objects_vocab.txt. Versions: 3"), ("3/val", "")])
def test_a_split_that_is_not_there(root, split, pattern):
    if pattern:
        with pytest.raises(BadInput, match=pattern):
            read(root, split)
        return
    Path(root, "val.txt").unlink()
    with pytest.raises(BadInput, match="no list of images .*val.txt.*data get visual_genome"):
        read(root, split)


@pytest.mark.parametrize("line", ["VG_100K/1.jpg", "one two three", "VG_100K/cat.jpg xml/cat.xml"])
def test_a_line_of_a_list_that_is_none(root, line):
    Path(root, "val.txt").write_text(f"VG_100K/4.jpg xml/4.xml\n{line}\n")
    with pytest.raises(BadInput, match="a line is `VG_100K/1.jpg xml/1.xml`, not "):
        read(root, "3/val")


def test_broken_annotations_are_named(tmp_path):
    root = make(tmp_path / "xml", "xml")
    (root / "xml" / "1.xml").write_text("<annotation>")
    (root / "xml" / "2.xml").write_text("<annotation><object><name>man</name></object></annotation>")
    with pytest.raises(BadInput, match=r"2 mistakes[\s\S]*2\.xml: object 1 \(man\) has no bndbox[\s\S]*1\.xml is no XML"):
        read(str(root), "3/train")
    root = make(tmp_path / "json", "json")
    (root / "image_data.json").unlink()
    with pytest.raises(BadInput, match="no such annotation file: .*image_data.json"):
        read(str(root), "3/train")


# The vocabulary

@pytest.mark.parametrize("content, pattern", [("", "contains no class"), ("\n , \n", "contains no class"),
                                              ("man\ntree\nman,guy\n", "occur twice: man")])
def test_a_vocabulary_that_is_none(tmp_path, content, pattern):
    (tmp_path / "vocab.txt").write_text(content)
    with pytest.raises(BadInput, match=pattern):
        read_vocabulary(str(tmp_path / "vocab.txt"))


def test_the_vocabulary_is_by_frequency_in_training_then_by_name_whatever_the_order(tmp_path):
    counts = {"man": 5, "zebra": 3, "apple": 3, "Oak ": 3, "cat": 1, "a, b": 9}
    objects = [{"names": [name]} for name, count in counts.items() for _ in range(count)] + [{"names": []}]
    (tmp_path / "train.txt").write_text("VG_100K/1.jpg xml/1.xml\nVG_100K/2.jpg xml/2.xml\n")
    written = []
    for order in (1, -1):
        (tmp_path / "objects.json").write_text(json.dumps([
            {"image_id": 1, "objects": objects[::2][::order]}, {"image_id": 2, "objects": objects[1::2][::order]},
            {"image_id": 3, "objects": [{"names": ["only in the test images"]}] * 50}][::order]))
        write_vocabulary(tmp_path, 4, tmp_path / "4" / "objects_vocab.txt")
        written.append((tmp_path / "4" / "objects_vocab.txt").read_bytes())
    assert written[0] == written[1] == b"man\napple\noak\nzebra\n"
    assert read_vocabulary(str(tmp_path / "4" / "objects_vocab.txt"))[0] == ["man", "apple", "oak", "zebra"]
    with pytest.raises(BadInput, match="has 5 names of objects in the training images, 6 are needed"):
        write_vocabulary(tmp_path, 6, tmp_path / "6" / "objects_vocab.txt")
    assert not (tmp_path / "6").exists()


@pytest.mark.parametrize("name, cleaned", [("Man", "man"), (" a  big\tTree . ", "a big tree"), ("U.S.", "u.s"), ("", "")])
def test_names_are_cleaned(name, cleaned):
    assert normalize_name(name) == cleaned


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_a_list_is_read_piece_by_piece(tmp_path, monkeypatch, block):
    monkeypatch.setattr(visual_genome_json, "BLOCK", block)
    said = [{"image_id": 1, "objects": [{"names": ["[a], {b}\\\""]}]}, {}, {"x": "é"}]
    for text in (json.dumps(said), json.dumps(said, indent=2), json.dumps(said, separators=(",", ":"))):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        assert list(iter_json_list(str(tmp_path / "a.json"))) == said
    (tmp_path / "a.json").write_text("[]")
    assert list(iter_json_list(str(tmp_path / "a.json"))) == []
    for cut in (json.dumps(said)[:-5], '[{"a": 1}, x]'):
        (tmp_path / "a.json").write_text(cut)
        with pytest.raises(BadInput, match="is truncated"):
            list(iter_json_list(str(tmp_path / "a.json")))
