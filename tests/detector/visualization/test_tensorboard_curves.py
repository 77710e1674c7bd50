"""Curves and the confusion matrix for TensorBoard, against counts by hand."""

import numpy as np

from detector.metrics.tide import BACKGROUND, IGNORED, TRUE_POSITIVE
from detector.structures import Detections
from detector.visualization.tensorboard_curves import THRESHOLDS, count_at_thresholds, draw_confusion_matrix


def make_detections(*rows: tuple[int, float]) -> Detections:
    """Rows: (label, score)."""
    return Detections(np.zeros(len(rows), np.int64), np.zeros((len(rows), 4), np.float32),
                      np.array([score for _, score in rows], np.float32), np.array([label for label, _ in rows], np.int32))


def test_counts_at_every_threshold_by_hand():
    detections = make_detections((1, 0.9), (1, 0.6), (1, 0.6), (2, 0.95), (1, 0.3))
    error = np.array([TRUE_POSITIVE, BACKGROUND, TRUE_POSITIVE, TRUE_POSITIVE, IGNORED], np.uint8)
    table = count_at_thresholds(detections, error, 1, objects=4)
    for column, threshold in enumerate(THRESHOLDS):
        hits, wrong = sum(s >= threshold for s in (0.9, 0.6)), int(0.6 >= threshold)
        expected = [hits, wrong, 0, 4 - hits, hits / (hits + wrong) if hits + wrong else 1, hits / 4]
        assert np.allclose(table[:, column], expected), threshold


def test_a_class_without_detections_has_recall_0():
    table = count_at_thresholds(make_detections(), np.zeros(0, np.uint8), 1, objects=3)
    assert (table[5] == 0).all() and (table[3] == 3).all() and (table[4] == 1).all()


def test_the_cells_of_the_confusion_matrix_are_as_dark_as_their_fraction():
    image = np.asarray(draw_confusion_matrix(np.array([[0, 1, 0], [0, 4, 0], [2, 0, 2]]), ("cat", "dog")))
    size = image.shape[0]
    dark = 255 * 3 - image.sum(axis=2, dtype=np.int64)
    middle = [size - 8 - 56 * (3 - k) + 6 for k in range(3)]  # a pixel near the upper left corner of each cell, beside its number
    cells = np.array([[dark[y, x] for x in middle] for y in middle])
    assert (cells.argmax(axis=1) == [0, 1, 0]).all()          # cat as cat, dog as dog (as often as missed), background as cat
    assert cells[0, 1] == 0 and cells[1, 1] == cells[1, 2] and cells[0, 0] > 1.5 * cells[1, 1]


def test_many_classes_still_fit():
    image = draw_confusion_matrix(np.eye(101, dtype=np.int64), tuple(f"class {n}" for n in range(100)))
    assert max(image.size) < 1200
