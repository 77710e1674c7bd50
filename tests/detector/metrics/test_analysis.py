"""The analysis of an evaluation: error types and costs by hand; curves and AP beside those of the metrics."""

import numpy as np
import pytest
from test_coco_kernel import random_case

from detector.metrics import coco_kernel
from detector.metrics.analysis import Analysis, analyse
from detector.metrics.tide import (
    BACKGROUND,
    BOTH,
    CLASS,
    DUPLICATE,
    ERRORS,
    IGNORED,
    LOCALISATION,
    MISSED,
    TRUE_POSITIVE,
)
from detector.metrics.voc import voc_metrics
from detector.structures import CROWD, DIFFICULT, Dataset, Detections, build_dataset, concat_detections

CLASSES = ["cat", "dog"]
A, B, FAR = (0, 0, 100, 100), (200, 200, 300, 300), (300, 0, 400, 100)
HALF, LITTLE = (0, 0, 100, 40), (0, 0, 100, 5)  # IoU of 0.4 and 0.05 with A
NONE = concat_detections([])


def make_dataset(*objects: tuple, images: int = 2) -> Dataset:
    """Returns a data set of objects (image from 0, label, box, flags). Image ids fall: 20, 10."""
    rows = [(image, label, flags, (box[2] - box[0]) * (box[3] - box[1]), *box) for image, label, box, flags in objects]
    return build_dataset("test", "/nowhere", CLASSES, [1, 2], [(f"{i}.jpg", 10 * (images - i), 400, 400)
                                                          for i in range(images)], np.array(rows, np.float64))


def make_detections(*rows: tuple, images: int = 2) -> Detections:
    """Returns detections of rows (image from 0, label, box, score)."""
    return Detections(np.array([10 * (images - row[0]) for row in rows], np.int64),
                      np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
                      np.array([row[3] for row in rows], np.float32), np.array([row[1] for row in rows], np.int32))


CATS = [(0, 1, A, 0), (0, 1, B, 0)]


@pytest.mark.parametrize("metric", ["coco", "voc"])
@pytest.mark.parametrize("detections, kinds, objects", [
    # each row: detections (label, box, score) in image 0, their types, and the types of the cats A and B
    ([(1, A, .9), (1, B, .8)], [TRUE_POSITIVE, TRUE_POSITIVE], [TRUE_POSITIVE, TRUE_POSITIVE]),
    ([(1, A, .9), (1, A, .8)], [TRUE_POSITIVE, DUPLICATE], [TRUE_POSITIVE, MISSED]),
    ([(1, A, .8), (1, A, .9)], [DUPLICATE, TRUE_POSITIVE], [TRUE_POSITIVE, MISSED]),
    ([(1, HALF, .9)], [LOCALISATION], [LOCALISATION, MISSED]),
    ([(1, HALF, .9), (1, A, .8)], [LOCALISATION, TRUE_POSITIVE], [TRUE_POSITIVE, MISSED]),
    ([(2, A, .9)], [CLASS], [CLASS, MISSED]),
    ([(2, HALF, .9)], [BOTH], [MISSED, MISSED]),
    ([(1, LITTLE, .9), (2, FAR, .8)], [BACKGROUND, BACKGROUND], [MISSED, MISSED]),
    ([(2, A, .9), (1, HALF, .9)], [CLASS, LOCALISATION], [LOCALISATION, MISSED]),
    ([], [], [MISSED, MISSED])])
def test_each_error_type_by_hand(metric, detections, kinds, objects):
    analysis = analyse(make_detections(*((0, *row) for row in detections)), make_dataset(*CATS), metric)
    assert analysis.detection_error.tolist() == kinds and analysis.object_error.tolist() == objects
    assert analysis.image_errors[:, :MISSED].sum() <= len(kinds) and analysis.image_errors[1].sum() == 0


def test_a_detection_names_the_object_of_its_error():
    analysis = analyse(make_detections((0, 1, B, .9), (0, 1, HALF, .8), (0, 2, A, .7), (0, 1, FAR, .6), (0, 1, B, .5)),
                       make_dataset(*CATS))
    assert analysis.detection_object.tolist() == [1, 0, 0, -1, 1]
    assert analysis.detection_iou.tolist() == pytest.approx([1, 0.4, 1, 0, 1])
    assert analysis.object_detection.tolist() == [-1, 0]
    assert [analysis.per_class[name][key] for name in CLASSES for key in ("objects", "detections")] == [2, 4, 0, 1]


def test_crowds_and_difficult_objects_are_ignored():
    dataset = make_dataset((0, 1, A, DIFFICULT), (0, 1, B, CROWD), (1, 1, A, 0))
    inside = (210, 210, 220, 220)
    analysis = analyse(make_detections((0, 1, A, .9), (0, 1, A, .8), (0, 1, inside, .7), (1, 1, A, .6)), dataset)
    # A second detection of a difficult object is wrong, as in pycocotools; it overlaps no other object.
    assert analysis.detection_error.tolist() == [IGNORED, BACKGROUND, IGNORED, TRUE_POSITIVE]
    assert analysis.object_error.tolist() == [IGNORED, IGNORED, TRUE_POSITIVE]
    voc = analyse(make_detections((0, 1, A, .9), (0, 1, A, .8), (0, 1, inside, .7), (1, 1, A, .6)), dataset, "voc")
    assert voc.detection_error.tolist() == [IGNORED, IGNORED, BACKGROUND, TRUE_POSITIVE]


def test_the_cost_of_an_error_by_hand():
    """Two cats. One is found at score 0.9, and at 0.95 there is one error. The other cat is missed.

    AP50 is 51 of 101 recalls at precision 1/2; without the error 51 at 1; with both cats found and no error 101 at 1.
    """
    now, clean, all_found = 51 / 101 / 2, 51 / 101, 1.0
    for error, kind, fixed in [((1, FAR, .95), "background", clean), ((2, HALF, .95), "both", now),
                                ((1, (200, 200, 300, 240), .95), "localization", all_found)]:
        analysis = analyse(make_detections((0, *error), (0, 1, A, .9)), make_dataset(*CATS))
        assert analysis.ap50 == pytest.approx(now if error[0] == 1 else clean)
        if error[0] == 1:
            assert analysis.cost[kind] == pytest.approx(fixed - now), kind
            assert sum(analysis.cost[name] for name in analysis.cost if name not in (kind, "missed")) == 0
    twice = analyse(make_detections((0, 1, A, .9), (0, 1, A, .8), (0, 1, B, .7)), make_dataset(*CATS))
    assert twice.cost["duplicate"] == pytest.approx(1 - (51 + 50 * 2 / 3) / 101)
    assert analyse(make_detections((0, 1, A, .9)), make_dataset(*CATS)).cost["missed"] == pytest.approx(1 - clean)
    called_dog = analyse(make_detections((0, 1, A, .9), (0, 2, B, .8)), make_dataset(*CATS))
    assert called_dog.cost == pytest.approx({**dict.fromkeys(ERRORS[2:], 0), "class": 1 - clean})


def test_of_two_errors_on_one_object_the_one_with_the_higher_score_is_fixed_and_the_other_is_removed():
    two_errors = analyse(make_detections((0, 1, HALF, .9), (0, 1, (0, 0, 100, 45), .8)), make_dataset((0, 1, A, 0)))
    assert two_errors.ap50 == 0 and two_errors.cost["localization"] == pytest.approx(1)
    already_found = analyse(make_detections((0, 1, HALF, .95), (0, 1, A, .9)), make_dataset((0, 1, A, 0)))
    assert already_found.ap50 == pytest.approx(1 / 2) and already_found.cost["localization"] == pytest.approx(1 / 2)


def test_confusion_and_the_weight_of_errors_at_the_best_score():
    dataset = make_dataset((0, 1, A, 0), (0, 1, B, 0), (1, 2, A, 0), images=3)
    detections = make_detections((0, 1, A, .9), (0, 2, B, .8), (1, 2, A, .7), (1, 1, FAR, .6), (2, 1, A, .1), images=3)
    analysis = analyse(detections, dataset)
    # F1 = 2 * true positives / (detections + 3 objects): 2/4, 2/5, 4/6, 4/7, 4/8 by falling score
    assert (analysis.best_score, analysis.f1) == (pytest.approx(0.7), pytest.approx(4 / 6))
    assert analysis.confusion.tolist() == [[0, 0, 0],   # background: every detection is on an object
                                           [0, 1, 1],   # a cat as cat, a cat as dog
                                           [0, 0, 1]]
    assert analysis.image_weight.tolist() == pytest.approx([.8 + 1, 0, 0])  # a dog at score 0.8, and a cat that is missed
    assert dict(zip(ERRORS, analysis.image_errors[0])) == {**dict.fromkeys(ERRORS, 0), "right": 1, "class": 1, "missed": 1}
    lost = analyse(make_detections((0, 1, A, .9), (0, 1, FAR, .9), images=3), dataset)
    assert lost.confusion.tolist() == [[0, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_calibration_by_hand():
    """Four detections at 0.75 with three true positives, and a false positive at 0.2: bins 7 and 2 differ by 0 and 0.2."""
    boxes = [(x, 0, x + 20, 20) for x in (0, 50, 100)]
    dataset = make_dataset(*((0, 1, box, 0) for box in boxes))
    analysis = analyse(make_detections(*((0, 1, box, .75) for box in [*boxes, FAR]), (0, 1, (300, 300, 320, 320), .2)), dataset)
    assert analysis.bin_count.tolist() == [0, 0, 1, 0, 0, 0, 0, 4, 0, 0]
    assert analysis.bin_precision[7] == analysis.bin_score[7] == 0.75
    assert analysis.calibration_error == pytest.approx((4 * 0 + 1 * 0.2) / 5)


@pytest.mark.parametrize("metric", ["coco", "voc"])
@pytest.mark.parametrize("dataset", [make_dataset(), make_dataset((0, 1, A, CROWD)), make_dataset((0, 1, A, 0))],
                         ids=["no object", "crowd only", "one object"])
@pytest.mark.parametrize("detections", [NONE, make_detections((0, 1, FAR, 1.0))], ids=["no detection", "one detection"])
def test_the_empty_cases(metric, dataset, detections):
    analysis = analyse(detections, dataset, metric)
    value = 0 if (dataset.flags == 0).any() else -1
    assert analysis.ap50 == value == analysis.metrics["AP"] == analysis.mean_precision[0]
    assert all(cost == 0 or name == "missed" for name, cost in analysis.cost.items())
    assert (analysis.best_score, analysis.f1) == (1, 0) and analysis.confusion.shape == (3, 3)
    assert len(analysis.detection_error) == len(detections) and len(analysis.object_error) == len(dataset.boxes)
    assert np.isfinite(analysis.bin_score).all() and np.isfinite(analysis.calibration_error)
    analyse(concat_detections([]), make_dataset(images=0), metric)


@pytest.mark.parametrize("seed", range(10))
def test_curves_equal_those_of_the_coco_kernel(seed):
    state = np.random.RandomState(100 + seed)
    for _ in range(10):
        dataset, detections = random_case(state)
        arrays = coco_kernel.evaluate_coco(detections, coco_kernel.index_ground_truth(dataset))
        analysis = analyse(detections, dataset)
        assert np.abs(arrays.precision[0, :, :, 0, 2].T - analysis.precision).max() < 1e-7
        known = analysis.precision[:, 0] >= 0  # recall 0 is left out: in pycocotools an ignored detection can reach it
        kernel_scores = arrays.scores[0, :, :, 0, 2].T.astype(np.float32)
        assert np.array_equal(kernel_scores[known][:, 1:], analysis.scores[known][:, 1:])
        assert analysis.ap50 == pytest.approx(analysis.metrics["AP50"], abs=1e-12)
        check_sums(analysis, dataset, detections)


@pytest.mark.parametrize("seed", range(5))
def test_with_the_rule_of_voc_ap_equals_that_of_voc_metrics(seed):
    state = np.random.RandomState(200 + seed)
    for _ in range(10):
        dataset, detections = random_case(state)
        order = np.argsort(detections.image_ids, kind="stable")
        detections = Detections(*(getattr(detections, name)[order] for name in ("image_ids", "boxes", "scores", "labels")))
        analysis = analyse(detections, dataset, "voc")
        assert analysis.ap50 == pytest.approx(voc_metrics(detections, dataset)[0]["AP"], abs=1e-12)
        check_sums(analysis, dataset, detections)


def check_sums(analysis: Analysis, dataset: Dataset, detections: Detections) -> None:
    """Asserts that no detection or object is lost or counted twice, and that fixing errors never lowers AP."""
    counted = (detections.scores >= analysis.best_score) & (analysis.detection_error != IGNORED)
    assert analysis.confusion[:, 1:].sum() == counted.sum()
    assert analysis.confusion[1:].sum() == (analysis.object_error != IGNORED).sum()
    assert (analysis.object_error == TRUE_POSITIVE).sum() == (analysis.detection_error == TRUE_POSITIVE).sum()
    assert analysis.image_errors[:, :MISSED].sum() == (detections.scores >= analysis.best_score).sum()
    assert analysis.bin_count.sum() == (analysis.detection_error != IGNORED).sum()
    assert min(analysis.cost.values()) > -1e-12
