"""Doubtful labels: one of each kind in small cases, and most of fifty damaged labels among the first hundred."""

import numpy as np
import pytest

from detector.metrics.label_review import (
    MISSING,
    STRAY,
    WRONG,
    DoubtfulLabel,
    find_doubtful_labels,
    precision_from_score,
)
from detector.structures import CROWD, Dataset, Detections, build_dataset

CLASSES = ["cell", "platelet", "white"]
A, B, FAR = (10, 10, 50, 50), (100, 100, 140, 140), (200, 10, 240, 50)
SIDE, IMAGES = 400, 60


def dataset_of(*objects: tuple, images: int = 1) -> Dataset:
    """Objects: (image from 0, label, box, flags)."""
    rows = [(image, label, flags, 1, *box) for image, label, box, flags in objects]
    return build_dataset("test", "/nowhere", CLASSES, [1, 2, 3], [(f"{i}.jpg", i + 1, SIDE, SIDE) for i in range(images)],
                         np.array(rows, np.float64).reshape(-1, 8))


def detections_of(*rows: tuple) -> Detections:
    """Rows: (image from 0, label, box, score)."""
    return Detections(np.array([row[0] + 1 for row in rows], np.int64), np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
                      np.array([row[3] for row in rows], np.float32), np.array([row[1] for row in rows], np.int32))


def test_without_detections_or_objects_no_label_is_doubted():
    assert find_doubtful_labels(dataset_of((0, 1, A, 0)), detections_of()) == []
    assert find_doubtful_labels(dataset_of(), detections_of()) == []
    assert find_doubtful_labels(dataset_of(), detections_of((0, 1, A, .9))) == [], "a class whose detections are never right"


def test_a_confirmed_object_is_not_doubted():
    assert find_doubtful_labels(dataset_of((0, 1, A, 0)), detections_of((0, 1, A, 1.0))) == []


def test_a_sure_detection_that_no_object_explains_is_a_missing_label():
    labels = find_doubtful_labels(dataset_of((0, 1, A, 0)), detections_of((0, 1, A, 1.0), (0, 1, B, .75)))
    assert labels == [DoubtfulLabel(MISSING, pytest.approx(.75 * .5), 0, -1, 1)], "half of such detections are right"


def test_of_several_detections_of_a_place_the_most_confident_is_named():
    data = dataset_of((0, 1, A, 0), (0, 2, FAR, 0))
    labels = find_doubtful_labels(data, detections_of((0, 1, A, 1.0), (0, 2, FAR, 1.0), (0, 2, B, .5), (0, 1, B, .7)))
    assert [(label.kind, label.detection) for label in labels] == [(MISSING, 3)]


def test_sure_detections_of_another_class_are_a_wrong_label():
    data = dataset_of((0, 1, A, 0), (0, 2, B, 0), (0, 1, FAR, 0))
    labels = find_doubtful_labels(data, detections_of((0, 1, A, 1.0), (0, 2, FAR, .8), (0, 2, B, 1.0)))
    assert [(label.kind, label.object, label.detection) for label in labels] == [(WRONG, 2, 1)]
    with_both = find_doubtful_labels(data, detections_of((0, 1, A, 1.0), (0, 2, FAR, .8), (0, 2, B, 1.0), (0, 1, FAR, .8)))
    assert with_both[0].doubt < .5 * labels[0].doubt, "its own class is detected as well"


def test_an_object_that_no_detection_confirms_is_stray_and_one_beside_a_detection_misplaced():
    data = dataset_of((0, 1, A, 0), (0, 1, B, 0), (0, 1, FAR, 0))
    beside = (B[0] + 24, B[1], B[2] + 24, B[3])  # IoU 0.25
    labels = find_doubtful_labels(data, detections_of((0, 1, A, 1.0), (0, 1, beside, .9)))
    assert {(label.kind, label.object, label.detection) for label in labels} == {(STRAY, 1, 1), (STRAY, 2, -1)}


def test_crowd_regions_explain_detections_and_are_not_doubted():
    data = dataset_of((0, 1, A, 0), (0, 1, (90, 90, 300, 300), CROWD))
    assert find_doubtful_labels(data, detections_of((0, 1, A, 1.0), (0, 1, B, .9))) == []


def test_the_precision_of_a_score_is_that_of_its_class():
    detections = detections_of((0, 2, A, .2), (0, 1, A, .9), (0, 1, FAR, .8), (0, 2, B, .7))
    is_right, everywhere = np.array([False, True, False, True]), np.ones(4, bool)
    assert precision_from_score(detections, is_right, everywhere, 3).tolist() == [.5, 1, .5, 1]
    assert precision_from_score(detections, is_right, np.array([False, True, False, True]), 3).tolist() == [1, 1, 1, 1]
    assert precision_from_score(detections, is_right, ~everywhere, 3).tolist() == [0, 0, 0, 0]


def detect(data: Dataset, draw: np.random.Generator) -> Detections:
    """Detections as of a good detector: 4 % of the objects are missed, one false detection in two images, boxes off by 5 %."""
    rows = []
    for index in range(len(data)):
        for row in range(data.rows(index).start, data.rows(index).stop):
            box = data.boxes[row] + draw.normal(0, .05 * 40, 4)
            if draw.random() > .04:
                rows.append((index, data.labels[row], box, draw.beta(12, 1)))
        if draw.random() < .5:
            x, y = draw.uniform(0, SIDE - 50, 2)
            rows.append((index, draw.integers(1, 4), (x, y, x + 45, y + 45), draw.beta(2, 4)))
    return detections_of(*rows)


@pytest.mark.parametrize("seed", range(5))
def test_most_of_fifty_damaged_labels_are_among_the_first_hundred(seed):
    """30 labels are removed, 10 shifted by 60 % of their size, 10 renamed; 80 % of them are found."""
    draw = np.random.default_rng(seed)
    grid = [(x, y) for x in range(10, SIDE - 50, 60) for y in range(10, SIDE - 50, 60)]
    objects = [(image, int(draw.integers(1, 4)), (x, y, x + 40, y + 40), 0)
               for image in range(IMAGES) for x, y in draw.permutation(grid)[:draw.integers(1, 12)]]
    detections = detect(dataset_of(*objects, images=IMAGES), draw)
    damaged = draw.permutation(len(objects))[:50]
    places = [(objects[row][0], objects[row][2]) for row in damaged]
    for row in damaged[30:40]:
        image, label, box, flags = objects[row]
        objects[row] = (image, label, tuple(np.add(box, (24, 0, 24, 0))), flags)
    for row in damaged[40:]:
        image, label, box, flags = objects[row]
        objects[row] = (image, label % 3 + 1, box, flags)
    removed = set(damaged[:30].tolist())
    data = dataset_of(*(entry for row, entry in enumerate(objects) if row not in removed), images=IMAGES)
    labels = find_doubtful_labels(data, detections, 100)
    shown = [(label.image, data.boxes[label.object] if label.object >= 0 else detections.boxes[label.detection]) for label in labels]
    found = [any(image == other and np.abs(np.subtract(place, box)).max() < 30 for other, box in shown) for image, place in places]
    assert len(labels) <= 100 and sum(found) >= 40
