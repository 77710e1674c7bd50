"""results.json and detections.json: writing them and reading them back."""

import json

import numpy as np
import pytest

from detector.errors import BadInput
from detector.evaluation.detections_file import read_detections
from detector.evaluation.results import ROWS_PER_CHUNK, evaluated_classes, write_results
from detector.evaluation.scoring import Evaluation
from detector.structures import Detections, build_dataset

DATA = build_dataset("val", "/nowhere", ["cat", "dog"], [7, 3], [("a.jpg", 11, 50, 50), ("b.jpg", 12, 50, 50)], [])
EVALUATION = Evaluation(step=20, metrics={"AP": 0.5}, per_class={"cat": {"AP": 0.5}}, images=2, images_per_s=2.5,
                        elapsed_s=2.0, peak_memory_gib=0.5, unreadable=())


def make_detections(*xs: float) -> Detections:
    """Returns a detection of a cat in image 11 for each x1."""
    return Detections(np.full(len(xs), 11), np.array([(x, 0, x + 5, 5) for x in xs], np.float32).reshape(-1, 4),
                      np.full(len(xs), 0.75, np.float32), np.ones(len(xs), np.int32))


def test_both_files_are_written(tmp_path):
    write_results(tmp_path, EVALUATION, make_detections(3), DATA, "coco", "best.pt", ["data.val=b"])
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "step": 20, "metrics": {"AP": 0.5}, "per_class": {"cat": {"AP": 0.5}}, "images": 2, "images_per_s": 2.5,
        "elapsed_s": 2.0, "peak_memory_gib": 0.5, "unreadable": [], "not_finite": 0, "data": "val", "root": "/nowhere", "metric": "coco",
        "checkpoint": "best.pt", "overrides": ["data.val=b"]}
    assert json.loads((tmp_path / "detections.json").read_text()) == [
        {"image_id": 11, "category_id": 7, "bbox": [3.0, 0.0, 5.0, 5.0], "score": 0.75}]


@pytest.mark.parametrize("count", [0, 1, ROWS_PER_CHUNK, 2 * ROWS_PER_CHUNK + 1])
def test_any_number_of_detections_is_written_and_read_back(count, tmp_path):
    detections = make_detections(*range(count))
    write_results(tmp_path, EVALUATION, detections, DATA, "coco", "best.pt", [])
    again = read_detections(str(tmp_path / "detections.json"), DATA)
    for name in ("image_ids", "boxes", "scores", "labels"):
        assert np.array_equal(getattr(again, name), getattr(detections, name)), name
    assert len(again) == len(json.loads((tmp_path / "detections.json").read_text())) == count


def test_the_classes_of_a_run(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"per_class": {"cat": {}, "a dog": {}}}))
    assert evaluated_classes(str(tmp_path)) == ("cat", "a dog")
    with pytest.raises(BadInput, match="evaluate this run again"):
        evaluated_classes(str(tmp_path / "nowhere"))
