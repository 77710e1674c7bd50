"""Reading COCO results: what is right becomes detections, each kind of mistake is one clear line."""

import json

import numpy as np
import pytest

from detector.errors import BadInput
from detector.evaluation.results import evaluated_classes, read_detections
from detector.structures import build_dataset

DATA = build_dataset("val", "/nowhere", ["cat", "dog"], [7, 3], [("a.jpg", 11, 50, 50), ("b.jpg", 12, 50, 50)], [])
GOOD = {"image_id": 12, "category_id": 3, "bbox": [1, 2, 3.5, 4], "score": 0.25}


def write(tmp_path, rows) -> str:
    path = tmp_path / "found.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return str(path)


def test_rows_become_detections(tmp_path):
    found = read_detections(write(tmp_path, [GOOD, {**GOOD, "category_id": 7, "image_id": 11, "score": 1, "id": 5}]), DATA)
    assert found.image_ids.tolist() == [12, 11] and found.labels.tolist() == [2, 1]
    assert found.boxes.tolist() == [[1, 2, 4.5, 6]] * 2 and found.scores.tolist() == [0.25, 1]
    assert found.boxes.dtype == np.float32 and found.labels.dtype == np.int32


def test_no_rows_are_no_detections(tmp_path):
    found = read_detections(write(tmp_path, []), DATA)
    assert len(found) == 0 and found.boxes.shape == (0, 4)


@pytest.mark.parametrize("change, said", [
    ({"image_id": 99}, "image_id is not in the annotation file"), ({"image_id": "12"}, "row 1 '12'"),
    ({"category_id": 1}, "category_id is not in the annotation file, which has 7, 3"),
    ({"score": float("nan")}, "score is no finite number"), ({"score": None}, "score is no finite number"),
    ({"bbox": [5, 5, -1, 2]}, "negative width or height"), ({"bbox": [5, 5, 1, -2]}, "negative width or height"),
    ({"bbox": [5, 5, 1]}, "four finite numbers"), ({"bbox": [5, 5, 1, float("inf")]}, "four finite numbers"),
    ({"bbox": {}}, "four finite numbers")])
def test_each_mistake_is_named_with_its_row_and_value(tmp_path, change, said):
    with pytest.raises(BadInput) as caught:
        read_detections(write(tmp_path, [GOOD, {**GOOD, **change}]), DATA)
    assert said in str(caught.value) and "row 1" in str(caught.value) and "row 0" not in str(caught.value)


def test_all_kinds_are_told_at_once_and_many_rows_are_counted(tmp_path):
    rows = [{**GOOD, "image_id": 1}] * 8 + [{**GOOD, "score": float("nan")}, 5, {"image_id": 11}]
    with pytest.raises(BadInput) as caught:
        read_detections(write(tmp_path, rows), DATA)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4 and "row 4 1 and 3 more" in lines[1] and "row 9, row 10" in lines[3]


@pytest.mark.parametrize("text, said", [("{", "is no JSON"), ("{}", "a list of detections is expected, not dict")])
def test_what_is_no_results_file_is_said(tmp_path, text, said):
    with pytest.raises(BadInput, match=said):
        read_detections(write(tmp_path, text), DATA)
    with pytest.raises(BadInput, match="No such file"):
        read_detections(str(tmp_path / "nothing.json"), DATA)


def test_the_classes_of_a_run(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"per_class": {"cat": {}, "a dog": {}}}))
    assert evaluated_classes(str(tmp_path)) == ("cat", "a dog")
    with pytest.raises(BadInput, match="evaluate this run again"):
        evaluated_classes(str(tmp_path / "nowhere"))
