"""The verbs score and compare, as they are typed."""

import json

import pytest

from detector.__main__ import main

BOXES = {1: [(1, [10, 10, 40, 40]), (2, [60, 60, 20, 20])], 2: [(1, [5, 5, 50, 50])], 3: []}


@pytest.fixture
def annotations(tmp_path) -> str:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 100, "width": 100} for i in BOXES],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": 10 * i + n, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3],
                         "iscrowd": 0} for i, rows in BOXES.items() for n, (c, box) in enumerate(rows)]}))
    return str(path)


def results(tmp_path, rows: list) -> str:
    path = tmp_path / "found.json"
    path.write_text(json.dumps(rows))
    return str(path)


TRUTH = [{"image_id": i, "category_id": c, "bbox": box, "score": 0.9} for i, rows in BOXES.items() for c, box in rows]


@pytest.mark.parametrize("metric", ["coco", "voc"])
def test_the_truth_itself_scores_one(annotations, tmp_path, capsys, metric):
    assert main(["score", results(tmp_path, TRUTH), annotations, "--metric", metric]) == 0
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["AP", "1.0000"] in said and any(line[:2] == ["dog", "1.0000"] for line in said)


def test_no_detection_is_told_and_scores_zero(annotations, tmp_path, capsys):
    assert main(["score", results(tmp_path, []), annotations]) == 0
    said = capsys.readouterr().out
    assert "holds no detection" in said and ["AP", "0.0000"] in [line.split() for line in said.splitlines()]


def test_mistakes_are_one_error_with_status_2(annotations, tmp_path, capsys):
    assert main(["score", results(tmp_path, [{**TRUTH[0], "image_id": 9}]), annotations]) == 2
    assert "image_id is not in the annotation file" in capsys.readouterr().err
    assert main(["score", results(tmp_path, TRUTH), str(tmp_path / "nothing.json")]) == 2
    assert "no such annotation file" in capsys.readouterr().err


def test_a_run_is_no_better_than_itself_and_better_than_nothing(untrained_run, tmp_path, capsys):
    import shutil

    from detector.config.load import load_config
    from detector.data.read import read_val
    from detector.metrics.coco import to_coco_results as rows_of
    from detector.structures import Detections
    config = load_config(f"{untrained_run}/config.yaml", [])
    val = read_val(config.data, ("circle", "star", "triangle", "square", "ring", "cross"))
    perfect = Detections(val.image_ids[val.image_of_box()], val.boxes, val.labels * 0 + 0.9, val.labels)
    names = {"per_class": dict.fromkeys(val.classes, {})}
    for name, found in (("a", []), ("b", rows_of(perfect, val))):
        shutil.copytree(untrained_run, tmp_path / name)
        (tmp_path / name / "results.json").write_text(json.dumps(names))
        (tmp_path / name / "detections.json").write_text(json.dumps(found))
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["compare", b, b, "--resamples", "20"]) == 0
    assert "no real difference" in capsys.readouterr().out
    assert main(["compare", a, b, "--resamples", "20"]) == 0
    said = capsys.readouterr().out
    assert "B is better" in said and ["all", "0.0000", "1.0000", "+1.0000"] in [line.split()[:4] for line in said.splitlines()]
    assert main(["compare", b, a, "--resamples", "20"]) == 0 and "A is better" in capsys.readouterr().out
    assert main(["compare", a, b, "--resamples", "2"]) == 2 and "20 or more" in capsys.readouterr().err
    assert main(["compare", a, untrained_run]) == 2 and "no detections.json" in capsys.readouterr().err
    (tmp_path / "b" / "results.json").write_text(json.dumps({"per_class": {"cat": {}}}))
    assert main(["compare", a, b]) == 2 and "different questions" in capsys.readouterr().err
