"""The figures that other programs printed or assert for the same detections and ground truth.

`expected.json` of each case holds them by the name of their source, and SOURCES.md tells where detections, ground truth
and figures come from. COCO files have boxes as published; those for VOC have exclusive corners, and difficult objects
as crowd regions.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from detector.__main__ import main
from detector.data.formats import coco
from detector.evaluation.detections_file import read_detections_by_id
from detector.metrics.coco import coco_metrics
from detector.metrics.matching import ABOVE_HALF
from detector.metrics.voc import precision_recall_by_class, voc_metrics
from detector.structures import Dataset, Detections
from tests.conftest import shared_data

COCOAPI = "printed in cocoapi/PythonAPI/pycocoEvalDemo.ipynb"
REVIEW_COCO = "asserted in its tests/test_eval_coco.py, there said to be from the official implementation"
REVIEW_PASCAL = "asserted in its tests/test_eval_pascal.py; IoU of boxes with inclusive ends (width x2-x1+1)"
REVIEW = "review_object_detection_metrics here, IoU of boxes with inclusive ends, nothing difficult"
CARTUCHO = "main.py of Cartucho/mAP here: VOC2010 areas, percent, IoU .5 of boxes with inclusive ends"
VOC_EVAL = "voc_eval.py of py-faster-rcnn (as in jwyang/faster-rcnn.pytorch) here, 38 difficult objects ignored"
PYCOCOTOOLS = "pycocotools here"
# Case and source -> digits after the point that the source gives.
COCO_CASES = [("cocoapi_fakebbox100", COCOAPI, 3), ("cocoapi_fakebbox100", PYCOCOTOOLS, 6),
              ("review_metrics_coco", REVIEW_COCO, 6), ("review_metrics_coco", PYCOCOTOOLS, 6),
              ("voc2012_100_detections", PYCOCOTOOLS, 6), ("cartucho_map", PYCOCOTOOLS, 6)]
TWELVE = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}


def case_folder(case: str) -> Path:
    return shared_data(f"scorer_cases/{case}")


def read_case(detections_path: Path, annotations_path: Path) -> tuple[Detections, Dataset]:
    truth = coco.read_ground_truth(str(annotations_path))
    return read_detections_by_id(str(detections_path), truth.dataset, truth.image_ids, truth.labels)[0], truth.dataset


def expected_figures(folder: Path, source: str) -> dict:
    return json.loads((folder / "expected.json").read_text())[source]


def equals_all_digits(values: dict[str, float], figures: dict[str, float], digits: int) -> bool:
    """Returns whether values, rounded, are the figures; half a unit of the last digit is allowed on both sides."""
    return all(abs(values[name] - figure) <= 0.5 * 10 ** -digits + 1e-12 for name, figure in figures.items())


@pytest.mark.parametrize("case, source, digits", COCO_CASES)
def test_coco_metrics_have_all_digits_that_were_printed(case, source, digits):
    folder = case_folder(case)
    metrics, _ = coco_metrics(*read_case(folder / "dt.json", folder / "gt.json"))
    figures = expected_figures(folder, source)
    assert set(figures) == TWELVE and equals_all_digits(metrics, figures, digits)


def assert_voc_figures(detections: Detections, dataset: Dataset, key: str, figures: dict, digits: int, unit: float = 1):
    """Asserts that the mean, `mAP`, and the AP of every class equal the figures, which are multiples of `unit`."""
    metrics, per_class = voc_metrics(detections, dataset)
    values = {"mAP": metrics[key] / unit} | {name: aps[key] / unit for name, aps in per_class.items()}
    assert set(figures) == set(values) and equals_all_digits(values, figures, digits)


@pytest.mark.parametrize("key, rule", [("AP_11point", "VOC2007, 11 points"), ("AP", "VOC2010 on")])
def test_voc_metrics_of_real_images_with_difficult_objects_equal_py_faster_rcnn(key, rule):
    folder = case_folder("voc2012_100_detections")
    detections, dataset = read_case(folder / "dt_voc.json", folder / "gt_voc.json")
    assert (dataset.flags > 0).sum() == 38
    assert_voc_figures(detections, dataset, key, expected_figures(folder, VOC_EVAL)[rule], 6)


def read_without_difficult(folder: Path, tmp_path: Path) -> tuple[Detections, Dataset]:
    truth = json.loads((folder / "gt_voc.json").read_text())
    truth["annotations"] = [{**annotation, "iscrowd": 0} for annotation in truth["annotations"]]
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    return read_case(folder / "dt_voc.json", tmp_path / "gt.json")


def test_voc_metrics_without_difficult_objects_equal_another_program(tmp_path):
    folder = case_folder("voc2012_100_detections")
    case = read_without_difficult(folder, tmp_path)
    assert_voc_figures(*case, "AP", expected_figures(folder, REVIEW)["every point"], 6)


def floating_11point(detections: Detections, dataset: Dataset, min_iou: float) -> dict[str, float]:
    """Returns 11-point AP as floats give it: linspace(0, 1, 11) has 0.6000000000000001, which 9 of 15 do not reach."""
    per_class = {name: np.mean([precision[recall >= point].max(initial=0) for point in np.linspace(0, 1, 11)])
                 for name, (recall, precision, _) in
                 zip(dataset.classes, precision_recall_by_class(detections, dataset, min_iou))}
    return {"mAP": np.mean(list(per_class.values()))} | per_class


def test_11_point_ap_differs_from_another_program_only_where_a_recall_is_reached_exactly(tmp_path):
    folder = case_folder("voc2012_100_detections")
    case = read_without_difficult(folder, tmp_path)
    figures = expected_figures(folder, REVIEW)["11 points"]
    floating, (_, per_class) = floating_11point(*case, ABOVE_HALF), voc_metrics(*case)
    assert set(floating) == set(figures) and equals_all_digits(floating, figures, 6)
    objects = dict(zip(case[1].classes, np.bincount(case[1].labels)[1:]))
    differing = {name for name, values in per_class.items() if values["AP_11point"] > figures[name] + 1e-6}
    assert differing and all(any(objects[name] * tenths % 10 == 0 for tenths in (3, 6, 7)) for name in differing)
    assert all(equals_all_digits({name: values["AP_11point"]}, {name: figures[name]}, 6)
               for name, values in per_class.items() if name not in differing)


def test_voc_metrics_of_thirty_classes_equal_the_percentages_of_another_program():
    folder = case_folder("cartucho_map")
    detections, dataset = read_case(folder / "dt_voc.json", folder / "gt_voc.json")
    assert_voc_figures(detections, dataset, "AP", expected_figures(folder, CARTUCHO), 2, unit=0.01)


def is_cut_after_ten_digits(value: float, figure: float) -> bool:
    return math.floor(value * 1e10) == round(figure * 1e10)


@pytest.mark.parametrize("iou", ["0.1", "0.3", "0.5", "0.75"])
def test_voc_metrics_at_other_ious_have_all_ten_digits_that_were_asserted(iou):
    folder = case_folder("review_metrics_pascal")
    case, min_iou = read_case(folder / "dt_voc.json", folder / "gt_voc.json"), float(np.nextafter(float(iou), 1))
    figures = expected_figures(folder, REVIEW_PASCAL)
    metrics, _ = voc_metrics(*case, min_iou)
    assert is_cut_after_ten_digits(metrics["AP"], figures["every point"][iou])
    assert is_cut_after_ten_digits(floating_11point(*case, min_iou)["mAP"], figures["11 points"][iou])
    if iou != "0.1":  # there 9 of 15 objects are found, a recall of exactly 0.6
        assert is_cut_after_ten_digits(metrics["AP_11point"], figures["11 points"][iou])


def printed_metrics(output: str) -> dict[str, str]:
    """Returns the values of the data set, as text by name: groups of names and values, each on a line after its title."""
    lines = output.split("\n\n")[0].splitlines()[1:]
    words = [word for line in lines for word in line.split()[1:]]
    return dict(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize("case", ["cocoapi_fakebbox100", "review_metrics_coco", "voc2012_100_detections", "cartucho_map"])
def test_the_verb_score_prints_cocos_twelve_numbers(case, capsys):
    folder = case_folder(case)
    assert main(["score", str(folder / "dt.json"), str(folder / "gt.json")]) == 0
    figures = expected_figures(folder, PYCOCOTOOLS)
    assert printed_metrics(capsys.readouterr().out) == {name: f"{figure:.4f}" for name, figure in figures.items()}


@pytest.mark.parametrize("case, area, eleven", [
    ("voc2012_100_detections", "0.6139", "0.6075"), ("review_metrics_pascal", "0.0222", "0.0303"),
    ("cartucho_map", "0.3105", None)])
def test_the_verb_score_prints_both_average_precisions_of_voc(case, area, eleven, capsys):
    folder = case_folder(case)
    assert main(["score", str(folder / "dt_voc.json"), str(folder / "gt_voc.json"), "--metric", "voc"]) == 0
    metrics = printed_metrics(capsys.readouterr().out)
    assert metrics["AP"] == area and eleven in (None, metrics["AP_11point"])
