"""Curves and the confusion matrix for TensorBoard, against counts by hand."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from detector.metrics.tide import BACKGROUND, IGNORED, TRUE_POSITIVE
from detector.structures import Detections
from detector.visualization.plot_curves import cell_text
from detector.visualization.tensorboard_curves import THRESHOLDS, confusion_images, count_at_thresholds


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


@pytest.mark.parametrize("classes, size", [(0, (440, 340)), (1, (440, 340)), (6, (440, 340)), (7, (560, 420)), (80, (800, 600))])
def test_the_confusion_matrix_is_an_image_for_any_number_of_classes(classes, size):
    names = tuple(f"class {number}" for number in range(classes))
    analysis = SimpleNamespace(classes=names, per_class={name: {"objects": 1} for name in names}, precision=np.ones((classes, 101)),
                               mean_precision=np.ones(101), confusion=np.eye(classes + 1, dtype=np.int64), best_score=0.5, f1=1.0)
    drawing, = confusion_images(analysis, 20)
    assert drawing.name == "plots/confusion" and (drawing.width, drawing.height) == Image.open(io.BytesIO(drawing.png)).size == size


def test_cells_hold_shorter_texts_the_more_classes_there_are():
    assert [cell_text(0.25, 3, classes) for classes in (1, 6, 80)] == ["0.25\n(3)", "0.25", "25"]
    assert cell_text(0.004, 1, 80) == ""
