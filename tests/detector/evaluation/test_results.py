"""results.json and detections.json: writing them, and reading detections, where each kind of mistake is one clear line."""

import json

import numpy as np
import pytest

from detector.errors import BadInput
from detector.evaluation.results import ROWS_PER_CHUNK, evaluated_classes, read_detections, write_results
from detector.evaluation.scoring import Evaluation
from detector.structures import Detections, build_dataset

DATA = build_dataset("val", "/nowhere", ["cat", "dog"], [7, 3], [("a.jpg", 11, 50, 50), ("b.jpg", 12, 50, 50)], [])
GOOD = {"image_id": 12, "category_id": 3, "bbox": [1, 2, 3.5, 4], "score": 0.25}
EVALUATION = Evaluation(step=20, metrics={"AP": 0.5}, per_class={"cat": {"AP": 0.5}}, images=2, images_per_s=2.5,
                        elapsed_s=2.0, peak_memory_gib=0.5, unreadable=())


def make_detections(*xs: float) -> Detections:
    """Returns a detection of a cat in image 11 for each x1."""
    return Detections(np.full(len(xs), 11), np.array([(x, 0, x + 5, 5) for x in xs], np.float32).reshape(-1, 4),
                      np.full(len(xs), 0.75, np.float32), np.ones(len(xs), np.int32))


def write(tmp_path, rows) -> str:
    path = tmp_path / "detections.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return str(path)


def test_both_files_are_written(tmp_path):
    write_results(tmp_path, EVALUATION, make_detections(3), DATA)
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "step": 20, "metrics": {"AP": 0.5}, "per_class": {"cat": {"AP": 0.5}}, "images": 2, "images_per_s": 2.5,
        "elapsed_s": 2.0, "peak_memory_gib": 0.5, "unreadable": [], "data": "val"}
    assert json.loads((tmp_path / "detections.json").read_text()) == [
        {"image_id": 11, "category_id": 7, "bbox": [3.0, 0.0, 5.0, 5.0], "score": 0.75}]


@pytest.mark.parametrize("count", [0, 1, ROWS_PER_CHUNK, 2 * ROWS_PER_CHUNK + 1])
def test_any_number_of_detections_is_written_and_read_back(count, tmp_path):
    detections = make_detections(*range(count))
    write_results(tmp_path, EVALUATION, detections, DATA)
    again = read_detections(str(tmp_path / "detections.json"), DATA)
    for name in ("image_ids", "boxes", "scores", "labels"):
        assert np.array_equal(getattr(again, name), getattr(detections, name)), name
    assert len(again) == len(json.loads((tmp_path / "detections.json").read_text())) == count


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
    ({"image_id": 99}, "image_id is not in the annotation file"), ({"image_id": "12"}, "row 1 '12'"),
    ({"category_id": 1}, "category_id is not in the annotation file, which has 7, 3"),
    ({"score": float("nan")}, "score is not a finite number"), ({"score": None}, "score is not a finite number"),
    ({"bbox": [5, 5, -1, 2]}, "negative width or height"), ({"bbox": [5, 5, 1, -2]}, "negative width or height"),
    ({"bbox": [5, 5, 1]}, "four finite numbers"), ({"bbox": [5, 5, 1, float("inf")]}, "four finite numbers"),
    ({"bbox": {}}, "four finite numbers")])
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


@pytest.mark.parametrize("text, message", [("{", "is not a JSON file"), ("{}", "expected a list of detections, got dict")])
def test_a_file_in_another_format_is_an_error(tmp_path, text, message):
    with pytest.raises(BadInput, match=message):
        read_detections(write(tmp_path, text), DATA)
    with pytest.raises(BadInput, match="No such file"):
        read_detections(str(tmp_path / "nothing.json"), DATA)


def test_the_classes_of_a_run(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"per_class": {"cat": {}, "a dog": {}}}))
    assert evaluated_classes(str(tmp_path)) == ("cat", "a dog")
    with pytest.raises(BadInput, match="evaluate this run again"):
        evaluated_classes(str(tmp_path / "nowhere"))
