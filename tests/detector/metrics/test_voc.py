"""PASCAL VOC's AP: by hand, and beside a slow version written from its definition."""

from fractions import Fraction

import numpy as np
import pytest

from detector.metrics.voc import voc_metrics
from detector.structures import CROWD, DIFFICULT, Dataset, Detections, build_dataset, concat_detections

CLASSES = ["cat", "dog"]
A, B, FAR = (0, 0, 100, 100), (200, 200, 300, 300), (300, 0, 400, 100)


def make_dataset(*objects: tuple, images: int = 3) -> Dataset:
    """Returns a data set of objects (image from 0, label, box, flags). Image ids are 10, 20, ..."""
    rows = [(image, label, flags, 0, *box) for image, label, box, flags in objects]
    return build_dataset("test", "/nowhere", CLASSES, [1, 2], [(f"{i}.jpg", 10 * (i + 1), 400, 400) for i in range(images)],
                    np.array(rows, np.float64))


def make_detections(*rows: tuple) -> Detections:
    """Returns detections of rows (image from 0, label, box, score)."""
    return Detections(np.array([10 * (row[0] + 1) for row in rows], np.int64),
                      np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
                      np.array([row[3] for row in rows], np.float32), np.array([row[1] for row in rows], np.int32))


@pytest.mark.parametrize("detections, area, eleven", [
    # each row: detections (box, score), while the objects are A and B, both in image 0; area and 11-point AP by hand
    ([(A, 0.9), (B, 0.8)], 1, 1),
    ([(A, 0.9)], 1 / 2, 6 / 11),                      # recalls 0, 0.1 ... 0.5 are reached
    ([(A, 0.9), (FAR, 0.8), (B, 0.7)], 1 / 2 * 1 + 1 / 2 * 2 / 3, (6 * 1 + 5 * 2 / 3) / 11),
    ([(FAR, 0.9), (A, 0.8)], 1 / 2 * 1 / 2, 6 * (1 / 2) / 11),
    ([(FAR, 0.9), (A, 0.8), (B, 0.7)], 2 / 3, 2 / 3),  # the highest precision at this recall or more: 2/3, not 1/2
    ([(A, 0.9), (A, 0.8), (B, 0.7)], 1 / 2 * 1 + 1 / 2 * 2 / 3, (6 * 1 + 5 * 2 / 3) / 11),  # found twice: one false positive
    ([((0, 0, 100, 51), 0.9)], 1 / 2, 6 / 11),        # IoU 0.51
    ([((0, 0, 100, 50), 0.9)], 0, 0),                 # IoU exactly 0.50: must be above
    ([(FAR, 0.9)], 0, 0),
    ([], 0, 0)])
def test_by_hand(detections, area, eleven):
    metrics, per_class = voc_metrics(make_detections(*((0, 1, box, score) for box, score in detections)),
                                     make_dataset((0, 1, A, 0), (0, 1, B, 0)))
    assert metrics == pytest.approx({"AP": area, "AP_11point": eleven})
    assert per_class["cat"] == pytest.approx({"AP": area, "AP_11point": eleven})
    assert per_class["dog"] == {"AP": -1, "AP_11point": -1}


@pytest.mark.parametrize("flag", [DIFFICULT, CROWD])
def test_detections_assigned_to_an_ignored_object_are_ignored(flag):
    dataset = make_dataset((0, 1, A, 0), (0, 1, B, flag))
    correct = (0, 1, A, 0.8)
    for noise in ([], [(0, 1, B, 0.9)], [(0, 1, B, 0.9), (0, 1, B, 0.85)]):  # also more than once
        assert voc_metrics(make_detections(correct, *noise), dataset)[0] == {"AP": 1, "AP_11point": 1}
    beside = (200, 200, 300, 240)  # IoU with B is 0.4: not assigned to B
    assert voc_metrics(make_detections(correct, (0, 1, beside, 0.9)), dataset)[0]["AP"] == pytest.approx(1 / 2)


def test_a_detection_is_assigned_to_the_object_with_the_highest_iou():
    """Also if that object was found before and another one, with a lower IoU, was not: the detection is a duplicate."""
    near = (0, 0, 100, 80)  # IoU with A is 0.8
    dataset = make_dataset((0, 1, A, 0), (0, 1, near, 0))
    metrics, _ = voc_metrics(make_detections((0, 1, A, 0.9), (0, 1, (0, 0, 100, 95), 0.8)), dataset)
    assert metrics["AP"] == pytest.approx(1 / 2)


def test_detections_match_objects_of_their_image_and_class_only():
    dataset = make_dataset((0, 1, A, 0), (1, 2, A, 0))
    assert voc_metrics(make_detections((1, 1, A, 0.9), (0, 2, A, 0.9)), dataset)[0] == {"AP": 0, "AP_11point": 0}
    assert voc_metrics(make_detections((0, 1, A, 0.9), (1, 2, A, 0.9)), dataset)[0] == {"AP": 1, "AP_11point": 1}


@pytest.mark.parametrize("objects, expected", [
    ([], {"cat": -1, "dog": -1}),
    ([(0, 1, A, DIFFICULT)], {"cat": -1, "dog": -1}),   # no object that must be found
    ([(0, 2, A, 0)], {"cat": -1, "dog": 0})])
@pytest.mark.parametrize("detections", [(), ((0, 1, FAR, 0.9),)])
def test_a_class_without_countable_objects_is_minus_one_and_left_out_of_the_mean(objects, expected, detections):
    metrics, per_class = voc_metrics(make_detections(*detections), make_dataset(*objects))
    assert {name: values["AP"] for name, values in per_class.items()} == expected
    assert {name: values["AP_11point"] for name, values in per_class.items()} == expected
    assert set(metrics.values()) == {max(expected.values())}
    assert voc_metrics(concat_detections([]), make_dataset(images=0))[0] == {"AP": -1, "AP_11point": -1}


def slow_iou(a, b) -> Fraction:
    """Returns the IoU of boxes with integer corners, by counting pixels."""
    def pixels(box) -> set:
        return {(x, y) for x in range(int(box[0]), int(box[2])) for y in range(int(box[1]), int(box[3]))}
    union = pixels(a) | pixels(b)
    return Fraction(len(pixels(a) & pixels(b)), len(union)) if union else Fraction(0)


def slow_ap(objects: list, detections: list) -> tuple[float, float]:
    """Returns area AP and 11-point AP of one class. objects: (image, box, ignored); detections: (image, box, score)."""
    count, taken, true_positive = sum(not ignored for _, _, ignored in objects), set(), []
    for image, box, _ in sorted(detections, key=lambda detection: -detection[2]):
        best, target = Fraction(0), None
        for number, (object_image, object_box, _) in enumerate(objects):
            if object_image == image and slow_iou(box, object_box) > best:
                best, target = slow_iou(box, object_box), number
        if best > Fraction(1, 2) and objects[target][2]:
            continue
        true_positive.append(best > Fraction(1, 2) and target not in taken)
        if true_positive[-1]:
            taken.add(target)
    if not count:
        return -1.0, -1.0
    points = [(Fraction(sum(true_positive[:n]), count), Fraction(sum(true_positive[:n]), n)) for n in range(1, len(true_positive) + 1)]

    def best_precision(min_recall: Fraction) -> Fraction:
        return max((precision for recall, precision in points if recall >= min_recall), default=Fraction(0))
    area = sum(best_precision(Fraction(k, count)) for k in range(1, count + 1)) / count  # each object adds 1 / count
    return float(area), float(sum(best_precision(Fraction(k, 10)) for k in range(11)) / 11)


def random_case(state: np.random.RandomState) -> tuple[list[tuple], list[tuple]]:
    """Returns objects and detections: small boxes with integer corners, so that equal scores, equal IoUs and 0.5 occur."""
    def box() -> tuple:
        x, y, width, height = state.randint(0, 4), state.randint(0, 4), state.randint(1, 5), state.randint(1, 5)
        return x, y, x + width, y + height
    objects = [(state.randint(3), state.randint(1, 3), box(), state.choice([0, 0, 0, DIFFICULT, CROWD]))
               for _ in range(state.randint(0, 12))]
    detections = [(state.randint(3), state.randint(1, 3), box(), state.randint(1, 9) / 8)
                  for _ in range(state.randint(0, 25))]
    return objects, detections + [(image, label, place, state.randint(1, 9) / 8)
                                  for image, label, place, _ in objects[::2]]


@pytest.mark.parametrize("seed", range(10))
def test_equals_the_slow_version_on_random_cases(seed):
    state = np.random.RandomState(seed)
    for _ in range(30):
        objects, detections = random_case(state)
        _, per_class = voc_metrics(make_detections(*detections), make_dataset(*objects))
        objects.sort(key=lambda row: row[0])  # by image, as in a Dataset: of equal IoUs the first counts
        for label, name in enumerate(CLASSES, start=1):
            slow = slow_ap([(image, place, flag > 0) for image, of, place, flag in objects if of == label],
                           [(image, place, score) for image, of, place, score in detections if of == label])
            assert (per_class[name]["AP"], per_class[name]["AP_11point"]) == pytest.approx(slow, abs=1e-12)
