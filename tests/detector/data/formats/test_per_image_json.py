"""One JSON for each image, paired by file name."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.formats import per_image_json
from detector.errors import BadInput
from detector.structures import DIFFICULT


def add(root: Path, stem: str, content, image: str = "input", target: str = "target", ending: str = ".png") -> None:
    """An image of 6 x 4 pixels and its JSON; without a JSON where `content` is None."""
    for folder in (image, target):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(root / image / f"{stem}{ending}")
    if content is not None:
        text = content if isinstance(content, str) else json.dumps(content)
        (root / target / f"{stem}.json").write_text(text, encoding="utf-8")


def content(*objects) -> dict:
    return {"labels": [label for label, *_ in objects], "boxes": [box for _, *box in objects]}


@pytest.fixture
def three(tmp_path) -> Path:
    """Two objects in b, none in a, one in c."""
    add(tmp_path, "b", content(("dog", 0, 0, 6, 4), ("cat", 1, 1, 3, 2)), ending=".jpg")
    add(tmp_path, "a", content())
    add(tmp_path, "c", content(("cat", 0.5, 1.5, 2.5, 3)))
    return tmp_path


def stems(dataset) -> str:
    return "".join(Path(dataset.path(i)).stem for i in range(len(dataset)))


# What is read

def test_a_split(three):
    dataset = per_image_json.read(str(three), "all")
    assert [Path(dataset.path(i)) for i in range(3)] == [three / "input" / name for name in ("a.png", "b.jpg", "c.png")]
    assert dataset.classes == ("cat", "dog"), "in alphabetical order"
    assert dataset.sizes.tolist() == [[4, 6]] * 3
    assert dataset.offsets.tolist() == [0, 0, 2, 3]
    assert dataset.boxes.tolist() == [[0, 0, 6, 4], [1, 1, 3, 2], [0.5, 1.5, 2.5, 3]]
    assert dataset.labels.tolist() == [2, 1, 1]
    assert dataset.flags.tolist() == [0, 0, 0]
    assert dataset.areas.tolist() == [24, 2, 3]
    assert len(set(dataset.image_ids.tolist())) == 3


def test_no_objects_at_all(tmp_path):
    add(tmp_path, "a", content())
    dataset = per_image_json.read(str(tmp_path), "all")
    assert len(dataset) == 1 and dataset.classes == ()
    assert dataset.boxes.shape == (0, 4) and dataset.offsets.tolist() == [0, 0]


def test_no_images_at_all(tmp_path):
    (tmp_path / "input").mkdir()
    (tmp_path / "target").mkdir()
    dataset = per_image_json.read(str(tmp_path), "all")
    assert len(dataset) == 0 and dataset.sizes.shape == (0, 2)


def test_labels_that_are_numbers_become_texts(tmp_path):
    add(tmp_path, "a", content((1, 0, 0, 2, 2), (0, 0, 0, 1, 1)))
    dataset = per_image_json.read(str(tmp_path), "all")
    assert dataset.classes == ("0", "1") and dataset.labels.tolist() == [2, 1]


def test_a_box_with_swapped_corners_is_left_for_the_policy_that_counts_it(tmp_path):
    add(tmp_path, "a", content(("cat", 3, 3, 1, 1)))
    dataset = per_image_json.read(str(tmp_path), "all")
    assert dataset.boxes.tolist() == [[3, 3, 1, 1]] and dataset.areas.tolist() == [0]


def test_an_image_that_lies_on_its_side_has_the_size_that_a_person_sees(tmp_path):
    add(tmp_path, "a", content())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "input" / "a.png", exif=exif)
    assert per_image_json.read(str(tmp_path), "all").sizes.tolist() == [[6, 4]]


@pytest.mark.parametrize("written, box", [
    (["1", " 2 ", "3.5", 4], [1, 2, 3.5, 4]), ("1 2 3.5 4", [1, 2, 3.5, 4]), ("[1, 2, 3.5, 4]", [1, 2, 3.5, 4]), ([1e300, 2, 3, 4], None),
    ([float("nan"), 2, 3, 4], None), ([10**400, 2, 3, 4], None)])
def test_numbers_as_programs_write_them(tmp_path, written, box):
    add(tmp_path, "a", {"labels": ["cat"], "boxes": [written], "scores": [0.5]})
    boxes = per_image_json.read(str(tmp_path), "all").boxes
    assert np.isnan(boxes).any() if box is None else boxes.tolist() == [box]


@pytest.mark.parametrize("label, name", [
    (7, "7"), (7.0, "7"), (10**400, str(10**400)), (0.5, "0.5"), (" cat ", "cat"), ("\ud800", "\\ud800")])
def test_a_label_becomes_a_name_that_can_be_printed(tmp_path, label, name):
    add(tmp_path, "a", {"labels": [label], "boxes": [[0, 0, 1, 1]]})
    assert per_image_json.read(str(tmp_path), "all").classes == (name,)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_file_may_have_a_byte_order_mark(tmp_path, encoding):
    add(tmp_path, "a", None)
    (tmp_path / "target" / "a.json").write_bytes('{"labels": ["Äpfel"], "boxes": [[0, 0, 1, 1]]}'.encode(encoding))
    assert per_image_json.read(str(tmp_path), "all").classes == ("Äpfel",)


def shape(kind: str | None, *points: tuple, **more) -> dict:
    return {"label": "cat", "points": [list(point) for point in points], "group_id": None, "flags": {}, **more,
            **({"shape_type": kind} if kind else {})}


@pytest.mark.parametrize("written, box, flags", [
    (shape("rectangle", (5, 4), (1, 2)), [1, 2, 5, 4], 0), (shape("polygon", (1, 2), (5, 3), (2, 4)), [1, 2, 5, 4], 0),
    (shape("circle", (3, 3), (3, 1)), [1, 1, 5, 5], 0), (shape(None, (1, 2), (5, 4)), [1, 2, 5, 4], 0),
    (shape("mask", (1, 2), (5, 4), mask="iVBO"), [1, 2, 5, 4], 0),
    (shape("rectangle", (1, 2), (5, 4), difficult=True), [1, 2, 5, 4], DIFFICULT),
    (shape("point", (1, 2)), [1, 2, 1, 2], 0)])
def test_the_shapes_of_labelme(tmp_path, written, box, flags):
    add(tmp_path, "a", {"version": "5.4.1", "shapes": [written], "imagePath": "a.png", "imageData": None,
                        "imageHeight": 4, "imageWidth": 6})
    dataset = per_image_json.read(str(tmp_path), "all")
    assert (dataset.boxes.tolist(), dataset.flags.tolist(), dataset.classes) == ([box], [flags], ("cat",))


def test_boxes_belong_to_the_size_that_labelme_states(tmp_path):
    """The image was made smaller later; reading it gives the stated size again, as with other formats."""
    add(tmp_path, "a", {"shapes": [shape("rectangle", (2, 4), (10, 8))], "imageHeight": 8, "imageWidth": 12})
    add(tmp_path, "b", {"shapes": [], "imageHeight": None, "imageWidth": None})
    dataset = per_image_json.read(str(tmp_path), "all")
    assert dataset.sizes.tolist() == [[8, 12], [4, 6]] and dataset.boxes.tolist() == [[2, 4, 10, 8]]


# The image of a JSON file

def test_a_mask_beside_a_photograph_is_not_taken(tmp_path):
    add(tmp_path, "a", content(), ending=".jpg")
    add(tmp_path, "a", content(), ending=".png")
    add(tmp_path, "b", content(), ending=".bmp")
    add(tmp_path, "b", {**content(), "imagePath": "..\\input\\b.PNG"}, ending=".png")
    names = [Path(per_image_json.read(str(tmp_path), "all").path(i)).name for i in range(2)]
    assert names == ["a.jpg", "b.png"]
    add(tmp_path, "c", content(), ending=".bmp")
    add(tmp_path, "c", content(), ending=".png")
    assert "several images are called c: input/c.bmp, input/c.png" in refused(tmp_path)


def test_an_image_may_be_called_differently_if_its_json_names_it(tmp_path):
    add(tmp_path, "a", None)
    (tmp_path / "target" / "1.json").write_text('{"imagePath": "../input/a.png", "shapes": []}')
    assert stems(per_image_json.read(str(tmp_path), "all")) == "a"


@pytest.mark.parametrize("image, target, split", [
    ("", "", "all"), ("train", "train", "train"), ("images", "images", "all"), ("images/train", "labels/train", "train"),
    ("train/images", "train", "train"), ("", "labels", "all"), ("images/camera 1", "labels/camera 1", "all")])
def test_images_and_json_files_may_lie_in_many_places(tmp_path, image, target, split):
    add(tmp_path, "a", content(("cat", 0, 0, 1, 1)), image, target)
    dataset = per_image_json.read(str(tmp_path), split)
    assert len(dataset) == 1 and Path(dataset.path(0)) == tmp_path / image / "a.png"
    assert per_image_json.sources(str(tmp_path), split) == [str(tmp_path / target / "a.json")]


def test_images_may_lie_in_folders_of_their_class(tmp_path):
    add(tmp_path, "a", content(("dog", 0, 0, 6, 4)), "images/dog", "labels")
    add(tmp_path, "b", content(), "images/cat", "labels")
    dataset = per_image_json.read(str(tmp_path), "all")
    assert [os.path.relpath(dataset.path(i), tmp_path) for i in range(2)] == ["images/dog/a.png", "images/cat/b.png"]


def test_a_folder_of_images_may_be_named(tmp_path):
    add(tmp_path, "a", content(), "photos", "labels")
    for images in ("photos", str(tmp_path / "photos")):
        assert Path(per_image_json.read(str(tmp_path), "all", images).path(0)) == tmp_path / "photos" / "a.png"
    assert len(per_image_json.sources(str(tmp_path), "all", "photos")) == 1
    assert "no folder input or images" in refused(tmp_path)


def test_hidden_files_are_no_annotations(three):
    for name in ("target/._a.json", "input/._a.png", "target/.ipynb_checkpoints/a-checkpoint.json"):
        (three / name).parent.mkdir(exist_ok=True)
        (three / name).write_bytes(b"\0")
    assert stems(per_image_json.read(str(three), "all")) == "abc"


def test_names_that_are_not_utf8(tmp_path):
    add(tmp_path, os.fsdecode(b"Stra\xdfe"), content(("cat", 0, 0, 1, 1)))
    dataset = per_image_json.read(str(tmp_path), "all")
    assert dataset.paths.tolist() == [b"input/Stra\xdfe.png"] and os.path.isfile(dataset.path(0))


# Splits and folders

@pytest.mark.parametrize("split, expected", [("all", "abc"), ("0:2", "ab"), ("2:3", "c"), (":1", "a"), ("1:", "bc"),
                                             (":", "abc"), ("0:0", ""), ("2:99", "c")])
def test_a_range_is_in_the_order_of_the_names(three, split, expected):
    dataset = per_image_json.read(str(three), split)
    assert stems(dataset) == expected
    assert len(per_image_json.sources(str(three), split)) == len(expected)


@pytest.mark.parametrize("listing", ["c\na", "c.json\na.json\n", "c.png\n\na.png", " c \n a ", '"c"\r\n"a"', "input/c.png\ninput\\\\a.png",
                                     "/data/input/c.png\n/data/input/a.png", "\ufeffc\na", "c\na\nc"])
def test_a_text_file_lists_a_split_in_its_order(three, listing):
    (three / "val.txt").write_text(listing)
    dataset = per_image_json.read(str(three), "val")
    assert stems(dataset) == "ca" + "c" * listing.count("\nc") and not dataset.warnings
    assert per_image_json.sources(str(three), "val")[0] == str(three / "val.txt")


@pytest.mark.parametrize("listed", ["a.rf.1f", "a.rf.1f.json", "a.rf.1f.png"])
def test_a_name_with_dots_may_be_listed_with_its_ending_or_without(tmp_path, listed):
    add(tmp_path, "a.rf.1f", content())
    (tmp_path / "val.txt").write_text(listed)
    assert stems(per_image_json.read(str(tmp_path), "val")) == "a.rf.1f"


@pytest.mark.parametrize("image", ["input", "images"])
@pytest.mark.parametrize("target", ["target", "labels", "annotations"])
def test_the_folders_may_have_the_usual_names(tmp_path, image, target):
    add(tmp_path, "a", content(("cat", 0, 0, 1, 1)), image, target)
    assert Path(per_image_json.read(str(tmp_path), "all").path(0)) == tmp_path / image / "a.png"


def test_a_split_may_be_a_folder(tmp_path):
    add(tmp_path / "train", "a", content(("cat", 0, 0, 1, 1)), "images", "labels")
    add(tmp_path / "val", "b", content(("dog", 0, 0, 1, 1)), "images", "labels")
    train, val = (per_image_json.read(str(tmp_path), split) for split in ("train", "val"))
    assert (stems(train), train.classes, stems(val), val.classes) == ("a", ("cat",), "b", ("dog",))


def test_an_image_without_a_json_belongs_to_no_split(three):
    add(three, "d", None)
    assert stems(per_image_json.read(str(three), "all")) == "abc"


# Mistakes

def refused(root: Path, split: str = "all") -> str:
    with pytest.raises(BadInput) as caught:
        per_image_json.read(str(root), split)
    return str(caught.value)


def test_a_json_without_an_image_is_named(three):
    (three / "target" / "d.json").write_text("{}")
    assert "no image for target/d.json" in refused(three)


def test_a_split_that_is_not_there_says_what_one_is(three):
    message = refused(three, "train")
    assert "no split 'train'" in message and "train.txt" in message and "`all`" in message and "0:2" in message


def test_a_list_with_a_stranger_names_it(three):
    (three / "val.txt").write_text("a\nz\n")
    assert "val.txt names z" in refused(three, "val")


def test_a_root_without_the_folders_says_what_they_are_called(tmp_path):
    assert "no folder input or images" in refused(tmp_path)
    (tmp_path / "images").mkdir()
    assert "no folder target or labels or annotations" in refused(tmp_path)


@pytest.mark.parametrize("text", [
    "", " ", "[]", "{}", "5", "[" * 100_000 + "]" * 100_000, '{"shapes": [{}]}', '{"shapes": [{"label": "cat", "points": [[1]]}]}',
    '{"shapes": [{"label": null, "points": [[1, 2]]}]}', '{"labels": [null], "boxes": [[0, 0, 1, 1]]}',
    '{"labels": [true], "boxes": [[0, 0, 1, 1]]}',
    '{"labels": [[]], "boxes": [[0, 0, 1, 1]]}', '{"labels": [" "], "boxes": [[0, 0, 1, 1]]}',
    '{"labels": ["cat"], "boxes": [[0, 0, true, 1]]}',
    '{"images": [], "annotations": [], "categories": []}', '{"labels": ["cat"]}', '{"boxes": [[0, 0, 1, 1]]}',
    '{"labels": [NaN], "boxes": [[0, 0, 1, 1]]}',
    '{"labels": null, "boxes": []}',
    '{"labels": ["cat"], "boxes": [["a", 0, 1, 1]]}', '{"labels": ["cat"], "boxes": [5]}',
    '{"labels": ["cat"], "boxes": []}', '{"labels": [], "boxes": [[0, 0, 1, 1]]}',
    '{"labels": ["cat"], "boxes": [[0, 0, 1]]}', '{"labels": ["cat"], "boxes": [[0, 0, 1, 1, 0.9]]}'])
def test_a_faulty_json_is_named_with_what_is_expected(tmp_path, text):
    add(tmp_path, "a", text)
    message = refused(tmp_path)
    assert "target/a.json" in message and "boxes" in message


def test_all_faulty_files_are_in_one_error(three):
    (three / "target" / "a.json").write_text("{")
    (three / "target" / "b.json").write_text("{}")
    (three / "input" / "c.png").write_bytes(b"")
    message = refused(three)
    assert "3 mistakes" in message and all(name in message for name in ("a.json", "b.json", "c.png"))


def test_the_mistakes_of_a_file_are_named_by_object(tmp_path):
    add(tmp_path, "a", {"labels": ["cat", "dog", None, "", "x"], "boxes": [[0, 0, 1, 1], [0, 0, "wide", 1], *[[0, 0, 1, 1]] * 2, 5]})
    assert ("a.json: object 2 has 'wide' in [0, 0, 'wide', 1], which is no number; object 3 has the label None, which is no name; object 4 "
            "has the label '', which is no name and 1 more. Expected {") in refused(tmp_path)


def test_bytes_that_are_no_utf8_and_a_coco_file(tmp_path):
    add(tmp_path, "a", None)
    (tmp_path / "target" / "a.json").write_bytes(b'{"labels": ["\xdf"], "boxes": []}')
    assert "a.json is not text in UTF-8: byte 0xdf" in refused(tmp_path)
    (tmp_path / "target" / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert "a.json is a COCO file" in refused(tmp_path) and "data.format=coco" in refused(tmp_path)


# Real data

def test_heads_are_read_as_they_stand(heads):
    dataset = per_image_json.read(str(heads), "all")
    files = sorted((heads / "target").glob("*.json"))
    assert [Path(dataset.path(i)).stem for i in range(len(dataset))] == [path.stem for path in files]
    assert dataset.classes == ("head",)
    for index, path in enumerate(files):
        boxes = json.loads(path.read_text())["boxes"]
        assert np.allclose(dataset.boxes[dataset.rows(index)], np.array(boxes).reshape(-1, 4), atol=1e-3)
        with Image.open(dataset.path(index)) as image:
            assert dataset.sizes[index].tolist() == [image.height, image.width]
