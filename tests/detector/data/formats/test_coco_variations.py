"""What COCO files of different tools look like: ids, sizes, boxes, categories, encodings; and files that are none."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.config.schema import Data
from detector.data.formats import coco
from detector.data.read import read_datasets
from detector.errors import BadInput
from detector.structures import CROWD

SMALL = {
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    "images": [{"id": 42, "file_name": "b.jpg", "height": 100, "width": 200},
               {"id": 5, "file_name": "a.jpg", "height": 50, "width": 60},
               {"id": 0, "file_name": "c.jpg", "height": 10, "width": 10}],
    "annotations": [{"id": 1, "image_id": 5, "category_id": 7, "bbox": [10, 20, 30, 40], "area": 1000, "iscrowd": 0},
                    {"id": 3, "image_id": 42, "category_id": 7, "bbox": [1.5, 2.5, 3, 4]}]}


def small() -> dict:
    return json.loads(json.dumps(SMALL))


def write(root: Path, content: dict, name: str) -> None:
    """Writes an annotation file and its images, which are empty files."""
    (root / name).write_text(json.dumps(content))
    for image in content["images"]:
        path = image.get("file_name")
        if isinstance(path, str) and path.endswith(".jpg") and path.isprintable():
            (root / path).touch()


def read(root: Path, content: dict):
    write(root, content, "val.json")
    return coco.read(str(root), "val")


def mistakes(root: Path, content: dict) -> str:
    with pytest.raises(BadInput) as caught:
        read(root, content)
    return str(caught.value)


def with_ids(ids: list, kind: str = "images") -> dict:
    """Returns SMALL with other ids of images or categories, and annotations that refer to them."""
    content, key = small(), "image_id" if kind == "images" else "category_id"
    new = {entry["id"]: value for entry, value in zip(content[kind], ids)}
    for entry in content[kind]:
        entry["id"] = new[entry["id"]]
    for annotation in content["annotations"]:
        annotation[key] = new[annotation[key]]
    return content


def same_objects(dataset, other) -> bool:
    return all(np.array_equal(getattr(dataset, name), getattr(other, name)) for name in ("offsets", "boxes", "labels", "flags"))


@pytest.mark.parametrize("ids, image_ids", [
    ([1.0, 2.0, 3.0], [1, 2, 3]), (["000001", " 2 ", "3"], [1, 2, 3]), ([-1, 0, 7], [-1, 0, 7])])
def test_integers_in_another_form_stay_the_ids(tmp_path, ids, image_ids):
    dataset = read(tmp_path, with_ids(ids))
    assert dataset.image_ids.tolist() == image_ids and dataset.warnings == ()
    assert same_objects(dataset, read(tmp_path, SMALL))


@pytest.mark.parametrize("ids", [["img_a", "img_b", "img_c"], [2**63, 2**63 + 1, 5], ["1", "01", "001"], [1.5, 2, 3],
                                 [10**300, 1, 2]])
def test_other_ids_are_numbered_in_the_order_of_the_file_with_a_warning(tmp_path, ids):
    dataset = read(tmp_path, with_ids(ids))
    assert dataset.image_ids.tolist() == [1, 2, 3] and "the ids of images are not distinct integers" in dataset.warnings[0]
    assert same_objects(dataset, read(tmp_path, SMALL))


def test_categories_with_texts_as_ids_are_numbered_too(tmp_path):
    dataset = read(tmp_path, with_ids(["d", "c"], "categories"))
    assert dataset.classes == ("dog", "cat") and dataset.category_ids.tolist() == [1, 2]
    assert "numbered 1 to 2" in dataset.warnings[0]


def test_an_annotation_may_write_an_id_in_another_form(tmp_path):
    content = small()
    content["annotations"][0].update(image_id="5", category_id=7.0)
    assert same_objects(read(tmp_path, content), read(tmp_path, SMALL))


def test_an_entry_that_is_repeated_counts_once_and_a_different_one_is_a_mistake(tmp_path):
    content = small()
    content["images"].append({**content["images"][0], "license": 3})
    content["categories"].append(dict(content["categories"][0]))
    dataset = read(tmp_path, content)
    assert len(dataset) == 3 and len(dataset.classes) == 2 and "image ids are repeated and count once: 42" in dataset.warnings[0]
    content["images"][-1]["file_name"] = "d.jpg"
    assert "image id 42 occurs twice" in mistakes(tmp_path, content)


@pytest.mark.parametrize("height, width", [("4", "6"), (4.0, 6.0), (2**40, 6), ("?", None), (4.5, 6), (float("nan"), 6), (-4, 6),
                                           ([4], 6), (True, 6)])
def test_sizes_are_read_from_the_image_where_the_file_has_none_that_can_be(tmp_path, height, width):
    Image.new("RGB", (6, 4)).save(tmp_path / "b.png")
    content = {**small(), "annotations": []}
    content["images"] = [{"id": 1, "file_name": "b.png", "height": height, "width": width}]
    assert read(tmp_path, content).sizes.tolist() == [[4, 6]]


@pytest.mark.parametrize("bbox", [None, [], ..., ""])
@pytest.mark.parametrize("segmentation", [[[10, 20, 40, 20, 40, 60]], {"size": [100, 100], "counts": [1020, 40, 2860, 40]}])
def test_an_annotation_without_a_box_gets_that_of_its_segmentation(tmp_path, bbox, segmentation):
    content = small()
    content["annotations"] = [{"image_id": 42, "category_id": 3, "bbox": bbox, "segmentation": segmentation},
                              {"image_id": 42, "category_id": 3, "bbox": [1, 2, 3, 4], "segmentation": [[0, 0, 50, 50]]}]
    if bbox is ...:
        del content["annotations"][0]["bbox"]
    assert read(tmp_path, content).boxes.tolist() == [[10, 20, 40, 60], [1, 2, 4, 6]]


def test_numbers_may_be_texts_and_numbers_beyond_float32_are_infinite(tmp_path):
    content = small()
    content["annotations"] = [{"image_id": 42, "category_id": 3, "bbox": ["1", "2.5", "3", "4e0"]},
                              {"image_id": 42, "category_id": 3, "bbox": [0, 0, 1e300, 5], "area": 10**300}]
    dataset = read(tmp_path, content)
    assert dataset.boxes[0].tolist() == [1, 2.5, 4, 6.5] and np.isinf(dataset.boxes[1, 2])
    content["annotations"][0]["bbox"] = "1234"
    assert "annotation number 0 has bbox '1234'" in mistakes(tmp_path, content)
    content["annotations"][0]["bbox"] = [0, 0, 10**400, 5]
    assert "annotation number 0 has bbox" in mistakes(tmp_path, content)


@pytest.mark.parametrize("crowd, flag", [("true", CROWD), ("false", 0), (1.0, CROWD), (0.0, 0), ("", 0), (2, CROWD)])
def test_a_crowd_may_be_marked_in_words(tmp_path, crowd, flag):
    content = small()
    content["annotations"] = [{**content["annotations"][0], "iscrowd": crowd}]
    assert read(tmp_path, content).flags.tolist() == [flag]
    content["annotations"][0]["iscrowd"] = "maybe"
    assert "annotation 1 has iscrowd 'maybe'" in mistakes(tmp_path, content)


# Categories without an object

@pytest.mark.parametrize("parent, classes", [("parts-k3f", ("bolt", "nut")), ("bolt", ("bolt", "nut"))])
def test_the_unused_parent_of_other_categories_is_no_class(tmp_path, parent, classes):
    content = small()
    content["categories"] = [{"id": 0, "name": parent, "supercategory": "none"},
                             {"id": 3, "name": "bolt", "supercategory": parent}, {"id": 7, "name": "nut", "supercategory": parent}]
    dataset = read(tmp_path, content)
    assert dataset.classes == classes and dataset.category_ids.tolist() == [3, 7]
    assert f"category {parent} (id 0) has no object and was left out" in dataset.warnings[0]
    for annotation, category in zip(content["annotations"], (0, 3)):
        annotation["category_id"] = category
    if parent == "bolt":
        assert "category name bolt occurs twice, as id 0 and 3, each with objects: rename" in mistakes(tmp_path, content)
    else:
        assert read(tmp_path, content).classes == (parent, *classes)


def test_a_validation_set_without_objects_of_a_class_has_the_classes_of_training(tmp_path):
    categories = [{"id": 0, "name": "parts", "supercategory": "none"}, {"id": 3, "name": "bolt", "supercategory": "parts"},
                  {"id": 7, "name": "nut", "supercategory": "parts"}]
    write(tmp_path, {**small(), "categories": categories}, "train.json")
    write(tmp_path, {**small(), "categories": categories, "annotations": []}, "val.json")
    train, val = read_datasets(Data(root=str(tmp_path), train=("train",), val=("val",), cache=str(tmp_path / "cache")))
    assert train.classes == val.classes == ("bolt", "nut")


def test_of_two_categories_with_one_name_the_unused_one_is_left_out(tmp_path):
    content = small()
    content["categories"].append({"id": 9, "name": "dog"})
    dataset = read(tmp_path, content)
    assert dataset.classes == ("cat", "dog") and "(id 9)" in dataset.warnings[0]


def test_a_class_without_objects_that_is_no_parent_stays(tmp_path):
    content = small()
    content["categories"].append({"id": 9, "name": "bird", "supercategory": "animal"})
    assert read(tmp_path, content).classes == ("cat", "dog", "bird")


# Texts

@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_file_may_have_a_byte_order_mark_or_another_unicode_encoding(tmp_path, encoding):
    (tmp_path / "val.json").write_bytes(json.dumps(SMALL, ensure_ascii=False).encode(encoding))
    assert len(coco.read(str(tmp_path), "val")) == 3


@pytest.mark.parametrize("text, message", [
    ("", "is no JSON: .* It is empty"), ("[" * 100_000, "nested too deeply"),
    ('{"images": [' + "9" * 5000 + "]}", "cannot be used: .*4300 digits"),
    (json.dumps(SMALL)[:-40], "is no JSON: .* Copy or export it again"),
    ('{"images": [], "images": [], "annotations": [], "categories": []}', "an object has images twice"),
    ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]', "it is a list of detections"),
    ('{"images": [], "categories": []}', "no list named annotations. Files of test images have none")])
def test_a_file_that_is_no_annotation_file_says_why(tmp_path, text, message):
    (tmp_path / "val.json").write_text(text)
    with pytest.raises(BadInput, match=message):
        coco.read(str(tmp_path), "val")


@pytest.mark.parametrize("key, name", [("images.1.file_name", 12), ("images.1.file_name", ["a"]), ("images.1.file_name", "a\0.jpg"),
                                       ("images.1.file_name", "\ud800.jpg"), ("categories.0.name", ["dog"]),
                                       ("categories.0.name", "\udfff"), ("categories.0.name", "  ")])
def test_names_that_are_no_text_are_mistakes(tmp_path, key, name):
    content = small()
    kind, position, field = key.split(".")
    content[kind][int(position)][field] = name
    assert ("image 5 has file_name" if kind == "images" else "category 7 has name") in mistakes(tmp_path, content)


def test_a_folder_that_may_not_be_entered_is_not_a_missing_file(tmp_path, monkeypatch):
    def forbidden(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", path)
    monkeypatch.setattr(coco.os, "stat", forbidden)
    with pytest.raises(BadInput, match="cannot read annotation file .*instances_val.json: Permission denied"):
        coco.annotation_file(str(tmp_path), "val")


def test_the_ground_truth_of_a_score_needs_no_image_no_size_and_no_name(tmp_path):
    content = {**small(), "images": [{"id": "a"}, {"id": "b"}]}
    content["categories"] = [{"id": 7, "name": "dog"}, {"id": 8, "name": "dog"}, {"id": "x"}]
    content["annotations"] = [{"image_id": "a", "category_id": c, "bbox": [0, 0, 5, 5]} for c in (7, 8, "x", 99)]
    write(tmp_path, content, "gt.json")
    truth = coco.read_ground_truth(str(tmp_path / "gt.json"))
    assert truth.dataset.classes == ("dog (id 7)", "dog (id 8)", "x") and truth.dataset.labels.tolist() == [1, 2, 3]
    assert [truth.image_ids.find(value) for value in ("a", "b", 1)] == [0, 1, None]
    assert [truth.labels.find(value) for value in (7, "8", "x")] == [1, 2, 3]
    assert "1 annotation was left out" in " ".join(truth.dataset.warnings)
    assert not Path(truth.dataset.path(0)).exists()


def test_boxes_that_are_not_finite_and_names_that_are_no_text_do_not_end_a_score(tmp_path):
    content = small()
    content["categories"][0]["name"] = "\ud800"
    content["annotations"][0]["bbox"] = [float("nan"), 0, 1e300, 5]
    write(tmp_path, content, "gt.json")
    dataset = coco.read_ground_truth(str(tmp_path / "gt.json")).dataset
    assert dataset.classes == ("cat", "?") and np.isfinite(dataset.boxes).all() and "1 object has a box that" in dataset.warnings[0]


def test_ids_of_categories_that_are_no_integers_are_named_so(tmp_path):
    content = small()
    for item in content["categories"]:
        item["id"] = f"c{item['id']}"
    for item in content["annotations"]:
        item["category_id"] = f"c{item['category_id']}"
    assert "the ids of categories are not distinct integers" in read(tmp_path, content).warnings[0]


def test_an_iscrowd_that_is_neither_true_nor_false_is_an_error_that_says_what_it_is(tmp_path):
    content = small()
    content["annotations"][0]["iscrowd"] = "maybe"
    assert "has iscrowd 'maybe': each needs" in mistakes(tmp_path, content)
    assert "iscrowd is 0 or 1, or left out" in mistakes(tmp_path, content)


@pytest.mark.parametrize("corners, is_warned", [(3, True), (2, False), (0, False)])
def test_boxes_that_look_like_corners_are_warned_about(tmp_path, corners, is_warned):
    content = small()
    size = {key: content["images"][0][key] for key in ("width", "height")}
    width, height = size["width"], size["height"]
    boxes = [[width * 0.6, height * 0.7, width * 0.9, height * 0.95]] * corners + [[1, 1, 5, 5]] * (4 - corners)
    content["annotations"] = [{**content["annotations"][0], "id": number, "image_id": content["images"][0]["id"], "bbox": box}
                              for number, box in enumerate(boxes, 1)]
    warnings = " ".join(read(tmp_path, content).warnings)
    assert ("they look like corners [x1, y1, x2, y2], but COCO's bbox is [x, y, width, height]" in warnings) == is_warned
