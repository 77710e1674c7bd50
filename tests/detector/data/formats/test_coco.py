"""Reading COCO JSON, and the error for each mistake that occurs in such files."""

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

# Ids with gaps and in no order, categories that are not sorted, an image without objects, fields that are missing.
SMALL = {
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    "images": [{"id": 42, "file_name": "b.jpg", "height": 100, "width": 200},
               {"id": 5, "file_name": "a.jpg", "height": 50, "width": 60},
               {"id": 0, "file_name": "c.jpg", "height": 10, "width": 10}],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 7, "bbox": [10, 20, 30, 40], "area": 1000, "iscrowd": 0},
        {"id": 2, "image_id": 42, "category_id": 3, "bbox": [0, 0, 200, 100], "area": 500, "iscrowd": 1},
        {"id": 3, "image_id": 42, "category_id": 7, "bbox": [1.5, 2.5, 3, 4]}]}


def small() -> dict:
    return json.loads(json.dumps(SMALL))


def write(root: Path, content, name: str = "annotations/instances_val.json") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def read(root: Path, content, split: str = "val"):
    write(root, content)
    return coco.read(str(root), split)


def mistakes(root: Path, content) -> str:
    with pytest.raises(BadInput) as caught:
        read(root, content)
    assert "instances_val.json" in str(caught.value)
    return str(caught.value)


def picture(path: Path, height: int = 4, width: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


# Reading

def test_a_split(tmp_path):
    dataset = read(tmp_path, SMALL)
    assert dataset.classes == ("cat", "dog"), "in the order of their ids"
    assert dataset.category_ids.tolist() == [3, 7]
    assert dataset.image_ids.tolist() == [42, 5, 0]
    assert dataset.sizes.tolist() == [[100, 200], [50, 60], [10, 10]]
    assert dataset.offsets.tolist() == [0, 2, 3, 3]
    assert dataset.boxes.tolist() == [[0, 0, 200, 100], [1.5, 2.5, 4.5, 6.5], [10, 20, 40, 60]]
    assert dataset.labels.tolist() == [1, 2, 2]
    assert dataset.flags.tolist() == [CROWD, 0, 0]
    assert dataset.areas.tolist() == [500, 12, 1000], "the area of the mask; of the box where the file has none"


def test_the_order_of_the_categories_in_the_file_changes_nothing(tmp_path):
    content = small()
    content["categories"].reverse()
    assert read(tmp_path, content).classes == ("cat", "dog")


@pytest.mark.parametrize("key", ["info", "licenses"])
def test_unused_parts_of_the_file_are_ignored(tmp_path, key):
    assert len(read(tmp_path, {**small(), key: {}})) == 3


@pytest.mark.parametrize("content, counts", [
    ({"images": [], "annotations": [], "categories": []}, (0, 0, 0)),
    ({**SMALL, "annotations": []}, (3, 0, 2)),
    ({**SMALL, "annotations": [], "categories": []}, (3, 0, 0)),
])
def test_a_file_without_images_or_objects(tmp_path, content, counts):
    dataset = read(tmp_path, content)
    assert (len(dataset), len(dataset.boxes), len(dataset.classes)) == counts
    assert dataset.boxes.shape == (0, 4) and dataset.sizes.shape == (len(dataset), 2)
    assert dataset.offsets.tolist() == [0] * (len(dataset) + 1)


def test_ids_may_be_texts_of_digits(tmp_path):
    content = small()
    for entry in content["images"] + content["categories"]:
        entry["id"] = str(entry["id"])
    content["annotations"][0].update(image_id="5", category_id="7")  # the other annotations keep their numbers
    dataset, usual = read(tmp_path, content), read(tmp_path, SMALL)
    assert dataset.image_ids.tolist() == usual.image_ids.tolist()
    assert dataset.category_ids.tolist() == usual.category_ids.tolist()
    assert dataset.labels.tolist() == usual.labels.tolist()


def test_ids_may_start_at_zero_and_be_large(tmp_path):
    content = {"categories": [{"id": 0, "name": "cat"}],
            "images": [{"id": 2**53, "file_name": "a", "height": 9, "width": 9}],
            "annotations": [{"image_id": 2**53, "category_id": 0, "bbox": [1, 2, 3, 4]}]}
    dataset = read(tmp_path, content)
    assert dataset.labels.tolist() == [1], "0 is the background, so the class with id 0 is label 1"
    assert dataset.category_ids.tolist() == [0] and dataset.image_ids.tolist() == [2**53]


@pytest.mark.parametrize("area, read_as", [(None, 12), ("large", 12), (float("nan"), 12), ([], 12), ("7", 7), (7.5, 7.5), (0, 0)])
def test_an_area_that_is_no_number_is_that_of_the_box(tmp_path, area, read_as):
    content = small()
    content["annotations"] = [{**content["annotations"][2], "area": area}]
    assert read(tmp_path, content).areas.tolist() == [read_as]


@pytest.mark.parametrize("crowd, flag", [(0, 0), (1, CROWD), (False, 0), (True, CROWD), (None, 0), ("0", 0),
                                         ("1", CROWD)])
def test_a_crowd_is_marked_by_one(tmp_path, crowd, flag):
    content = small()
    content["annotations"] = [{**content["annotations"][0], "iscrowd": crowd}]
    assert read(tmp_path, content).flags.tolist() == [flag]


@pytest.mark.parametrize("rotation, box", [
    (90.0, [38, 12, 42, 68]), ("180", [5, 38, 75, 42]), (0, [5, 38, 75, 42]), (None, [5, 38, 75, 42]), ("steep", [5, 38, 75, 42])])
def test_a_rotated_box_of_cvat_is_the_box_around_it(tmp_path, rotation, box):
    content = small()
    width, height = (56, 4) if rotation == 90.0 else (70, 4)
    content["annotations"] = [{**content["annotations"][2], "bbox": [40 - width / 2, 38, width, height],
                               "attributes": {"occluded": False, "rotation": rotation}}]
    assert read(tmp_path, content).boxes[0].tolist() == pytest.approx(box, abs=1e-4)


def test_annotations_to_ignore_are_noted(tmp_path):
    content = small()
    assert not any("ignore=1" in warning for warning in read(tmp_path, content).warnings)
    for number, ignored in enumerate((1, 0, True)):
        content["annotations"][number]["ignore"] = ignored
    assert any(warning.startswith("2 annotations have ignore=1 and count as ordinary") for warning in read(tmp_path, content).warnings)


def test_class_names_are_texts_even_where_the_file_has_numbers(tmp_path):
    content = small()
    content["categories"] = [{"id": 3, "name": 0}, {"id": 7, "name": 1}]  # digits, as in house numbers
    assert read(tmp_path, content).classes == ("0", "1")


def test_names_may_have_any_letters(tmp_path):
    content = small()
    content["categories"][0]["name"] = "Tür/門 1"
    content["images"][0]["file_name"] = "ordner 1/bild-ä.jpg"
    dataset = read(tmp_path, content)
    assert dataset.classes == ("cat", "Tür/門 1")
    assert dataset.path(0).endswith("ordner 1/bild-ä.jpg")


def test_boxes_outside_or_without_area_are_left_for_the_policy_that_counts_them(tmp_path):
    content = small()
    content["annotations"] = [{"image_id": 5, "category_id": 3, "bbox": box}
                           for box in ([-5, -5, 10, 10], [1, 1, 0, 0], [5, 5, -2, 3], [float("nan"), 0, 1, 1])]
    dataset = read(tmp_path, content)
    assert dataset.boxes[:3].tolist() == [[-5, -5, 5, 5], [1, 1, 1, 1], [5, 5, 3, 8]]
    assert np.isnan(dataset.boxes[3, 0])
    assert dataset.areas[:3].tolist() == [100, 0, 0]


# Where files are

@pytest.mark.parametrize("name, split", [
    ("annotations/instances_val2017.json", "val2017"), ("annotations/val2017.json", "val2017"),
    ("val2017.json", "val2017"), ("val/_annotations.coco.json", "val"), ("my/own.json", "my/own.json"),
    ("annotations/instances_val2017.json", "annotations/instances_val2017.json")])
def test_an_annotation_file_is_found_by_the_name_of_its_split(tmp_path, name, split):
    write(tmp_path, SMALL, name)
    assert len(coco.read(str(tmp_path), split)) == 3
    assert [Path(path) for path in coco.sources(str(tmp_path), split)] == [tmp_path / name]


def test_a_split_that_is_not_there_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(BadInput, match="no annotations of split 'val'") as caught:
        coco.read(str(tmp_path), "val")
    for name in ("annotations/instances_val.json", "val.json", "val/_annotations.coco.json"):
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("name, split, folder", [
    ("annotations/instances_val.json", "val", "val"), ("annotations/instances_val.json", "val", "images/val"),
    ("annotations/instances_val.json", "val", "images"), ("annotations/instances_val.json", "val", ""),
    ("annotations/instances_val.json", "val", "annotations"), ("val/_annotations.coco.json", "val", "val"),
    ("annotations/instances_val.json", "annotations/instances_val.json", "val"),
    ("annotations/instances_val.json", "annotations/instances_val.json", "images"),
    ("my/own.json", "my/own.json", "my"), ("own.json", "own.json", "")])
def test_the_images_are_found_beside_their_annotations(tmp_path, name, split, folder):
    write(tmp_path, SMALL, name)
    picture(tmp_path / folder / "a.jpg")  # one of them is enough: others may be missing
    assert Path(coco.read(str(tmp_path), split).path(1)) == tmp_path / folder / "a.jpg"


def test_an_image_name_may_bring_its_own_folder(tmp_path):
    content = small()
    content["images"][1]["file_name"] = "val2017/a.jpg"
    picture(tmp_path / "val2017" / "a.jpg")
    assert Path(read(tmp_path, content).path(1)) == tmp_path / "val2017" / "a.jpg"


def test_without_any_image_the_usual_folder_is_named(tmp_path):
    assert Path(read(tmp_path, SMALL).path(1)) == tmp_path / "val" / "a.jpg"


@pytest.mark.parametrize("size", [{}, {"height": None, "width": None}, {"height": 0, "width": 0}, {"height": 4}])
def test_a_size_that_the_file_does_not_say_comes_from_the_image(tmp_path, size):
    content = small()
    content["images"] = [{"id": 5, "file_name": "a.png", **size}]
    content["annotations"] = []
    picture(tmp_path / "val" / "a.png", height=4, width=6)
    assert read(tmp_path, content).sizes.tolist() == [[4, 6]]


def test_a_missing_image_without_a_size_is_named(tmp_path):
    content = small()
    del content["images"][1]["height"]
    with pytest.raises(BadInput, match="3 of 3 images do not exist in .*; first: b.jpg, a.jpg, c.jpg.*data.images"):
        read(tmp_path, content)


# Mistakes

@pytest.mark.parametrize("text", ["", "{", "not json", '{"images": [}'])
def test_a_file_that_is_no_json_is_named(tmp_path, text):
    assert "is no JSON" in mistakes(tmp_path, text)


def test_a_file_of_other_letters_is_named(tmp_path):
    path = tmp_path / "val.json"
    path.write_bytes(b'{"images": "\xff\xfe"}')
    with pytest.raises(BadInput, match=r"val\.json is not text in UTF-8: byte 0xff at position 12. Save it as UTF-8"):
        coco.read(str(tmp_path), "val")


@pytest.mark.parametrize("content, missing", [
    ([], ("images", "annotations", "categories")), (5, ("images", "annotations", "categories")),
    ({}, ("images", "annotations", "categories")), ({"images": [], "annotations": []}, ("categories",)),
    ({"images": {}, "annotations": [], "categories": []}, ("images",)),
    ({"images": [], "annotations": None, "categories": []}, ("annotations",))])
def test_a_json_of_another_layout_says_which_lists_are_missing(tmp_path, content, missing):
    assert "has no list named " + " and ".join(missing) in mistakes(tmp_path, content)


def changed(path: str, *values) -> list[dict]:
    """Returns a copy of SMALL for each value, with one field of one entry changed; ... removes the field."""
    kind, position, field = path.split(".")
    copies = []
    for value in values:
        content = small()
        content[kind][int(position)][field] = value
        if value is ...:
            del content[kind][int(position)][field]
        copies.append(content)
    return copies


@pytest.mark.parametrize("content, sentence", [
    *[(s, "image number 1 has id") for s in changed("images.1.id", ..., None, "", True, [5], float("nan"))],
    *[(s, "image id 42 occurs twice") for s in changed("images.1.id", 42, "42", 42.0)],
    *[(s, "image 5 has no file_name") for s in changed("images.1.file_name", ..., None, "")],
    *[(s, "category number 0 has id") for s in changed("categories.0.id", ..., None)],
    *[(s, "category id 3 occurs twice") for s in changed("categories.0.id", 3)],
    *[(s, "category 7 has no name") for s in changed("categories.0.name", ..., None, "")],
    *[(s, "annotation 1") for s in changed("annotations.0.bbox", ..., None, [], [1, 2, 3], [1, 2, 3, 4, 5],
                                           ["a", 2, 3, 4], [1, 2, None, 4])],
    *[(s, "annotation 1") for s in changed("annotations.0.image_id", ...)],
    *[(s, "annotation 1 is of image 6") for s in changed("annotations.0.image_id", 6)],
    *[(s, "annotation 1 is of image 'a.jpg'") for s in changed("annotations.0.image_id", "a.jpg")],
    *[(s, "annotation 1 is of category 8") for s in changed("annotations.0.category_id", 8)],
    ({**SMALL, "images": [*SMALL["images"], "d.jpg"]}, "image number 3 is not a JSON object"),
    ({**SMALL, "annotations": [None]}, "annotation number 0"),
    ({**SMALL, "annotations": [{"image_id": 6, "category_id": 3, "bbox": [0, 0, 1, 1]}]},
     "annotation number 0 is of image 6")])
def test_a_mistake_names_its_entry(tmp_path, content, sentence):
    assert sentence in mistakes(tmp_path, content)


def test_all_kinds_of_mistakes_are_in_one_error(tmp_path):
    content = small()
    content["categories"].append({"id": 3, "name": "horse"})
    content["images"].append({"id": None, "file_name": "d.jpg"})
    content["annotations"] += [{"id": 8, "image_id": 5, "category_id": 3},
                            {**content["annotations"][0], "id": 9, "image_id": 99}]
    message = mistakes(tmp_path, content)
    for part in ("category id 3 occurs twice", "image number 3 has id None", "annotation 8",
                 "annotation 9 is of image 99"):
        assert part in message
    assert "4 mistakes" in message.splitlines()[0]


def test_many_mistakes_of_one_kind_show_the_first_and_the_number_of_the_others(tmp_path):
    content = small()
    content["annotations"] = [{"id": n, "image_id": 99, "category_id": 3, "bbox": [0, 0, 1, 1]} for n in range(100, 112)]
    message = mistakes(tmp_path, content)
    assert message.count("is of image 99") == 5 and "and 7 more" in message


# Real data

@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_a_part_of_coco_is_read_as_it_stands(coco_tiny, split):
    dataset = coco.read(str(coco_tiny), split)
    content = json.loads((coco_tiny / "annotations" / f"instances_{split}.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert len(dataset) == len(content["images"]) and len(dataset.boxes) == len(content["annotations"])
    for index, image in enumerate(content["images"]):
        annotations = [annotation for annotation in content["annotations"] if annotation["image_id"] == image["id"]]
        rows = dataset.rows(index)
        class_names = [dataset.classes[label - 1] for label in dataset.labels[rows]]
        assert Path(dataset.path(index)).is_file()
        assert dataset.sizes[index].tolist() == [image["height"], image["width"]]
        assert class_names == [names[annotation["category_id"]] for annotation in annotations]
        assert dataset.flags[rows].tolist() == [CROWD * annotation["iscrowd"] for annotation in annotations]
        assert np.allclose(dataset.areas[rows], [annotation["area"] for annotation in annotations])
        xywh = np.array([annotation["bbox"] for annotation in annotations]).reshape(-1, 4)
        assert np.allclose(dataset.boxes[rows], np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]), atol=1e-3)


# COCO 2014 and its minival

def test_the_splits_of_2014_are_trained_on_together_and_share_the_folder_of_val2014(tmp_path):
    """train2014 + valminusminival2014 and minival2014 (Girshick 2015), with the files' true names."""
    numbers = {"train2014": [9, 25], "valminusminival2014": [42], "minival2014": [74, 133]}
    for split, ids in numbers.items():
        folder = "train2014" if split == "train2014" else "val2014"
        content = {"categories": SMALL["categories"], "annotations": [
            {"id": n, "image_id": n, "category_id": 7, "bbox": [1, 1, 2, 2], "area": 4, "iscrowd": 0} for n in ids],
            "images": [{"id": n, "file_name": f"COCO_{folder}_{n:012d}.jpg", "height": 4, "width": 6} for n in ids]}
        write(tmp_path, content, f"annotations/instances_{split}.json")
        for image in content["images"]:
            picture(tmp_path / folder / image["file_name"])
    train, val = read_datasets(Data(root=str(tmp_path), train=("train2014", "valminusminival2014"), val=("minival2014",),
                                    cache=str(tmp_path / "cache")))
    assert train.image_ids.tolist() == [9, 25, 42] and val.image_ids.tolist() == [74, 133]
    assert train.classes == val.classes == ("cat", "dog") and train.labels.tolist() == [2, 2, 2]
    assert all(Path(part.path(n)).is_file() for part in (train, val) for n in range(len(part)))
