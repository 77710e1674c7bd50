"""The verbs score and compare, from their command lines."""

import json
import shutil

import pytest

from detector.__main__ import main
from detector.config.load import load_config
from detector.data.read import read_val
from detector.metrics.coco import to_coco_results
from detector.structures import Detections

BOXES = {1: [(1, [10, 10, 40, 40]), (2, [60, 60, 20, 20])], 2: [(1, [5, 5, 50, 50])], 3: []}


@pytest.fixture
def annotations(tmp_path) -> str:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 100, "width": 100} for i in BOXES],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": 10 * i + n, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3],
                         "iscrowd": 0} for i, rows in BOXES.items() for n, (c, box) in enumerate(rows)]}))
    return str(path)


def write_detections(tmp_path, rows: list) -> str:
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(rows))
    return str(path)


PERFECT = [{"image_id": i, "category_id": c, "bbox": box, "score": 0.9} for i, rows in BOXES.items() for c, box in rows]


@pytest.mark.parametrize("metric", ["coco", "voc"])
def test_the_ground_truth_itself_scores_one(annotations, tmp_path, capsys, metric):
    assert main(["score", write_detections(tmp_path, PERFECT), annotations, "--metric", metric]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["AP", "1.0000"] in lines and any(line[:2] == ["dog", "1.0000"] for line in lines)


def test_a_file_without_detections_scores_zero_with_a_note(annotations, tmp_path, capsys):
    assert main(["score", write_detections(tmp_path, []), annotations]) == 0
    output = capsys.readouterr().out
    assert "holds no detection" in output and ["AP", "0.0000"] in [line.split() for line in output.splitlines()]


def test_mistakes_give_one_error_and_exit_status_2(annotations, tmp_path, capsys):
    assert main(["score", write_detections(tmp_path, [{**PERFECT[0], "image_id": 9}]), annotations]) == 2
    assert "image_id is not in the annotation file" in capsys.readouterr().err
    assert main(["score", write_detections(tmp_path, PERFECT), str(tmp_path / "nothing.json")]) == 2
    assert "no such annotation file" in capsys.readouterr().err


def test_a_run_does_not_differ_from_itself_and_is_better_than_one_without_detections(untrained_run, tmp_path, capsys):
    config = load_config(f"{untrained_run}/config.yaml", [])
    val = read_val(config.data, ("circle", "star", "triangle", "square", "ring", "cross"))
    perfect = Detections(val.image_ids[val.image_of_box()], val.boxes, val.labels * 0 + 0.9, val.labels)
    results = {"per_class": dict.fromkeys(val.classes, {})}
    for name, rows in (("a", []), ("b", to_coco_results(perfect, val))):
        shutil.copytree(untrained_run, tmp_path / name)
        (tmp_path / name / "results.json").write_text(json.dumps(results))
        (tmp_path / name / "detections.json").write_text(json.dumps(rows))
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["compare", b, b, "--resamples", "20"]) == 0
    assert "no significant difference" in capsys.readouterr().out
    assert main(["compare", a, b, "--resamples", "20"]) == 0
    output = capsys.readouterr().out
    assert "B is better" in output
    assert ["all", "0.0000", "1.0000", "+1.0000"] in [line.split()[:4] for line in output.splitlines()]
    assert main(["compare", b, a, "--resamples", "20"]) == 0 and "A is better" in capsys.readouterr().out
    assert main(["compare", a, b, "--resamples", "2"]) == 2 and "20 or more" in capsys.readouterr().err
    assert main(["compare", a, untrained_run]) == 2 and "no detections.json" in capsys.readouterr().err
    (tmp_path / "b" / "results.json").write_text(json.dumps({"per_class": {"cat": {}}}))
    assert main(["compare", a, b]) == 2 and "cannot be compared" in capsys.readouterr().err
