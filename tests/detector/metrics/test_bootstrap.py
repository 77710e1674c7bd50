"""The bootstrap of AP, beside the metrics themselves and beside a slow version that copies the drawn images."""

import numpy as np
import pytest
from test_coco_kernel import random_case

from detector.metrics.bootstrap import (
    ap_difference,
    bootstrap_class_aps,
    bootstrap_draws,
    match_by_class,
    mean_over_classes,
)
from detector.metrics.coco import coco_metrics
from detector.metrics.voc import voc_metrics
from detector.structures import Dataset, Detections, build_dataset, concat_detections

KEYS = {"all": "AP", "small": "APs", "medium": "APm", "large": "APl"}


def is_same(a: float, b: float) -> bool:
    return np.isnan(a) if b == -1 else a == pytest.approx(b, abs=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_every_image_once_gives_the_metric_itself(seed):
    dataset, detections = random_case(np.random.RandomState(seed))
    times = bootstrap_draws(len(dataset), 0)
    metrics, per_class = coco_metrics(detections, dataset)
    for size, key in KEYS.items():
        aps = bootstrap_class_aps(match_by_class(detections, dataset, "coco", size), times, "coco")
        assert is_same(mean_over_classes(aps)[0], metrics[key]), size
        assert all(is_same(aps[0, c], per_class[name][key]) for c, name in enumerate(dataset.classes)), size
    aps = bootstrap_class_aps(match_by_class(detections, dataset, "voc", "all"), times, "voc")
    assert is_same(mean_over_classes(aps)[0], voc_metrics(detections, dataset)[0]["AP"])


def copy_drawn_images(dataset: Dataset, detections: Detections, times: np.ndarray) -> tuple[Dataset, Detections]:
    """Returns a data set with a copy of each image for each time it was drawn, under an id of its own; and detections."""
    images, objects, parts = [], [], []
    for index in range(len(dataset)):
        for copy in range(int(times[index])):
            image_id, of_image = 10 * int(dataset.image_ids[index]) + copy, detections.image_ids == dataset.image_ids[index]
            rows = dataset.rows(index)
            objects += [(len(images), label, flag, area, *box) for label, flag, area, box in zip(
                dataset.labels[rows], dataset.flags[rows], dataset.areas[rows], dataset.boxes[rows])]
            images.append((f"{image_id}.jpg", image_id, 200, 200))
            parts.append(Detections(np.full(of_image.sum(), image_id), detections.boxes[of_image], detections.scores[of_image],
                                    detections.labels[of_image]))
    return build_dataset("drawn", "/nowhere", list(dataset.classes), dataset.category_ids.tolist(), images,
                    np.array(objects, np.float64)), concat_detections(parts)


@pytest.mark.parametrize("metric, score", [("coco", lambda d, s: coco_metrics(d, s)[0]["AP"]),
                                           ("voc", lambda d, s: voc_metrics(d, s)[0]["AP"])])
@pytest.mark.parametrize("seed", range(8))
def test_ap_of_a_draw_equals_the_metric_on_the_copied_images(seed, metric, score):
    state = np.random.RandomState(seed)
    dataset, detections = random_case(state)
    # Unique scores: copies of an image tie, and with other detections of the same score AP would depend on their order.
    scores = state.permutation(len(detections)).astype(np.float32) / 1e4
    detections = Detections(detections.image_ids, detections.boxes, scores, detections.labels)
    times = bootstrap_draws(len(dataset), 5, seed).clip(max=9)
    ap = mean_over_classes(bootstrap_class_aps(match_by_class(detections, dataset, metric, "all"), times, metric))
    for draw, row in enumerate(times):
        copied, copied_detections = copy_drawn_images(dataset, detections, row)
        assert is_same(ap[draw], score(copied_detections, copied) if len(copied) else -1), draw


def test_each_draw_has_as_many_images_as_the_data_set_and_is_reproducible():
    times = bootstrap_draws(50, 20)
    assert times.shape == (21, 50) and (times[0] == 1).all() and (times.sum(axis=1) == 50).all()
    assert np.array_equal(times, bootstrap_draws(50, 20)) and not np.array_equal(times[1], times[2])


def test_ap_is_0_without_detections_and_nan_without_objects():
    no_detections = concat_detections([])
    dataset = build_dataset("one object", "/nowhere", ["cat", "dog"], [1, 2], [("a.jpg", 1, 9, 9)],
                            [(0, 1, 0, 25, 0, 0, 5, 5)])
    aps = bootstrap_class_aps(match_by_class(no_detections, dataset, "coco", "all"), bootstrap_draws(1, 3), "coco")
    assert (aps[:, 0] == 0).all() and np.isnan(aps[:, 1]).all() and (mean_over_classes(aps) == 0).all()
    assert np.isnan(ap_difference(aps[:, 1], aps[:, 1]).low) and not ap_difference(aps[:, 1], aps[:, 1]).significant


def test_the_95_percent_interval_by_hand():
    a, b = np.zeros(101), np.concatenate([[0.5], np.arange(1, 101) / 100])
    difference = ap_difference(a, b)
    assert (difference.a, difference.b) == (0, 0.5)
    assert difference.low == pytest.approx(0.03475) and difference.high == pytest.approx(0.97525)
    assert difference.significant and not ap_difference(a, b - 0.5).significant and ap_difference(b, a).significant
