"""Visual Genome's AP: by hand, and beside the slow version of VOC's area AP with the two means written out."""

import numpy as np
import pytest
from test_voc import CLASSES, FAR, A, B, make_dataset, make_detections, random_case, slow_ap

from detector.metrics.visual_genome import visual_genome_metrics
from detector.structures import concat_detections


@pytest.mark.parametrize("objects, detections, cat, dog, mean, weighted", [
    # each row: objects (class, box) and detections (class, box, score), all in image 0; class 1 is cat, 2 is dog
    ([(1, A), (1, B), (2, A)], [(1, A, 0.9), (1, B, 0.8), (2, A, 0.7)], 1, 1, 1, 1),
    ([(1, A), (1, B), (2, A)], [(1, A, 0.9), (1, B, 0.8)], 1, 0, 1 / 2, 2 / 3),
    ([(1, A), (1, B), (2, A)], [(1, A, 0.9)], 1 / 2, 0, 1 / 4, 1 / 3),
    ([(1, A), (1, B), (2, A)], [(2, FAR, 0.9), (2, A, 0.8)], 0, 1 / 2, 1 / 4, 1 / 6),
    ([(1, A)], [(1, A, 0.9), (2, A, 0.9)], 1, 0, 1 / 2, 1),  # no dog: 0 in the plain mean, weight 0
    ([(1, A)], [(1, (0, 0, 100, 50), 0.9)], 0, 0, 0, 0),     # IoU exactly 0.50: must be above
    ([(1, A)], [(1, A, 0.9), (1, A, 0.8)], 1, 0, 1 / 2, 1),  # the second one is a false positive, but after recall 1
    ([(1, A)], [], 0, 0, 0, 0),
    ([], [(1, A, 0.9)], 0, 0, 0, 0),
    ([], [], 0, 0, 0, 0)])
def test_by_hand(objects, detections, cat, dog, mean, weighted):
    dataset = make_dataset(*((0, label, box, 0) for label, box in objects))
    metrics, per_class = visual_genome_metrics(make_detections(*((0, *row) for row in detections)), dataset)
    assert metrics == pytest.approx({"AP": mean, "AP_weighted": weighted})
    assert (per_class["cat"]["AP"], per_class["dog"]["AP"]) == pytest.approx((cat, dog))
    assert per_class["cat"]["objects"] == sum(label == 1 for label, _ in objects)


def test_no_images():
    assert visual_genome_metrics(concat_detections([]), make_dataset(images=0))[0] == {"AP": 0, "AP_weighted": 0}


@pytest.mark.parametrize("seed", range(10))
def test_equals_the_slow_version_on_random_cases(seed):
    state = np.random.RandomState(100 + seed)
    for _ in range(30):
        objects, detections = random_case(state)
        objects = sorted(((image, label, place, 0) for image, label, place, _ in objects), key=lambda row: row[0])
        metrics, _ = visual_genome_metrics(make_detections(*detections), make_dataset(*objects))
        slow, counts = [], []
        for label in range(1, len(CLASSES) + 1):
            of_class = [(image, place, False) for image, of, place, _ in objects if of == label]
            area, _ = slow_ap(of_class, [(image, place, score) for image, of, place, score in detections if of == label])
            slow.append(area if of_class else 0.0)
            counts.append(len(of_class))
        total = sum(ap * count for ap, count in zip(slow, counts))
        assert metrics["AP"] == pytest.approx(sum(slow) / 2, abs=1e-12)
        assert metrics["AP_weighted"] == pytest.approx(total / sum(counts) if sum(counts) else 0, abs=1e-12)
