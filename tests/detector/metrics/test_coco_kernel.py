"""The whole precision, recall and score arrays, bit for bit those of pycocotools, however many ranks predicted."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.evaluate import RankPredictions, merge
from detector.metrics import coco_kernel
from detector.structures import CROWD, DIFFICULT, Dataset, Detections, build_dataset, concat_detections

CASES, BATCH = 20, 15          # 300 random cases, in batches that name the first that fails
RANKS = (1, 2, 3, 5, 8)
NONE = concat_detections([])


def random_case(state: np.random.RandomState) -> tuple[Dataset, Detections]:
    """A few images whose ids neither rise nor are near to each other, with every kind of thing that may go wrong.

    Some images have no object, some no detection, some classes neither; few different scores, so that many tie; crowds
    and difficult objects; every tenth case has 130 detections of one class in one image. Boxes lie on a grid of
    quarter pixels, so that overlaps of exactly 0.5 or 0.75 occur, too.
    """
    count, classes = state.randint(1, 7), state.randint(1, 4)
    image_ids = state.permutation(10**6)[:count]

    def box(size: int) -> np.ndarray:
        corner, sides = state.randint(0, 800, 2) / 4, state.randint(1, size, 2) / state.choice([1, 4])
        return np.concatenate([corner, corner + sides])
    objects, found = [], []
    for image in range(count):
        for _ in range(state.choice([0, 0, 1, 2, 5])):
            label, place = state.randint(1, classes + 1), box(150)
            area = (place[2] - place[0]) * (place[3] - place[1]) * state.choice([1, 0.5])
            objects.append((image, label, state.choice([0, 0, 0, 0, CROWD, DIFFICULT]), area, *place))
            for _ in range(state.choice([0, 1, 1, 3])):
                near = place + state.choice([0, 0, 0.25, 1, 4, 20]) * state.randint(-2, 3, 4)
                near[2:] = np.maximum(near[2:], near[:2] + 0.25)
                found.append((image, label if state.rand() < 0.9 else state.randint(1, classes + 1), near))
        for _ in range(state.choice([0, 0, 2, 6])):
            found.append((image, state.randint(1, classes + 1), box(60)))
    if state.rand() < 0.1:
        found += [(0, 1, box(150)) for _ in range(130)]
    scores = state.randint(1, state.choice([3, 12, 10**6]), len(found)) / 10**6
    order = state.permutation(len(found))
    dataset = build_dataset("random", "/nowhere", [f"class {c}" for c in range(classes)], list(range(classes)),
                       [(f"{key}.jpg", int(key), 200, 200) for key in image_ids], np.array(objects, np.float64))
    return dataset, Detections(np.array([image_ids[found[k][0]] for k in order], np.int64),
                               np.array([found[k][2] for k in order], np.float32).reshape(-1, 4),
                               scores[order].astype(np.float32), np.array([found[k][1] for k in order], np.int32))


def referee(dataset: Dataset, detections: Detections) -> tuple[dict, np.ndarray]:
    """pycocotools on lists of dicts, as its users fill it: the arrays, and the twelve numbers."""
    def xywh(box) -> list[float]:
        return [float(box[0]), float(box[1]), float(box[2]) - float(box[0]), float(box[3]) - float(box[1])]
    known = {"images": [{"id": int(i)} for i in dataset.image_ids],
             "categories": [{"id": c + 1} for c in range(len(dataset.classes))], "annotations": []}
    for image in range(len(dataset)):
        for n in range(*dataset.rows(image).indices(len(dataset.boxes))):
            difficult = dataset.flags[n] & DIFFICULT
            known["annotations"].append({
                "id": n + 1, "image_id": int(dataset.image_ids[image]), "category_id": int(dataset.labels[n]),
                "area": float("inf") if difficult else float(dataset.areas[n]), "bbox": xywh(dataset.boxes[n]),
                "iscrowd": int(dataset.flags[n] & CROWD)})
    answers = [{"image_id": int(i), "category_id": int(c), "score": float(s), "bbox": xywh(b)} for i, b, s, c in
               zip(detections.image_ids, detections.boxes, detections.scores, detections.labels)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = known
        truth.createIndex()
        if answers:
            found = truth.loadRes(answers)
        else:
            found.dataset = {**known, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.eval, evaluation.stats


def assert_same_bits(curves: coco_kernel.Curves, said: dict) -> None:
    for name in ("precision", "recall", "scores"):
        ours, theirs = getattr(curves, name), said[name]
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == np.float64
        assert ours.tobytes() == theirs.tobytes(), name


def shared_out(detections: Detections, dataset: Dataset, ranks: int, state: np.random.RandomState) -> list[RankPredictions]:
    """Every image on some rank; the last of several has none. The order within an image stays, as in a rank's share."""
    owner = state.randint(0, max(ranks - 1, 1), len(dataset))
    shares = []
    for rank in range(ranks):
        images = np.flatnonzero(owner == rank)
        parts = [np.flatnonzero(detections.image_ids == dataset.image_ids[i]) for i in state.permutation(images)]
        rows = np.concatenate([np.zeros(0, np.int64), *parts])
        shares.append(RankPredictions(Detections(detections.image_ids[rows], detections.boxes[rows], detections.scores[rows],
                                       detections.labels[rows]), np.zeros((0, 6)), images, []))
    return shares


@pytest.mark.parametrize("batch", range(BATCH))
def test_every_bit_is_pycocotools_for_any_number_of_ranks(batch):
    state, kinds = np.random.RandomState(batch), set()
    for case in range(CASES):
        dataset, detections = random_case(state)
        said, stats = referee(dataset, detections)
        for ranks in RANKS:
            merged, _, seen = merge(shared_out(detections, dataset, ranks, state))
            assert sorted(seen) == list(range(len(dataset)))
            curves = coco_kernel.curves(merged, coco_kernel.index(dataset))
            assert_same_bits(curves, said)
        kinds |= {"value"} if 0 < stats[0] < 1 else set()
    assert kinds, "no case of this batch compared more than zeros"


def test_the_cases_have_in_them_what_they_promise():
    state, met = np.random.RandomState(0), dict.fromkeys(("crowd", "difficult", "tie", "bare", "blank", "many"), 0)
    for _ in range(CASES):
        dataset, detections = random_case(state)
        images = detections.image_ids * 10 + detections.labels
        met["crowd"] += int((dataset.flags & CROWD).any())
        met["difficult"] += int((dataset.flags & DIFFICULT).any())
        met["tie"] += int(len(np.unique(detections.scores)) < len(detections))
        met["bare"] += int((dataset.boxes_per_image() == 0).any())
        met["blank"] += int(len(np.setdiff1d(dataset.image_ids, detections.image_ids)) > 0)
        met["many"] += int(len(images) > 0 and np.unique(images, return_counts=True)[1].max() > 100)
    assert all(met.values()), met


@pytest.mark.parametrize("slow", [False, True], ids=["hotcoco", "pycocotools"])
def test_the_empty_cases(slow, monkeypatch):
    if slow:
        monkeypatch.setattr(coco_kernel, "hotcoco", None)
    one = build_dataset("one", "/", ["cat"], [1], [("a.jpg", 7, 9, 9)], np.array([(0, 1, 0, 25, 0, 0, 5, 5)], np.float64))
    bare = build_dataset("bare", "/", ["cat"], [1], [("a.jpg", 7, 9, 9)], np.zeros((0, 8)))
    hit = Detections(np.array([7]), np.array([[0, 0, 5, 5]], np.float32), np.ones(1, np.float32), np.ones(1, np.int32))
    for dataset, detections, value in ((one, NONE, 0), (bare, NONE, -1), (bare, hit, -1)):
        curves = coco_kernel.curves(detections, coco_kernel.index(dataset))
        assert set(curves.precision[:, :, :, 0].ravel()) == {value} == set(curves.recall[:, :, 0].ravel())
        assert curves.precision.shape == (10, 101, 1, 4, 3) and curves.recall.shape == (10, 1, 4, 3)
    assert coco_kernel.curves(hit, coco_kernel.index(one)).recall[:, 0, 0, 2].tolist() == [1] * 10


def test_one_index_serves_many_evaluations():
    state = np.random.RandomState(5)
    dataset, detections = random_case(state)
    truth = coco_kernel.index(dataset)
    for rows in (slice(None), slice(0, 0), slice(0, 5), slice(None)):
        part = Detections(*(getattr(detections, name)[rows] for name in ("image_ids", "boxes", "scores", "labels")))
        assert_same_bits(coco_kernel.curves(part, truth), referee(dataset, part)[0])


def test_without_hotcoco_pycocotools_gives_the_same_bits_and_one_line_says_so(monkeypatch):
    assert coco_kernel.note() == ""
    monkeypatch.setattr(coco_kernel, "hotcoco", None)
    assert "hotcoco is not installed" in coco_kernel.note() and "\n" not in coco_kernel.note()
    state = np.random.RandomState(3)
    for _ in range(5):
        dataset, detections = random_case(state)
        assert_same_bits(coco_kernel.curves(detections, coco_kernel.index(dataset)), referee(dataset, detections)[0])


def test_a_detection_of_a_strange_image_is_no_score():
    dataset, _ = random_case(np.random.RandomState(1))
    strange = Detections(np.array([-5]), np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.ones(1, np.int32))
    with pytest.raises(AssertionError, match="does not have"):
        coco_kernel.curves(strange, coco_kernel.index(dataset))
