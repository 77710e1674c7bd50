"""The verbs score and compare, from their command lines."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

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
    output = capsys.readouterr().out
    assert ap_of(output) == 1 and any(line.split()[:2] == ["dog", "1.0000"] for line in output.splitlines())


def test_a_file_without_detections_scores_zero_with_a_note(annotations, tmp_path, capsys):
    assert main(["score", write_detections(tmp_path, []), annotations]) == 0
    output = capsys.readouterr().out
    assert "holds no detection" in output and ap_of(output) == 0


def test_mistakes_give_one_error_and_exit_status_2(annotations, tmp_path, capsys):
    assert main(["score", write_detections(tmp_path, [{**PERFECT[0], "image_id": 9}]), annotations]) == 2
    assert "image_id is not in the annotation file" in capsys.readouterr().err
    assert main(["score", write_detections(tmp_path, PERFECT), str(tmp_path / "nothing.json")]) == 2
    assert "no such annotation file" in capsys.readouterr().err


def ap_of(output: str) -> float:
    return float(re.search(r"^precision +AP (\S+)", output, re.MULTILINE)[1])


def test_what_pycocotools_takes_is_scored_with_its_numbers(tmp_path, capsys):
    """No sizes, no file names, categories of one name, annotations of unlisted images; numbers as floats and texts."""
    rng = np.random.RandomState(0)
    truth = {"images": [{"id": i} for i in range(1, 7)], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"},
                                                                        {"id": 5, "name": "dog"}, {"id": 6, "name": "none"}]}
    truth["annotations"] = [{"id": n, "image_id": int(rng.randint(1, 9)), "category_id": int(rng.choice([1, 2, 5])), "iscrowd": 0,
                             "bbox": [float(v) for v in rng.randint(1, 40, 4)], "area": 100.0} for n in range(1, 60)]
    detections = [{"image_id": a["image_id"], "category_id": a["category_id"], "score": float(rng.rand()),
                   "bbox": [v + float(rng.randint(0, 4)) for v in a["bbox"]]} for a in truth["annotations"] if a["image_id"] < 7]
    (tmp_path / "truth.json").write_text(json.dumps(truth), encoding="utf-8-sig")
    reference = COCO()
    reference.dataset = truth
    reference.createIndex()
    evaluation = COCOeval(reference, reference.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    for row in detections[::2]:
        row.update(image_id=float(row["image_id"]), category_id=str(row["category_id"]))
    assert main(["score", write_detections(tmp_path, detections), str(tmp_path / "truth.json")]) == 0
    output = capsys.readouterr().out
    assert ap_of(output) == pytest.approx(evaluation.stats[0], abs=1e-4)
    assert "cat (id 1)" in output and "no object of class none in coco truth.json: not part of the means" in output
    assert "annotations were left out, because the file does not list its image or category" in output


def test_ids_that_are_texts_are_matched_as_written(annotations, tmp_path, capsys):
    content = json.loads(Path(annotations).read_text())
    for entry in content["images"]:
        entry["id"] = f"img_{entry['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"img_{annotation['image_id']}"
    Path(annotations).write_text(json.dumps(content))
    rows = [{**row, "image_id": f"img_{row['image_id']}"} for row in PERFECT]
    for ids in (rows, PERFECT):  # as in the file, or as this package numbers them
        assert main(["score", write_detections(tmp_path, ids), annotations]) == 0
        assert ap_of(capsys.readouterr().out) == 1


def test_what_ap_hides_is_said(annotations, tmp_path, capsys):
    content = json.loads(Path(annotations).read_text())
    boxes = [[10 * n, 0, 8, 8] for n in range(150)]
    content["annotations"] = [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes]
    Path(annotations).write_text(json.dumps(content))
    rows = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes]
    assert main(["score", write_detections(tmp_path, rows), annotations]) == 0
    output = capsys.readouterr().out
    assert "1 of 3 images have more objects of a class, so that 50 of 150 objects cannot be found" in output
    assert "50 of 150 detections were not looked at" in output and "would be 1.0000 with all detections" in output
    assert "missed 0.000" in output and "no object of class dog" in output
    assert main(["score", write_detections(tmp_path, rows), annotations, "--metric", "voc"]) == 0
    assert "COCO's AP" not in capsys.readouterr().out


def test_repeated_objects_count_and_are_said(annotations, tmp_path, capsys):
    content = json.loads(Path(annotations).read_text())
    content["annotations"] += content["annotations"]
    content["images"][1]["file_name"] = content["images"][0]["file_name"]
    Path(annotations).write_text(json.dumps(content))
    assert main(["score", write_detections(tmp_path, PERFECT), annotations]) == 0
    output = capsys.readouterr().out
    assert ap_of(output) < 0.6 and "3 of 6 objects have class and box of another object" in output
    assert "1 of 3 images have the file_name of another one" in output


def test_ground_truth_without_objects_is_said(annotations, tmp_path, capsys):
    content = {**json.loads(Path(annotations).read_text()), "annotations": []}
    Path(annotations).write_text(json.dumps(content))
    assert main(["score", write_detections(tmp_path, PERFECT), annotations]) == 0
    assert "has no object to be found: AP is undefined (-)" in capsys.readouterr().out
    Path(annotations).write_text(json.dumps({**content, "categories": []}))
    assert main(["score", write_detections(tmp_path, []), annotations]) == 2
    assert "lists no category" in capsys.readouterr().err


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
