"""AP of random draws of the images, against COCO's own numbers and against really drawing the images."""

import numpy as np
import pytest
from test_coco_kernel import random_case

from detector.metrics.bootstrap import class_aps, difference, draws, judge, mean_over_classes
from detector.metrics.coco import coco_metrics
from detector.metrics.voc import voc_metrics
from detector.structures import Dataset, Detections, build_dataset, concat_detections

KEYS = {"all": "AP", "small": "APs", "medium": "APm", "large": "APl"}


def same(a: float, b: float) -> bool:
    return np.isnan(a) if b == -1 else a == pytest.approx(b, abs=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_every_image_once_gives_the_metric_itself(seed):
    dataset, found = random_case(np.random.RandomState(seed))
    times = draws(len(dataset), 0)
    metrics, per_class = coco_metrics(found, dataset)
    for size, key in KEYS.items():
        aps = class_aps(judge(found, dataset, "coco", size), times, "coco")
        assert same(mean_over_classes(aps)[0], metrics[key]), size
        assert all(same(aps[0, c], per_class[name][key]) for c, name in enumerate(dataset.classes)), size
    aps = class_aps(judge(found, dataset, "voc", "all"), times, "voc")
    assert same(mean_over_classes(aps)[0], voc_metrics(found, dataset)[0]["AP"])


def drawn(dataset: Dataset, found: Detections, times: np.ndarray) -> tuple[Dataset, Detections]:
    """The slow way: a data set in which each image stands as often as it was drawn, under ids of its own."""
    images, objects, parts = [], [], []
    for index in range(len(dataset)):
        for turn in range(int(times[index])):
            key, mine = 10 * int(dataset.image_ids[index]) + turn, found.image_ids == dataset.image_ids[index]
            rows = dataset.rows(index)
            objects += [(len(images), label, flag, area, *box) for label, flag, area, box in zip(
                dataset.labels[rows], dataset.flags[rows], dataset.areas[rows], dataset.boxes[rows])]
            images.append((f"{key}.jpg", key, 200, 200))
            parts.append(Detections(np.full(mine.sum(), key), found.boxes[mine], found.scores[mine], found.labels[mine]))
    return build_dataset("drawn", "/nowhere", list(dataset.classes), dataset.category_ids.tolist(), images,
                    np.array(objects, np.float64)), concat_detections(parts)


@pytest.mark.parametrize("metric, score", [("coco", lambda d, s: coco_metrics(d, s)[0]["AP"]),
                                           ("voc", lambda d, s: voc_metrics(d, s)[0]["AP"])])
@pytest.mark.parametrize("seed", range(8))
def test_a_draw_is_as_if_its_images_were_the_data_set(seed, metric, score):
    state = np.random.RandomState(seed)
    dataset, found = random_case(state)
    # Copies of one image tie with each other, and where others stand between them AP depends on their order.
    found = Detections(found.image_ids, found.boxes, state.permutation(len(found)).astype(np.float32) / 1e4, found.labels)
    times = draws(len(dataset), 5, seed).clip(max=9)
    fast = mean_over_classes(class_aps(judge(found, dataset, metric, "all"), times, metric))
    for draw, row in enumerate(times):
        slow, shown = drawn(dataset, found, row)
        assert same(fast[draw], score(shown, slow) if len(slow) else -1), draw


def test_draws_are_of_as_many_images_and_the_same_each_time():
    times = draws(50, 20)
    assert times.shape == (21, 50) and (times[0] == 1).all() and (times.sum(axis=1) == 50).all()
    assert np.array_equal(times, draws(50, 20)) and not np.array_equal(times[1], times[2])


def test_no_detection_is_0_and_no_object_is_unknown():
    none = concat_detections([])
    dataset = build_dataset("one", "/nowhere", ["cat", "dog"], [1, 2], [("a.jpg", 1, 9, 9)], [(0, 1, 0, 25, 0, 0, 5, 5)])
    aps = class_aps(judge(none, dataset, "coco", "all"), draws(1, 3), "coco")
    assert (aps[:, 0] == 0).all() and np.isnan(aps[:, 1]).all() and (mean_over_classes(aps) == 0).all()
    assert np.isnan(difference(aps[:, 1], aps[:, 1]).low) and not difference(aps[:, 1], aps[:, 1]).real


def test_the_interval_by_hand():
    a, b = np.zeros(101), np.concatenate([[0.5], np.arange(1, 101) / 100])
    found = difference(a, b)
    assert (found.a, found.b) == (0, 0.5) and found.low == pytest.approx(0.03475) and found.high == pytest.approx(0.97525)
    assert found.real and not difference(a, b - 0.5).real and difference(b, a).real
