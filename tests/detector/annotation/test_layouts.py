"""Annotations written in place: what is not changed keeps its bytes, in every layout; and folders without labels."""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import shared_data
from PIL import Image

from detector.annotation.label_set import Conflict, LabelSet, check_objects
from detector.annotation.open_source import open_source
from detector.annotation.texts import split_array
from detector.config.schema import Data
from detector.data.convert import convert
from detector.data.read import read_splits
from detector.errors import BadInput

SETS = [("bccd", "train"), ("coco_tiny", "train2017"), ("heads", ""), ("yolo", "val")]


def files_of(root: Path) -> dict[str, bytes]:
    """Returns the content of all files below a folder but images."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*")
            if path.is_file() and path.suffix not in (".jpg", ".png")}


@pytest.fixture
def copy_of(tmp_path):
    """Returns a function that copies a real data set; yolo is made from one."""
    def copy(name: str) -> Path:
        if name == "yolo":
            convert(str(shared_data("bccd")), "yolo", str(tmp_path / name), splits=("val",))
        else:
            shutil.copytree(shared_data(name), tmp_path / name, copy_function=os.link)
            for path in (tmp_path / name).rglob("*"):
                if path.suffix in (".json", ".xml", ".txt"):
                    content = path.read_bytes()
                    path.unlink()
                    path.write_bytes(content)
        return tmp_path / name
    return copy


def photographs(folder: Path, count: int = 3, size=(60, 40)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", size, (number * 30, 90, 120)).save(folder / f"{number}.png")
    return folder


def opened(root: Path, classes=(), split: str = "") -> LabelSet:
    return open_source(str(root), classes, split, follow_links=False)[0]


def pairs(objects: list[dict]) -> list[tuple]:
    return [(entry["name"], entry["box"]) for entry in objects]


def changed(objects: list[dict], draw: random.Random, classes: list[str], size) -> list[dict]:
    """Returns objects with one added, deleted, or moved and of another class."""
    objects, kind = [dict(entry) for entry in objects], draw.randrange(3)
    box = [3.0, 4.0, float(draw.randint(5, size[1])), float(draw.randint(6, size[0]))]
    if kind == 0 or not objects:
        return [*objects, {"key": "", "name": draw.choice(classes), "box": box}]
    if kind == 1:
        del objects[draw.randrange(len(objects))]
    else:
        draw.choice(objects).update(name=draw.choice(classes), box=box)
    return objects


@pytest.mark.parametrize("name, split", SETS)
def test_changes_are_in_the_file_and_undoing_them_gives_the_same_bytes(name, split, copy_of):
    root, draw = copy_of(name), random.Random(0)
    before, labels = files_of(root), opened(root, split=split)
    assert files_of(root) == before
    for index in draw.sample(range(len(labels.images)), 5):
        first = saved = labels.load(index)
        keep = first.objects[:1]  # COCO: where annotations of one image lie apart, one that stays keeps their place
        for _ in range(6):
            objects = keep + changed(saved.objects[1:], draw, labels.classes, labels.size(index))
            saved = labels.save(index, saved.version, True, objects)
            assert pairs(saved.objects) == pairs(objects)
            assert opened(root, split=split).load(index) == saved
        assert files_of(root) != before
        assert labels.save(index, saved.version, first.is_labelled, first.objects) == first
    if name != "coco_tiny":
        assert files_of(root) == before
    else:
        path = "annotations/instances_train2017.json"
        old, new = (json.loads(content) for content in (before[path], files_of(root)[path]))
        by_id = [sorted(part.pop("annotations"), key=lambda entry: entry["id"]) for part in (old, new)]
        assert by_id[0] == by_id[1] and old == new


@pytest.mark.parametrize("name, split", SETS)
def test_a_training_reads_what_was_written(name, split, copy_of):
    root = copy_of(name)
    labels = opened(root, split=split)
    objects = labels.load(1).objects[:1] + [{"key": "", "name": labels.classes[-1], "box": [2.0, 3.0, 31.0, 27.0]}]
    labels.save(1, labels.load(1).version, True, objects)
    data = read_splits(Data(root=str(root), format=labels.layout, cache="", train=(labels.split,)), (labels.split,))
    index = [data.path(i) for i in range(len(data))].index(labels.images[1])
    rows = data.rows(index)
    assert [data.classes[label - 1] for label in data.labels[rows]] == [entry["name"] for entry in objects]
    expected = np.array([entry["box"] for entry in objects])
    assert np.abs(data.boxes[rows] - np.clip(expected, 0, None)).max() < 0.5 or name == "heads"
    assert np.abs(data.boxes[rows][1] - expected[1]).max() < 0.01


def test_fields_that_are_not_known_stay(tmp_path):
    root = photographs(tmp_path / "a")
    entry = {"id": 7, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 20], "area": 123.5,
             "segmentation": [[1, 2, 11, 2, 11, 22]], "attributes": {"night": True}}
    content = {"info": {"by": "ünknown"}, "images": [{"id": 1, "file_name": "0.png", "width": 60, "height": 40, "flickr": "x"},
                                                     {"id": 2, "file_name": "1.png", "width": 60, "height": 40}],
               "annotations": [entry], "categories": [{"id": 3, "name": "cat", "colour": "red"}], "extra": [1, 2]}
    (root / "train.json").write_text(json.dumps(content, indent=3, ensure_ascii=False))
    labels = opened(root, ["dog"])
    first = labels.load(0)
    assert labels.states == {0: "labelled", 1: "unlabelled"}
    saved = labels.save(0, first.version, True, [{**first.objects[0], "name": "dog", "box": [1.0, 2.0, 31.0, 22.0]}])
    labels.save(1, labels.load(1).version, True, [])
    assert opened(root).states == {0: "labelled", 1: "empty"}
    new = json.loads((root / "train.json").read_text())
    assert new["annotations"] == [entry | {"bbox": [1.0, 2.0, 30.0, 20.0], "category_id": 4}]  # the area is a mask's
    assert new["categories"] == [*content["categories"], {"id": 4, "name": "dog"}] and new["images"][1]["annotated"] is True
    assert {key: new[key] for key in ("info", "extra")} == {key: content[key] for key in ("info", "extra")}
    labels.save(0, saved.version, True, first.objects)
    labels.save(1, labels.load(1).version, False, [])
    assert json.loads((root / "train.json").read_text())["images"] == content["images"]
    assert json.loads((root / "train.json").read_text())["annotations"] == content["annotations"]


def test_parts_pose_and_comments_of_voc_and_polygons_of_yolo_stay(tmp_path):
    root = photographs(tmp_path / "voc" / "JPEGImages").parent
    text = ('<?xml version="1.0" encoding="ISO-8859-1"?>\r\n<annotation><owner>Jos\xe9</owner><object>\r\n <part><name>head</name>'
            "<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part><name>cat</name><pose>Left</pose>"
            "<bndbox><xmin> 2 </xmin><ymin>3</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object><!-- between --><object><name>dog</name>"
            "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>")
    (root / "Annotations").mkdir()
    path = root / "Annotations" / "0.xml"
    path.write_bytes(text.encode("latin-1"))
    labels = opened(root, ["Ж & co"])
    assert len(labels.images) == 3 and [labels.states[i] for i in range(3)] == ["labelled", "unlabelled", "unlabelled"]
    cat, dog = labels.load(0).objects
    assert cat["box"] == [1, 2, 20, 30]
    labels.save(0, labels.load(0).version, True, [{**cat, "name": "dog", "box": [1.0, 2.0, 25.0, 30.0]}, dog])
    assert path.read_bytes() == text.replace("<name>cat", "<name>dog").replace("<xmax>20", "<xmax>25").encode("latin-1")
    saved = labels.save(0, labels.load(0).version, True, [{"key": "", "name": "Ж & co", "box": [0.0, 0.0, 60.0, 40.0]}])
    assert pairs(saved.objects) == [("Ж & co", [0, 0, 60, 40])] and b"<!-- between -->" in path.read_bytes()
    labels.save(0, saved.version, True, [cat, dog])
    assert sorted(path.read_bytes()) == sorted(text.encode("latin-1"))

    root = photographs(tmp_path / "yolo")
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "0.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\r\n\r\n1 0.5 0.5 0.2 0.2 0.9")
    labels = opened(root)
    polygon, box = labels.load(0).objects
    assert polygon["box"] == [6, 4, 30, 20]
    labels.save(0, labels.load(0).version, True, [{**polygon, "box": [12.0, 4.0, 36.0, 20.0]}, box,
                                                  {"key": "", "name": "cat", "box": [0.0, 0.0, 6.0, 4.0]}])
    assert (root / "0.txt").read_bytes() == (b"0 0.2 0.1 0.6 0.1 0.6 0.5\r\n\r\n1 0.5 0.5 0.2 0.2 0.9\n0 0.05 0.05 0.1 0.1\n")
    labels.save(1, labels.load(1).version, True, [])
    assert (root / "1.txt").read_bytes() == b"" and labels.states[1] == "empty"


@pytest.mark.parametrize("folder, below", [("photos", ""), ("photos", "images"), ("images", "")])
def test_a_folder_of_photographs_becomes_a_data_set(tmp_path, folder, below):
    photographs(tmp_path / folder / below)
    labels = opened(tmp_path / folder, ["head", "eye"])
    assert set(labels.states.values()) == {"unlabelled"} and not list(tmp_path.rglob("*.json"))
    for index, objects in ((0, [{"key": "", "name": "eye", "box": [1.0, 2.0, 30.5, 39.0]}]), (2, [])):
        labels.save(index, labels.load(index).version, True, objects)
    again = opened(tmp_path / folder)
    assert again.classes == ["eye"] and again.states == {0: "labelled", 1: "unlabelled", 2: "empty"}
    assert again.load(0) == labels.load(0)
    data = read_splits(Data(root=labels.root, format="per_image_json", train=("all",), cache=""), ("all",))
    assert len(data) == 2 and data.boxes.tolist() == [[1, 2, 30.5, 39]]
    labels.save(0, labels.load(0).version, False, [])
    assert labels.states[0] == "unlabelled" and len(list(tmp_path.rglob("*.json"))) == 1


def test_a_save_with_an_old_version_is_refused_and_boxes_and_classes_are_checked(tmp_path):
    labels, other = (opened(photographs(tmp_path), ["cat"]) for _ in range(2))
    box = [{"key": "", "name": "cat", "box": [1.0, 2.0, 30.0, 39.0]}]
    old = labels.load(0).version
    assert other.save(0, old, True, box).version == labels.load(0).version != old
    before = files_of(tmp_path)
    with pytest.raises(Conflict):
        labels.save(0, old, True, [])
    for wrong in ({"box": [1.0, 2.0, 1.0, 9.0]}, {"box": [-1.0, 2.0, 9.0, 9.0]}, {"box": [1.0, 2.0, 61.0, 9.0]},
                  {"box": [1.0, float("nan"), 9.0, 9.0]}, {"name": "dog"}):
        with pytest.raises(BadInput):
            labels.save(0, labels.load(0).version, True, [box[0] | wrong])
    for wrong in (None, {}, [1], [{"key": "", "name": "cat"}], [box[0] | {"box": [1, 2, 3]}], [box[0] | {"box": [1, 2, 3, True]}],
                  [box[0] | {"key": 7}]):
        with pytest.raises(BadInput):
            check_objects(wrong)
    assert files_of(tmp_path) == before


def test_sources_that_cannot_be_labelled_are_refused_with_a_remedy(tmp_path):
    outside = photographs(tmp_path / "outside")
    links = tmp_path / "links"
    links.mkdir()
    for path in outside.iterdir():
        (links / path.name).symlink_to(path)
    with pytest.raises(BadInput, match="lie outside .* --follow-links"):
        opened(links, ["cat"])
    Image.new("RGB", (9, 9)).save(links / "own.png")
    labels, notes = open_source(str(links), ["cat"], "", False)
    assert list(labels.indices) == [labels.images.index(str(links / "own.png"))] and "left out, outside" in notes[0] and "2.png" in notes[0]
    assert len(open_source(str(links), ["cat"], "", True)[0].indices) == 4
    (outside / "labels").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="the annotations .* lie outside"):
        opened(outside, ["cat"])
    photographs(tmp_path / "nested" / "camera1")
    with pytest.raises(BadInput, match="itself holds no image: name .*nested/camera1"):
        opened(tmp_path / "nested", ["cat"])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BadInput, match="no image in"):
        opened(tmp_path / "nothing", ["cat"])
    with pytest.raises(BadInput, match="no such file or folder"):
        opened(tmp_path / "missing", ["cat"])


@pytest.mark.parametrize("text", [
    '{"a": [1, [2]], "b": [ {"x": "]"} ,\n 3]}', '{"b": []}', '\ufeff {"b":[1]}', '{"b": {"b": [1]}, "b": [ 1 ]}'])
def test_an_array_of_a_json_text_is_split_and_joined(text):
    array = split_array(text, "b")
    assert array.join() == text
    array.insert(0, '"new"')
    array.insert(len(array.elements), '"last"')
    elements = json.loads(array.join().lstrip("\ufeff"))["b"]
    assert (elements[0], elements[-1]) == ("new", "last")
    array.remove(0)
    array.remove(len(array.elements) - 1)
    assert array.join() == text
    with pytest.raises(ValueError):
        split_array('{"a": 1}', "b")
