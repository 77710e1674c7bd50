"""COCO's metrics: small cases by hand, and random data beside pycocotools, which reads it from JSON files."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.config.schema import METRICS
from detector.metrics.coco import coco_metrics, to_coco_results
from detector.structures import CROWD, DIFFICULT, Dataset, Detections, build_dataset, concat_detections

NAMES = METRICS["coco"]
CLASSES, IDS = ["cat", "dog", "bird"], [3, 7, 90]  # category ids of an annotation file, which have gaps


def make_dataset(*objects: tuple, images: int = 2, classes: int = 1) -> Dataset:
    """Returns a data set of objects (image from 0, label, box, flags). Image ids are 10, 20, ..."""
    rows = [(image, label, flags, (box[2] - box[0]) * (box[3] - box[1]), *box) for image, label, box, flags in objects]
    return build_dataset("test", "/nowhere", CLASSES[:classes], IDS[:classes],
                    [(f"{i}.jpg", 10 * (i + 1), 400, 400) for i in range(images)], np.array(rows, np.float64))


def make_detections(*rows: tuple) -> Detections:
    """Returns detections of rows (image from 0, label, box, score)."""
    return Detections(np.array([10 * (row[0] + 1) for row in rows], np.int64),
                      np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
                      np.array([row[3] for row in rows], np.float32), np.array([row[1] for row in rows], np.int32))


A, B, FAR = (0, 0, 100, 100), (200, 200, 300, 300), (300, 0, 400, 100)  # large: 100 x 100 pixels


@pytest.mark.parametrize("detections, expected", [
    # each row: detections (box, score), while the objects are A and B, both in image 0; AP and AP50 by hand
    ([(A, 0.9), (B, 0.8)], (1, 1)),
    ([(A, 0.9)], (51 / 101, 51 / 101)),                        # recalls 0, 0.01 ... 0.50 are reached, at precision 1
    ([(A, 0.9), (FAR, 0.8), (B, 0.7)], ((51 + 50 * 2 / 3) / 101,) * 2),
    ([(FAR, 0.9), (A, 0.8)], (51 * 1 / 2 / 101,) * 2),         # precision 1/2 when A is found
    ([(A, 0.9), (A, 0.8), (B, 0.7)], ((51 + 50 * 2 / 3) / 101,) * 2),  # found twice: the second one is a false positive
    ([((0, 0, 100, 62), 0.9), ((200, 200, 300, 262), 0.8)], (3 / 10, 1)),  # IoU 0.62: true positives at 0.50, 0.55 and 0.60
    ([((0, 0, 100, 40), 0.9)], (0, 0)),
    ([(FAR, 0.9)], (0, 0)),
    ([], (0, 0))])
def test_by_hand(detections, expected):
    metrics, per_class = coco_metrics(make_detections(*((0, 1, box, score) for box, score in detections)),
                                      make_dataset((0, 1, A, 0), (0, 1, B, 0)))
    assert list(metrics) == list(NAMES)
    assert (metrics["AP"], metrics["AP50"]) == pytest.approx(expected)
    assert (per_class["cat"]["AP"], per_class["cat"]["AP50"]) == pytest.approx(expected)
    assert metrics["APl"] == pytest.approx(metrics["AP"]) and metrics["APs"] == metrics["APm"] == -1


def test_sizes_are_small_medium_and_large():
    """COCO's limits are 32 x 32 and 96 x 96 pixels. The small and the large one are found, the medium one is not."""
    small, medium, large = (0, 0, 20, 20), (100, 100, 150, 150), (200, 200, 320, 320)
    metrics, _ = coco_metrics(make_detections((0, 1, small, 0.9), (0, 1, large, 0.8)),
                              make_dataset((0, 1, small, 0), (0, 1, medium, 0), (0, 1, large, 0)))
    assert [metrics[name] for name in ("APs", "APm", "APl")] == pytest.approx([1, 0, 1])
    assert [metrics[name] for name in ("ARs", "ARm", "ARl")] == pytest.approx([1, 0, 1])
    assert metrics["AR100"] == pytest.approx(2 / 3) and metrics["AR1"] == pytest.approx(1 / 3)


def test_the_area_of_the_mask_decides_the_size_if_the_file_states_it():
    dataset = make_dataset((0, 1, A, 0))
    dataset.areas[:] = 50  # a thin object in a large box
    metrics, _ = coco_metrics(make_detections((0, 1, A, 0.9)), dataset)
    assert metrics["APs"] == pytest.approx(1) and metrics["APl"] == -1


def test_metrics_are_minus_one_without_objects_and_zero_without_detections():
    no_detections = concat_detections([])
    for detections in (no_detections, make_detections((0, 1, A, 0.9))):
        metrics, per_class = coco_metrics(detections, make_dataset())
        assert set(metrics.values()) == {-1} and per_class == {"cat": dict.fromkeys(NAMES[:6], -1)}
    metrics, per_class = coco_metrics(no_detections, make_dataset((0, 1, A, 0)))
    assert {metrics[name] for name in ("AP", "AP50", "AP75", "APl", "AR1", "AR100")} == {0}
    assert per_class == {"cat": {"AP": 0, "AP50": 0, "AP75": 0, "APs": -1, "APm": -1, "APl": 0}}


def test_a_class_without_objects_is_left_out_of_the_mean():
    dataset = make_dataset((0, 1, A, 0), (1, 3, B, 0), classes=3)
    metrics, per_class = coco_metrics(make_detections((0, 1, A, 0.9), (0, 2, B, 0.9)), dataset)
    assert {name: values["AP"] for name, values in per_class.items()} == {"cat": pytest.approx(1), "dog": -1, "bird": 0}
    assert {name: values["AP50"] for name, values in per_class.items()} == {"cat": pytest.approx(1), "dog": -1, "bird": 0}
    assert metrics["AP"] == pytest.approx((1 + 0) / 2)


def test_detections_in_a_crowd_region_are_ignored():
    """The overlap with a crowd region is the fraction of the detection inside it: small boxes inside it are ignored, too."""
    crowd, inside = (0, 200, 400, 400), [(x, 300, x + 20, 320) for x in range(0, 400, 40)]
    noise = [(0, 1, box, 0.95) for box in inside]
    dataset = make_dataset((0, 1, A, 0), (0, 1, crowd, CROWD))
    assert coco_metrics(make_detections((0, 1, A, 0.9), *noise), dataset)[0]["AP"] == pytest.approx(1)
    without = make_dataset((0, 1, A, 0))
    assert coco_metrics(make_detections((0, 1, A, 0.9), *noise), without)[0]["AP"] == pytest.approx(1 / 11)


def test_a_detection_of_a_difficult_object_is_ignored_if_its_iou_is_high_enough():
    """A detection of the difficult object is ignored; a small box inside it is a false positive."""
    region = (0, 200, 400, 400)
    dataset = make_dataset((0, 1, A, 0), (0, 1, region, DIFFICULT))
    correct = (0, 1, A, 0.9)
    assert coco_metrics(make_detections(correct, (0, 1, region, 0.95)), dataset)[0]["AP"] == pytest.approx(1)
    assert coco_metrics(make_detections(correct, (0, 1, (0, 300, 20, 320), 0.95)), dataset)[0]["AP"] == pytest.approx(1 / 2)
    assert coco_metrics(make_detections(correct), dataset)[0]["AR100"] == pytest.approx(1)  # missing the difficult object costs nothing
    difficult_only = make_dataset((0, 1, region, DIFFICULT))
    assert coco_metrics(make_detections((0, 1, region, 0.9)), difficult_only)[0]["AP"] == -1


def random_case(seed: int) -> tuple[Dataset, Detections]:
    """Returns objects of all sizes and crowd regions; detections near them and anywhere, with ties, 130 more in one image.

    Corners are multiples of a quarter pixel, so that the three digits of a results file hold them exactly. Image ids
    have gaps and do not rise with the index.
    """
    state = np.random.RandomState(seed)
    images = [(f"{i}.jpg", int(image_id), 640, 640) for i, image_id in enumerate(state.permutation(500)[:12] + 1)]
    rows, boxes = [], []
    for image in range(11):  # the last image has no object
        for _ in range(state.randint(0, 9)):
            x, y = state.randint(0, 400, 2)
            width, height = state.randint(4, 220, 2)
            box, label = (x, y, x + width, y + height), state.randint(1, 4)
            crowd = CROWD * int(state.rand() < 0.15)
            rows.append((image, label, crowd, width * height * state.uniform(0.4, 1), *box))
            boxes.append((image, label, box))
    detections = []
    for image, label, box in boxes:
        for _ in range(state.randint(0, 4)):
            near = np.array(box) + state.randint(-40, 41, 4) / 4
            near[2:] = np.maximum(near[2:], near[:2] + 1)
            detections.append((image, label if state.rand() < 0.9 else state.randint(1, 4), near))
    for count, image in ((40, None), (130, 3)):
        for _ in range(count):
            x, y = state.randint(0, 2000, 2) / 4
            box = np.array([x, y, x + state.randint(4, 100), y + state.randint(4, 100)])
            detections.append((state.randint(12) if image is None else image, state.randint(1, 4), box))
    scores = state.randint(1, 21, len(detections)) / 20  # twenty values: many ties
    order = state.permutation(len(detections))
    dataset = build_dataset("random", "/nowhere", CLASSES, IDS, images, np.array(rows, np.float64))
    return dataset, Detections(
        np.array([images[detections[k][0]][1] for k in order], np.int64),
        np.array([detections[k][2] for k in order], np.float32),
        scores[order].astype(np.float32), np.array([detections[k][1] for k in order], np.int32))


def run_pycocotools(tmp_path, dataset: Dataset, results: list[dict]) -> COCOeval:
    """Runs pycocotools as its users do, on an annotation file and a results file."""
    image_of_row = dataset.image_of_box()
    (tmp_path / "annotations.json").write_text(json.dumps({
        "info": {}, "images": [{"id": int(i)} for i in dataset.image_ids],
        "categories": [{"id": key, "name": name} for key, name in zip(IDS, CLASSES)],
        "annotations": [{"id": n + 1, "image_id": int(dataset.image_ids[image_of_row[n]]),
                         "category_id": IDS[dataset.labels[n] - 1], "area": float(dataset.areas[n]),
                         "iscrowd": int(dataset.flags[n] & CROWD),
                         "bbox": [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])]}
                        for n, b in enumerate(dataset.boxes)]}))
    (tmp_path / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(tmp_path / "annotations.json"))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(str(tmp_path / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def unrounded_results(detections: Detections) -> list[dict]:
    return [{"image_id": int(image), "category_id": IDS[label - 1], "score": float(score),
             "bbox": [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])]}
            for image, label, score, b in zip(detections.image_ids, detections.labels, detections.scores,
                                              detections.boxes)]


@pytest.mark.parametrize("seed", range(5))
def test_equals_pycocotools_from_files_on_random_data(seed, tmp_path):
    dataset, detections = random_case(seed)
    reference = run_pycocotools(tmp_path, dataset, unrounded_results(detections))
    metrics, per_class = coco_metrics(detections, dataset)
    assert dict(zip(NAMES, reference.stats)) == metrics  # equal in every bit
    assert 0.05 < metrics["AP"] < 0.95 and min(metrics.values()) >= 0  # the comparison has substance
    for c, name in enumerate(CLASSES):
        precision = reference.eval["precision"][:, :, c, 0, -1]
        assert per_class[name]["AP"] == pytest.approx(precision[precision > -1].mean(), abs=1e-12)
        assert per_class[name]["AP50"] == pytest.approx(precision[0][precision[0] > -1].mean(), abs=1e-12)
        for size, key in enumerate(("APs", "APm", "APl"), start=1):
            precision = reference.eval["precision"][:, :, c, size, -1]
            known = precision[precision > -1]
            assert per_class[name][key] == pytest.approx(known.mean() if known.size else -1, abs=1e-12)


def test_results_give_the_same_metrics_when_pycocotools_reads_them(tmp_path):
    dataset, detections = random_case(9)
    rows = to_coco_results(detections, dataset)
    assert {row["category_id"] for row in rows} == set(IDS)
    reference = run_pycocotools(tmp_path, dataset, rows)
    assert dict(zip(NAMES, reference.stats)) == pytest.approx(coco_metrics(detections, dataset)[0], abs=1e-12)


def test_results_have_the_format_of_coco_with_plain_python_numbers():
    dataset = make_dataset((0, 1, A, 0), classes=3)
    assert to_coco_results(make_detections((1, 2, (1.5, 2, 11.25, 22), 0.75)), dataset) == [
        {"image_id": 20, "category_id": 7, "bbox": [1.5, 2.0, 9.75, 20.0], "score": 0.75}]
    assert to_coco_results(concat_detections([]), dataset) == []
    json.dumps(to_coco_results(make_detections((0, 1, A, 1 / 3)), dataset))  # no numpy types


def test_nothing_is_printed(capsys):
    coco_metrics(make_detections((0, 1, A, 0.9)), make_dataset((0, 1, A, 0)))
    coco_metrics(concat_detections([]), make_dataset())
    assert capsys.readouterr().out == ""
