"""What `annotate` opens: the same images and classes each time, links that stay links, and sources without images."""

import json

import pytest
from PIL import Image
from test_layouts import opened, photographs

from detector.annotation.open_source import open_source
from detector.errors import BadInput

BOX = {"key": "", "name": "cat", "box": [1.0, 2.0, 30.0, 39.0]}


def save(labels, index: int, *objects: dict) -> None:
    labels.save(index, labels.load(index).version, True, [*objects])


@pytest.mark.parametrize("below", ["", "images"])
def test_the_images_and_their_order_are_the_same_after_the_first_label_and_others_are_told(tmp_path, below):
    folder = photographs(tmp_path / below, 2)
    photographs(folder / "day", 1)
    Image.new("RGB", (60, 40)).save(folder / "1.jpg")  # beside 1.png
    (folder / "IMG_7.HEIC").touch()
    starts = []
    for _ in range(3):
        labels, notes = open_source(str(tmp_path), ["cat"], "", False)
        starts.append((labels.images, sorted(notes), labels.split))
        save(labels, len(starts) % 2, *labels.load(len(starts) % 2).objects, BOX)
    assert starts[0] == starts[1] == starts[2] and starts[0][0] == [str(folder / "0.png"), str(folder / "1.jpg")]
    told = "\n".join(starts[0][1])
    assert len(starts[0][1]) == 3 and "1.png" in told and "day/0.png" in told and "1 file is HEIC" in told


def test_images_in_sub_folders_that_have_a_json_file_are_shown(tmp_path):
    photographs(tmp_path / "images" / "a" / "b", 2)
    (tmp_path / "labels" / "a" / "b").mkdir(parents=True)
    (tmp_path / "labels" / "a" / "b" / "0.json").write_text(json.dumps({"labels": ["cat"], "boxes": [[1, 1, 9, 9]]}))
    photographs(tmp_path / "images", 1)
    (tmp_path / "labels" / "0.json").write_text(json.dumps({"labels": [], "boxes": []}))
    labels, notes = open_source(str(tmp_path), [], "", False)
    assert sorted(map(labels.name, labels.indices)) == ["0.png", "a/b/0.png"] and "a/b/1.png" in notes[0]


def test_json_files_in_one_folder_of_images_in_several_are_changed_where_they_are(tmp_path):
    photographs(tmp_path / "images" / "ants", 2)
    (tmp_path / "labels").mkdir()
    for name in "01":
        (tmp_path / "labels" / f"{name}.json").write_text(json.dumps({"labels": ["cat"], "boxes": [[1, 1, 9, 9]]}))
    labels, _ = open_source(str(tmp_path), [], "", False)
    assert sorted(map(labels.name, labels.indices)) == ["0.png", "1.png"] and set(labels.states.values()) == {"labelled"}
    save(labels, 0, *labels.load(0).objects, BOX)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json"))
    assert files == ["labels/0.json", "labels/1.json"] and len(labels.load(0).objects) == 2


@pytest.mark.parametrize("layout", ["json", "voc"])
def test_classes_of_the_command_have_the_same_numbers_each_time(tmp_path, layout):
    folder = photographs(tmp_path / "JPEGImages" if layout == "voc" else tmp_path)
    if layout == "voc":
        (tmp_path / "Annotations").mkdir()
        (tmp_path / "Annotations" / "0.xml").write_text("<annotation><object><name>ant</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
                                                        "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>")
    names = ["zebra", "cat"]
    first = opened(tmp_path, names)
    save(first, 1, BOX, BOX | {"name": "zebra"})
    assert opened(tmp_path, names).classes == first.classes == names + ["ant"] * (layout == "voc")
    assert sorted(opened(tmp_path).classes) == sorted(first.classes) and folder.is_dir()


def test_a_file_that_a_link_leads_to_is_written_and_the_link_stays(tmp_path):
    outside, root = tmp_path / "outside.json", photographs(tmp_path / "photos")
    outside.write_text(json.dumps({"labels": ["cat"], "boxes": [[1, 1, 9, 9]]}))
    (root / "labels").mkdir()
    (root / "labels" / "0.json").symlink_to(outside)
    save(open_source(str(root), [], "", True)[0], 0, BOX)
    assert (root / "labels" / "0.json").is_symlink() and json.loads(outside.read_text())["boxes"] == [BOX["box"]]
    outside.unlink()
    coco = tmp_path / "coco.json"
    coco.write_text(json.dumps({"images": [{"id": 1, "file_name": "0.png", "width": 60, "height": 40}], "annotations": [],
                                "categories": [{"id": 1, "name": "cat"}]}))
    root = photographs(tmp_path / "coco")
    (root / "train.json").symlink_to(coco)
    save(open_source(str(root), [], "", True)[0], 0, BOX)
    assert (root / "train.json").is_symlink() and len(json.loads(coco.read_text())["annotations"]) == 1


def test_a_split_without_images_is_one_sentence(tmp_path):
    root = photographs(tmp_path / "coco")
    (root / "train.json").write_text(json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}))
    root = photographs(tmp_path / "listed" / "images", 1).parent
    (root / "labels").mkdir()
    for stem in "0b":
        (root / "labels" / f"{stem}.json").write_text(json.dumps({"labels": ["cat"], "boxes": [[1, 1, 9, 9]]}))
    (root / "train.txt").write_text("b\n")
    for folder in ("coco", "listed"):
        with pytest.raises(BadInput, match="train of .* has no image. Add images, or name another --split"):
            opened(tmp_path / folder, ["cat"], "train")
