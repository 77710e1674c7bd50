"""Reading detections of any detector, where each kind of mistake is one clear line."""

import json

import numpy as np
import pytest

from detector.data.formats.coco_ids import index_ids
from detector.errors import BadInput
from detector.evaluation.detections_file import read_detections, read_detections_by_id
from detector.structures import build_dataset

DATA = build_dataset("val", "/nowhere", ["cat", "dog"], [7, 3], [("a.jpg", 11, 50, 50), ("b.jpg", 12, 50, 50)], [])
GOOD = {"image_id": 12, "category_id": 3, "bbox": [1, 2, 3.5, 4], "score": 0.25}


def write(tmp_path, rows) -> str:
    path = tmp_path / "detections.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return str(path)


def test_rows_become_detections(tmp_path):
    rows = [GOOD, {**GOOD, "category_id": 7, "image_id": 11, "score": 1, "id": 5}]
    detections = read_detections(write(tmp_path, rows), DATA)
    assert detections.image_ids.tolist() == [12, 11] and detections.labels.tolist() == [2, 1]
    assert detections.boxes.tolist() == [[1, 2, 4.5, 6]] * 2 and detections.scores.tolist() == [0.25, 1]
    assert detections.boxes.dtype == np.float32 and detections.labels.dtype == np.int32


def test_an_empty_list_gives_no_detections(tmp_path):
    detections = read_detections(write(tmp_path, []), DATA)
    assert len(detections) == 0 and detections.boxes.shape == (0, 4)


@pytest.mark.parametrize("change, message", [
    ({"image_id": 99}, "image_id is not in the annotation file"), ({"image_id": "b"}, "row 1 'b'"),
    ({"image_id": 12.5}, "row 1 12.5"), ({"image_id": None}, "row 1 None"), ({"image_id": [12]}, "row 1 [12]"),
    ({"category_id": 1}, "category_id is not in the annotation file, which has 7, 3"),
    ({"score": 1e300}, "score is not a finite number"), ({"score": "high"}, "score is not a finite number"),
    ({"bbox": None}, "bbox is missing"), ({"bbox": []}, "bbox is missing"), ({"bbox": [0, 0, 10**400, 1]}, "four finite numbers"),
    ({"bbox": "1234"}, "four finite numbers"),
    ({"score": float("nan")}, "score is not a finite number"), ({"score": None}, "score is not a finite number"),
    ({"bbox": [5, 5, -1, 2]}, "negative width or height"), ({"bbox": [5, 5, 1, -2]}, "negative width or height"),
    ({"bbox": [5, 5, 1]}, "four finite numbers"), ({"bbox": [5, 5, 1, float("inf")]}, "four finite numbers"),
    ({"bbox": {"x": 1}}, "four finite numbers")])
def test_each_mistake_is_named_with_its_row_and_value(tmp_path, change, message):
    with pytest.raises(BadInput) as caught:
        read_detections(write(tmp_path, [GOOD, {**GOOD, **change}]), DATA)
    assert message in str(caught.value) and "row 1" in str(caught.value) and "row 0" not in str(caught.value)


def test_all_kinds_of_mistakes_are_listed_and_many_rows_are_counted(tmp_path):
    rows = [{**GOOD, "image_id": 1}] * 8 + [{**GOOD, "score": float("nan")}, 5, {"image_id": 11}]
    with pytest.raises(BadInput) as caught:
        read_detections(write(tmp_path, rows), DATA)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4 and "row 4 1 and 3 more" in lines[1] and "row 9, row 10" in lines[3]


@pytest.mark.parametrize("text, message", [
    ("{", "is no JSON"), ("{}", "expected a list of detections, got dict"), ('{"annotations": []}', "Name the detections first"),
    ("[" * 100_000, "is no file of detections: its lists are nested too deeply")])
def test_a_file_in_another_format_is_an_error(tmp_path, text, message):
    with pytest.raises(BadInput, match=message):
        read_detections(write(tmp_path, text), DATA)
    with pytest.raises(BadInput, match="no such file of detections: .*nothing.json"):
        read_detections(str(tmp_path / "nothing.json"), DATA)


@pytest.mark.parametrize("change", [{"image_id": "12"}, {"image_id": 12.0}, {"category_id": "03"}, {"score": "0.25"},
                                    {"bbox": ["1", "2", "3.5", "4"]}, {"segmentation": [[0, 0, 9, 9]]},
                                    {"bbox": None, "segmentation": [[1, 2, 4.5, 6]]}])
def test_numbers_may_be_written_in_another_form(tmp_path, change):
    detections = read_detections(write(tmp_path, [{**GOOD, **change}]), DATA)
    assert detections.boxes.tolist() == [[1, 2, 4.5, 6]] and detections.image_ids.tolist() == [12]
    assert detections.labels.tolist() == [2] and detections.scores.tolist() == [0.25]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "dets.json").write_text(json.dumps([GOOD]), encoding="utf-8-sig")
    assert len(read_detections(str(tmp_path / "dets.json"), DATA)) == 1


def test_ids_are_those_of_the_annotation_file_or_else_those_of_this_package(tmp_path):
    tables = index_ids(["img_a", "img_b"], [0, 1]), index_ids(["c", "d", "parent"], [1, 2, 0])
    rows = [{**GOOD, "image_id": "img_b", "category_id": category} for category in ("c", "d", "parent")]
    detections, left_out = read_detections_by_id(write(tmp_path, rows), DATA, *tables)
    assert detections.image_ids.tolist() == [12, 12] and detections.labels.tolist() == [1, 2] and left_out == 1
    assert len(read_detections_by_id(write(tmp_path, [GOOD]), DATA, *tables)[0]) == 1
    with pytest.raises(BadInput, match="category_id is not in the annotation file, which has c, d, parent. .* row 1 'e'"):
        read_detections_by_id(write(tmp_path, [*rows[:1], {**rows[0], "category_id": "e"}]), DATA, *tables)
