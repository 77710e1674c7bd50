"""The data of a report: unpacked, it equals the evaluation; a large data set stays within its byte budget."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.evaluation.evaluate_run import evaluate_run
from detector.inference.predict import predict
from detector.metrics import tide
from detector.metrics.analysis import analyse
from detector.report import image_budget
from detector.report.image_budget import JpegBudget, min_score_shown, pack_columns, select_images_to_show, to_base64
from detector.report.report import (
    ERROR_KINDS,
    PageInfo,
    analysis_data,
    class_rows,
    size_rows,
    write_evaluation_report,
    write_prediction_report,
)
from detector.structures import CROWD, Dataset, Detections, build_dataset, concat_detections

CLASSES = ["cat", "dog"]
INFO = PageInfo("a run", ("a fact",), "a command", 0.5)
A, B, SMALL = (10, 20, 110, 120), (200, 200, 300, 300), (0, 0, 20, 20)


def make_dataset(*objects: tuple, images: int = 3, root: str = "/nowhere") -> Dataset:
    """Objects: (image from 0, label, box, flags). Ids of images are 30, 20, 10."""
    rows = [(image, label, flags, (box[2] - box[0]) * (box[3] - box[1]), *box) for image, label, box, flags in objects]
    return build_dataset("test", root, CLASSES, [1, 2], [(f"{i}.jpg", 10 * (images - i), 300, 400) for i in range(images)],
                    np.array(rows, np.float64).reshape(-1, 8))


def make_detections(*rows: tuple, images: int = 3) -> Detections:
    """Rows: (image from 0, label, box, score)."""
    return Detections(np.array([10 * (images - row[0]) for row in rows], np.int64),
                      np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
                      np.array([row[3] for row in rows], np.float32), np.array([row[1] for row in rows], np.int32))


def unpacked(text: str, kind: type) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def data_of(path: Path) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text()).group(1))


DATA = make_dataset((0, 1, A, 0), (1, 2, B, 0), (1, 1, SMALL, 0), (2, 1, A, CROWD))
DETECTIONS = make_detections((1, 2, B, .6), (0, 1, A, .9), (1, 1, A, .8), (0, 1, A, .4))


def test_columns_are_image_by_image_with_detections_by_falling_score():
    analysis = analyse(DETECTIONS, DATA)
    order = select_images_to_show(DATA, analysis.image_weight)
    assert order.tolist() == [1, 0, 2]  # a missed object and a false positive; a low-scored duplicate; no error
    data, min_score = pack_columns(DATA, DETECTIONS, analysis, order)
    assert min_score == 0 and unpacked(data["widths"], np.uint32).tolist() == [400] * 3
    assert unpacked(data["num_detections"], np.uint32).tolist() == [2, 2, 0]
    assert unpacked(data["num_objects"], np.uint32).tolist() == [2, 1, 1]
    assert unpacked(data["detections"]["scores"], np.uint16) / 65535 == pytest.approx([.8, .6, .9, .4], abs=1e-5)
    assert unpacked(data["detections"]["labels"], np.uint16).tolist() == [1, 2, 1, 1]
    kinds = [ERROR_KINDS[kind] for kind in unpacked(data["detections"]["errors"], np.uint8)]
    assert kinds == ["background", "correct", "correct", "duplicate"]
    boxes = unpacked(data["detections"]["boxes"], np.uint16).reshape(-1, 4) / 65535 * [400, 300, 400, 300]
    assert boxes == pytest.approx(np.array([A, B, A, A]), abs=0.004)
    assert unpacked(data["ground_truth"]["detections"], np.int16).tolist() == [1, -1, 0, -1]  # within the image
    assert unpacked(data["ground_truth"]["flags"], np.uint8).tolist() == [0, 0, 0, CROWD]


def test_the_kinds_of_errors_are_those_of_the_analysis_in_its_order():
    kinds = {"correct": tide.TRUE_POSITIVE, "ignored": tide.IGNORED, "localization": tide.LOCALISATION,
             "classification": tide.CLASS, "both": tide.BOTH, "duplicate": tide.DUPLICATE, "background": tide.BACKGROUND,
             "missed": tide.MISSED}
    assert {kind: number for number, kind in enumerate(ERROR_KINDS)} == kinds and len(ERROR_KINDS) == len(tide.ERRORS)
    costs = analysis_data(DATA, analyse(DETECTIONS, DATA), {})["cost"]
    assert list(costs) == list(ERROR_KINDS[2:])


def test_no_detections_and_no_objects():
    nothing = concat_detections([])
    for data in (DATA, make_dataset()):
        analysis = analyse(nothing, data)
        page, _ = pack_columns(data, nothing, analysis, select_images_to_show(data, analysis.image_weight))
        assert page["detections"]["boxes"] == ""
        assert unpacked(page["ground_truth"]["detections"], np.int16).tolist() == [-1] * len(data.boxes)
        numbers = analysis_data(data, analysis, {})
        assert all(row["recall"] in (0, -1) for row in numbers["sizes"]) and json.dumps(numbers, allow_nan=False)


def test_only_the_best_detections_of_too_many_are_shown(monkeypatch):
    monkeypatch.setattr(image_budget, "MAX_DETECTIONS", 3)
    assert min_score_shown(np.array([.9, .5, .7], np.float32)) == 0
    assert min_score_shown(np.array([.9, .5, .7, .6], np.float32)) == pytest.approx(.6)
    assert min_score_shown(np.array([.9, .5, .5, .5], np.float32)) == pytest.approx(.9)  # equal scores are left out as one
    data, min_score = pack_columns(DATA, DETECTIONS, analyse(DETECTIONS, DATA), np.arange(3))
    assert min_score == pytest.approx(.6) and len(unpacked(data["detections"]["scores"], np.uint16)) == 3


def test_only_the_first_images_of_too_many_are_listed(monkeypatch):
    weight = np.array([0, 1, 2], np.float32)
    assert select_images_to_show(DATA, weight).tolist() == [2, 1, 0] and select_images_to_show(DATA, None).tolist() == [0, 1, 2]
    monkeypatch.setattr(image_budget, "MAX_IMAGES", 2)
    assert select_images_to_show(DATA, weight).tolist() == [2, 1]
    monkeypatch.setattr(image_budget, "MAX_OBJECTS", 2)
    assert select_images_to_show(DATA, weight).tolist() == [2]


def test_budget_goes_from_large_to_small_to_none(monkeypatch):
    draw = np.random.default_rng(0)
    noise = draw.integers(0, 255, (600, 800, 3), dtype=np.uint8)
    large, small = len(image_budget.encode_thumbnail(noise, *image_budget.LARGE_JPEG)), len(image_budget.encode_thumbnail(noise, 40, 30))
    monkeypatch.setattr(image_budget, "SMALL_JPEGS", ((80, 30, large), (40, 30, small)))
    monkeypatch.setattr(image_budget, "MAX_JPEG_BYTES", 2 * large + 3 * small)
    budget = JpegBudget(5)
    for pixels in (noise, None, noise, noise, noise):
        budget.add(pixels)
    assert [len(jpeg) for jpeg in budget.jpegs] == [large, 0, large, small, small] and (budget.num_large, budget.num_small) == (2, 2)
    more = JpegBudget(5)  # of more images than planned, the last ones have no JPEG
    for _ in range(9):
        more.add(noise)
    assert (more.num_large, more.num_small, more.is_full) == (2, 3, True) and more.jpegs[5:] == [""] * 4


def test_a_few_images_are_all_large():
    budget = JpegBudget(100)
    for _ in range(3):
        budget.add(np.zeros((600, 800, 3), np.uint8))
    assert (budget.num_large, budget.num_small) == (3, 0)


def test_numbers_by_class_and_size():
    analysis = analyse(DETECTIONS, DATA)
    rows = class_rows(analysis)
    assert [row["name"] for row in rows] == CLASSES and [row["objects"] for row in rows] == [2, 1]
    # At the best score, 0.6, cats: A detected, one false positive, the small cat missed. Dogs: no error.
    assert analysis.best_score == pytest.approx(.6)
    assert [(row["precision"], row["recall"]) for row in rows] == [(.5, .5), (1, 1)]
    small, medium, large = size_rows(DATA, analysis, analysis.metrics)
    assert (small["objects"], medium["objects"], large["objects"]) == (1, 0, 2)
    assert (small["recall"], medium["recall"], large["recall"]) == (0, -1, 1) and small["missed"] == 1
    assert large["AP"] == round(analysis.metrics["APl"], 4) and "AR" in large
    assert sorted(analysis_data(DATA, analysis, {})["confusion"]) == [[0, 1, 1], [1, 0, 1], [1, 1, 1], [2, 2, 1]]


@pytest.mark.parametrize("rule", ["coco", "voc"])
def test_a_page_of_an_evaluation(tmp_path, rule):
    for name in ("0.jpg", "1.jpg"):  # the third cannot be read
        Image.new("RGB", (400, 300), "grey").save(tmp_path / name)
    data = make_dataset((0, 1, A, 0), (1, 2, B, 0), root=str(tmp_path))
    analysis = analyse(DETECTIONS, data, rule)
    summary = write_evaluation_report(tmp_path / "report.html", INFO, data, DETECTIONS, analysis, {"AP": 0.123456, "loss": 1.5})
    page = data_of(tmp_path / "report.html")
    assert "all 3 images" in summary and "1 as boxes without an image" in summary and "MB" in summary
    assert page["metrics"] == {"AP": 0.1235, "loss": 1.5} and page["has_ground_truth"] and page["classes"] == CLASSES
    assert [bool(jpeg) for jpeg in page["images"]["jpegs"]] == [name != "2.jpg" for name in page["images"]["names"]]
    assert page["counts"]["correct"] == int(analysis.image_errors[:, tide.TRUE_POSITIVE].sum())


def test_a_page_of_predictions(tmp_path):
    data, budget = make_dataset(), JpegBudget(3)
    for _ in range(3):
        budget.add(np.zeros((300, 400, 3), np.uint8))
    write_prediction_report(tmp_path / "report.html", INFO, data, DETECTIONS, budget)
    page = data_of(tmp_path / "report.html")
    assert not page["has_ground_truth"] and page["images"]["names"] == ["0.jpg", "1.jpg", "2.jpg"]
    assert unpacked(page["images"]["num_detections"], np.uint32).tolist() == [2, 2, 0]


@pytest.fixture
def cats_and_dogs(shapes_root, tmp_path) -> list[str]:
    """Overrides for validation data with the classes of the untrained detector: drawn shapes under other names."""
    annotations = json.loads((shapes_root / "annotations" / "instances_val.json").read_text())
    annotations["categories"] = [{"id": category["id"], "name": name}
                                 for category, name in zip(annotations["categories"], ("cat", "dog"))]
    ids = {category["id"] for category in annotations["categories"]}
    annotations["annotations"] = [row for row in annotations["annotations"] if row["category_id"] in ids]
    for image in annotations["images"]:
        image["file_name"] = str(shapes_root / "val" / image["file_name"])
    (tmp_path / "renamed.json").write_text(json.dumps(annotations))
    return ["data.format=coco", f"data.root={tmp_path}", "data.val=renamed.json"]


@pytest.mark.parametrize("metric", ["coco", "voc", "visual_genome"])
def test_evaluate_writes_the_report_beside_the_results(untrained_run, cats_and_dogs, metric):
    assert evaluate_run(untrained_run, [*cats_and_dogs, f"evaluate.metric={metric}"], "last", report=True)
    folder = next((Path(untrained_run) / "evaluations").iterdir())  # other data than the run's
    page = data_of(folder / "report.html")
    results = json.loads((folder / "results.json").read_text())
    assert page["metrics"] == {name: round(value, 4) for name, value in results["metrics"].items()}
    assert len(page["images"]["names"]) == 5 == results["images"] and all(page["images"]["jpegs"])
    assert page["match_rule"] == ("coco" if metric == "coco" else "voc") and page["classes"] == ["cat", "dog"]


def test_evaluate_writes_no_report_by_default(untrained_run, cats_and_dogs):
    assert evaluate_run(untrained_run, cats_and_dogs, "last") and not list(Path(untrained_run).rglob("report.html"))


def test_predict_writes_the_report_beside_the_images(untrained_run, tmp_path):
    for name in ("b", "a"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), "grey").save(tmp_path / "photos" / f"{name}.png")
    assert predict(untrained_run, str(tmp_path / "photos"), "cpu", 0.0, str(tmp_path / "out"), "last", report=True) == 0
    page, results = data_of(tmp_path / "out" / "report.html"), json.loads((tmp_path / "out" / "detections.json").read_text())
    assert page["images"]["names"] == ["a.png", "b.png"] and all(page["images"]["jpegs"]) and not page["has_ground_truth"]
    assert unpacked(page["images"]["num_detections"], np.uint32).sum() == len(results) > 0


def test_packing_is_little_endian():
    assert base64.b64decode(to_base64(np.array([1, 258]), np.uint16)) == b"\x01\x00\x02\x01"
