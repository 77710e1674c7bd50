"""The precision, recall and score arrays equal those of pycocotools in every bit, for any number of ranks."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.evaluate import RankPredictions, merge
from detector.metrics import coco_kernel
from detector.structures import CROWD, DIFFICULT, Dataset, Detections, build_dataset, concat_detections

CASES, BATCH = 20, 15          # 300 random cases, in batches of 20
RANKS = (1, 2, 3, 5, 8)
NONE = concat_detections([])


def random_case(state: np.random.RandomState) -> tuple[Dataset, Detections]:
    """Returns a few images, whose ids are far apart and do not rise, with every situation that matching must handle.

    Some images have no object, some no detection, some classes neither. There are many equal scores, crowd regions and
    difficult objects. Every tenth case has 130 detections of one class in one image. Corners are multiples of a quarter
    pixel, so that IoUs of exactly 0.5 and 0.75 occur.
    """
    count, classes = state.randint(1, 7), state.randint(1, 4)
    image_ids = state.permutation(10**6)[:count]

    def box(size: int) -> np.ndarray:
        corner, sides = state.randint(0, 800, 2) / 4, state.randint(1, size, 2) / state.choice([1, 4])
        return np.concatenate([corner, corner + sides])
    objects, rows = [], []
    for image in range(count):
        for _ in range(state.choice([0, 0, 1, 2, 5])):
            label, corners = state.randint(1, classes + 1), box(150)
            area = (corners[2] - corners[0]) * (corners[3] - corners[1]) * state.choice([1, 0.5])
            objects.append((image, label, state.choice([0, 0, 0, 0, CROWD, DIFFICULT]), area, *corners))
            for _ in range(state.choice([0, 1, 1, 3])):
                near = corners + state.choice([0, 0, 0.25, 1, 4, 20]) * state.randint(-2, 3, 4)
                near[2:] = np.maximum(near[2:], near[:2] + 0.25)
                rows.append((image, label if state.rand() < 0.9 else state.randint(1, classes + 1), near))
        for _ in range(state.choice([0, 0, 2, 6])):
            rows.append((image, state.randint(1, classes + 1), box(60)))
    if state.rand() < 0.1:
        rows += [(0, 1, box(150)) for _ in range(130)]
    scores = state.randint(1, state.choice([3, 12, 10**6]), len(rows)) / 10**6
    order = state.permutation(len(rows))
    dataset = build_dataset("random", "/nowhere", [f"class {c}" for c in range(classes)], list(range(classes)),
                       [(f"{image_id}.jpg", int(image_id), 200, 200) for image_id in image_ids], np.array(objects, np.float64))
    return dataset, Detections(np.array([image_ids[rows[k][0]] for k in order], np.int64),
                               np.array([rows[k][2] for k in order], np.float32).reshape(-1, 4),
                               scores[order].astype(np.float32), np.array([rows[k][1] for k in order], np.int32))


def run_pycocotools(dataset: Dataset, detections: Detections) -> tuple[dict, np.ndarray]:
    """Runs pycocotools on lists of dicts, as its users do; returns its arrays and the twelve metrics."""
    def xywh(box) -> list[float]:
        return [float(box[0]), float(box[1]), float(box[2]) - float(box[0]), float(box[3]) - float(box[1])]
    annotations = {"images": [{"id": int(i)} for i in dataset.image_ids],
             "categories": [{"id": c + 1} for c in range(len(dataset.classes))], "annotations": []}
    for image in range(len(dataset)):
        for n in range(*dataset.rows(image).indices(len(dataset.boxes))):
            difficult = dataset.flags[n] & DIFFICULT
            annotations["annotations"].append({
                "id": n + 1, "image_id": int(dataset.image_ids[image]), "category_id": int(dataset.labels[n]),
                "area": float("inf") if difficult else float(dataset.areas[n]), "bbox": xywh(dataset.boxes[n]),
                "iscrowd": int(dataset.flags[n] & CROWD)})
    results = [{"image_id": int(i), "category_id": int(c), "score": float(s), "bbox": xywh(b)} for i, b, s, c in
               zip(detections.image_ids, detections.boxes, detections.scores, detections.labels)]
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth, detected = COCO(), COCO()
        ground_truth.dataset = annotations
        ground_truth.createIndex()
        if results:
            detected = ground_truth.loadRes(results)
        else:
            detected.dataset = {**annotations, "annotations": []}
            detected.createIndex()
        evaluation = COCOeval(ground_truth, detected, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.eval, evaluation.stats


def assert_same_bits(arrays: coco_kernel.CocoArrays, reference: dict) -> None:
    for name in ("precision", "recall", "scores"):
        array, expected = getattr(arrays, name), reference[name]
        assert array.shape == expected.shape and array.dtype == expected.dtype == np.float64
        assert array.tobytes() == expected.tobytes(), name


def split_over_ranks(detections: Detections, dataset: Dataset, ranks: int,
                     state: np.random.RandomState) -> list[RankPredictions]:
    """Gives each image to some rank, but none to the last of several; the order within an image stays."""
    owner = state.randint(0, max(ranks - 1, 1), len(dataset))
    parts = []
    for rank in range(ranks):
        images = np.flatnonzero(owner == rank)
        rows_by_image = [np.flatnonzero(detections.image_ids == dataset.image_ids[i]) for i in state.permutation(images)]
        rows = np.concatenate([np.zeros(0, np.int64), *rows_by_image])
        of_rank = Detections(detections.image_ids[rows], detections.boxes[rows], detections.scores[rows],
                             detections.labels[rows])
        parts.append(RankPredictions(of_rank, [], images, []))
    return parts


@pytest.mark.parametrize("batch", range(BATCH))
def test_all_bits_equal_those_of_pycocotools_for_any_number_of_ranks(batch):
    state, nontrivial = np.random.RandomState(batch), 0
    for case in range(CASES):
        dataset, detections = random_case(state)
        reference, stats = run_pycocotools(dataset, detections)
        for ranks in RANKS:
            merged, losses, indices = merge(split_over_ranks(detections, dataset, ranks, state), [])
            assert sorted(indices) == list(range(len(dataset))) and losses == []
            arrays = coco_kernel.evaluate_coco(merged, coco_kernel.index_ground_truth(dataset))
            assert_same_bits(arrays, reference)
        nontrivial += 0 < stats[0] < 1
    assert nontrivial, "AP was 0, 1 or undefined in every case of this batch"


def test_the_random_cases_contain_every_situation():
    state = np.random.RandomState(0)
    counts = dict.fromkeys(("crowd", "difficult", "tie", "no object", "no detection", "over 100"), 0)
    for _ in range(CASES):
        dataset, detections = random_case(state)
        groups = detections.image_ids * 10 + detections.labels
        counts["crowd"] += int((dataset.flags & CROWD).any())
        counts["difficult"] += int((dataset.flags & DIFFICULT).any())
        counts["tie"] += int(len(np.unique(detections.scores)) < len(detections))
        counts["no object"] += int((dataset.boxes_per_image() == 0).any())
        counts["no detection"] += int(len(np.setdiff1d(dataset.image_ids, detections.image_ids)) > 0)
        counts["over 100"] += int(len(groups) > 0 and np.unique(groups, return_counts=True)[1].max() > 100)
    assert all(counts.values()), counts


@pytest.mark.parametrize("slow", [False, True], ids=["hotcoco", "pycocotools"])
def test_the_empty_cases(slow, monkeypatch):
    if slow:
        monkeypatch.setattr(coco_kernel, "hotcoco", None)
    with_object = build_dataset("one object", "/", ["cat"], [1], [("a.jpg", 7, 9, 9)], np.array([(0, 1, 0, 25, 0, 0, 5, 5)], np.float64))
    without = build_dataset("no object", "/", ["cat"], [1], [("a.jpg", 7, 9, 9)], np.zeros((0, 8)))
    hit = Detections(np.array([7]), np.array([[0, 0, 5, 5]], np.float32), np.ones(1, np.float32), np.ones(1, np.int32))
    for dataset, detections, value in ((with_object, NONE, 0), (without, NONE, -1), (without, hit, -1)):
        arrays = coco_kernel.evaluate_coco(detections, coco_kernel.index_ground_truth(dataset))
        assert set(arrays.precision[:, :, :, 0].ravel()) == {value} == set(arrays.recall[:, :, 0].ravel())
        assert arrays.precision.shape == (10, 101, 1, 4, 3) and arrays.recall.shape == (10, 1, 4, 3)
    assert coco_kernel.evaluate_coco(hit, coco_kernel.index_ground_truth(with_object)).recall[:, 0, 0, 2].tolist() == [1] * 10


def test_one_index_serves_many_evaluations():
    state = np.random.RandomState(5)
    dataset, detections = random_case(state)
    ground_truth = coco_kernel.index_ground_truth(dataset)
    for rows in (slice(None), slice(0, 0), slice(0, 5), slice(None)):
        part = Detections(*(getattr(detections, name)[rows] for name in ("image_ids", "boxes", "scores", "labels")))
        assert_same_bits(coco_kernel.evaluate_coco(part, ground_truth), run_pycocotools(dataset, part)[0])


def test_without_hotcoco_pycocotools_gives_the_same_bits_and_a_message_of_one_line(monkeypatch):
    assert coco_kernel.fallback_message() == ""
    monkeypatch.setattr(coco_kernel, "hotcoco", None)
    assert "hotcoco is not installed" in coco_kernel.fallback_message() and "\n" not in coco_kernel.fallback_message()
    state = np.random.RandomState(3)
    for _ in range(5):
        dataset, detections = random_case(state)
        arrays = coco_kernel.evaluate_coco(detections, coco_kernel.index_ground_truth(dataset))
        assert_same_bits(arrays, run_pycocotools(dataset, detections)[0])


def test_a_detection_of_an_unknown_image_is_an_error():
    dataset, _ = random_case(np.random.RandomState(1))
    unknown = Detections(np.array([-5]), np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.ones(1, np.int32))
    with pytest.raises(AssertionError, match="does not have"):
        coco_kernel.evaluate_coco(unknown, coco_kernel.index_ground_truth(dataset))
