"""COCO's limit of 100 detections of a class in an image: what it hides, and how the analysis explains that."""

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.metrics import coco_kernel
from detector.metrics.analysis import analyse, describe_errors
from detector.metrics.coco import coco_ap, to_coco_results
from detector.metrics.limit import BeyondLimit, beyond_limit
from detector.metrics.tide import IGNORED, LIMIT, MISSED, TRUE_POSITIVE
from detector.structures import CROWD, Detections, build_dataset


def boxes(count: int) -> np.ndarray:
    x = 10.0 * np.arange(count)
    return np.stack([x, 0 * x, x + 8, 0 * x + 8], axis=1)


def make_dataset(*counts: int, flags: int = 0):
    """Returns a data set of two classes with this many trees (class 1) in each image, and one car in each."""
    rows = [(image, label, flags if label == 1 else 0, 64, *box) for image, count in enumerate(counts)
            for label, of_class in ((1, boxes(count)), (2, boxes(1) + 5000)) for box in of_class]
    return build_dataset("test", "/nowhere", ["tree", "car"], [1, 2], [(f"{i}.jpg", i + 1, 9000, 9000) for i in range(len(counts))],
                         np.array(rows, np.float64))


def detect(dataset, keep: slice = slice(None)) -> Detections:
    """Returns detections equal to the objects with falling scores; of the trees of each image those in `keep`."""
    rows = np.concatenate([np.flatnonzero((dataset.image_of_box() == i) & (dataset.labels == label))[keep if label == 1 else ...]
                           for i in range(len(dataset)) for label in (1, 2)])
    scores = np.linspace(0.9, 0.1, len(rows)).astype(np.float32)
    return Detections(dataset.image_ids[dataset.image_of_box()[rows]], dataset.boxes[rows], scores, dataset.labels[rows])


@pytest.mark.parametrize("counts, expected", [((300, 300), BeyondLimit(2, 400, 400, 300)), ((100, 5), BeyondLimit(0, 0, 0, 100)),
                                              ((101, 5), BeyondLimit(1, 1, 1, 101)), ((0,), BeyondLimit(0, 0, 0, 1))])
def test_objects_and_detections_beyond_the_limit_are_counted(counts, expected):
    dataset = make_dataset(*counts)
    assert beyond_limit(detect(dataset), dataset) == expected


def test_crowd_regions_need_not_be_found():
    assert beyond_limit(detect(make_dataset(300)), make_dataset(300, flags=CROWD)) == BeyondLimit(0, 0, 200, 300)


def test_hidden_objects_are_not_missed():
    dataset = make_dataset(300, 50)
    analysis = analyse(detect(dataset), dataset)
    assert analysis.metrics["AP"] < 0.8 and (analysis.object_error == MISSED).sum() == 0
    assert (analysis.object_error == IGNORED).sum() == 200 and (analysis.object_error == TRUE_POSITIVE).sum() == 152
    assert analysis.cost["missed"] == 0 and analysis.cost[LIMIT] == pytest.approx(1 - analysis.ap50)
    assert analysis.f1 == 1 and f"{LIMIT} {analysis.cost[LIMIT]:.3f}" in describe_errors(analysis)


def test_what_a_detector_misses_within_the_limit_stays_missed():
    dataset = make_dataset(300)
    analysis = analyse(detect(dataset, slice(30)), dataset)  # it finds 30: 200 are hidden, 70 missed
    assert (analysis.object_error == IGNORED).sum() == 200 and (analysis.object_error == MISSED).sum() == 70
    assert analysis.cost["missed"] > 0 and analysis.cost[LIMIT] > 0


def test_objects_are_hidden_only_by_the_rule_of_coco():
    dataset = make_dataset(300)
    analysis = analyse(detect(dataset), dataset, "voc")
    assert LIMIT not in analysis.cost and analysis.metrics["AP"] == 1
    few = make_dataset(50)
    assert LIMIT not in analyse(detect(few, slice(10)), few).cost


@pytest.mark.parametrize("kernel", ["hotcoco", "pycocotools"])
def test_ap_with_another_limit_is_that_of_pycocotools(kernel, monkeypatch):
    if kernel == "pycocotools":
        monkeypatch.setattr(coco_kernel, "hotcoco", None)
    dataset = make_dataset(300, 150)
    detections = detect(dataset, slice(None, None, 2))
    truth, index = COCO(), coco_kernel.index_pycocotools(dataset, dataset.image_of_box() + 1)
    truth.dataset = {**index.dataset, "images": [{"id": int(i)} for i in dataset.image_ids]}
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(to_coco_results(detections, dataset)), "bbox")
    evaluation.params.maxDets = [1, 10, 120]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    assert coco_ap(detections, dataset, 120) == pytest.approx(precision[precision > -1].mean(), abs=1e-9)
    assert coco_ap(detections, dataset, 300) > coco_ap(detections, dataset, 100)
