"""COCO's precision and recall arrays from flat arrays: by hotcoco, or where that is missing by pycocotools.

Both give the same bits; tests/detector/metrics/test_kernel.py compares whole arrays. What a data set needs to be scored
against is indexed once and kept, because training scores against the same one again and again.
"""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.structures import CROWD, DIFFICULT, Dataset, Detections, to_xywh

try:
    import hotcoco
except ImportError:  # a platform without its binary wheel
    hotcoco = None

IGNORED_AREA = 1e11  # beyond every size range: COCO then ignores the object, without a crowd's own IoU
FALLBACK = "hotcoco is not installed: pycocotools scores, which gives the same numbers and takes about 90 times as long"


@dataclass(frozen=True)
class Curves:
    """pycocotools' arrays, -1 where a class has no object. T = 10 IoUs from 0.50 to 0.95, R = 101 recalls, A = 4 sizes
    (all, small, medium, large), M = 3 caps (1, 10, 100 detections of an image and class)."""

    precision: np.ndarray  # float64 [T, R, C, A, M]
    recall: np.ndarray     # float64 [T, C, A, M]
    scores: np.ndarray     # float64 [T, R, C, A, M], of the detection at which the recall is reached


@dataclass(frozen=True)
class IndexedGroundTruth:
    """A data set, indexed for scoring."""

    dataset: Dataset
    image_ids: np.ndarray  # int64 [I], rising; the kernel knows an image by its place here, whatever its id
    index: Any             # the kernel's own


def note() -> str:
    """What to tell a user of the kernel: nothing, unless it is the slow one."""
    return "" if hotcoco else FALLBACK


def index(dataset: Dataset) -> IndexedGroundTruth:
    image_ids = np.sort(dataset.image_ids)
    places = np.searchsorted(image_ids, dataset.image_ids)[dataset.image_of_box()]
    return IndexedGroundTruth(dataset, image_ids, (_index_fast if hotcoco else _index_slow)(dataset, places))


def curves(detections: Detections, truth: IndexedGroundTruth) -> Curves:
    """Crowd regions and difficult objects are ignored: what hits them is neither right nor wrong."""
    said = (_evaluate_fast if hotcoco else _evaluate_slow)(_result_rows(detections, truth), truth)
    return Curves(said["precision"], said["recall"], said["scores"])


def _index_fast(dataset: Dataset, places: np.ndarray) -> Any:
    return hotcoco.COCO.from_arrays(
        _images(dataset), _categories(dataset), places, dataset.labels.astype(np.int64), to_xywh(dataset.boxes),
        area=_areas(dataset), iscrowd=(dataset.flags & CROWD) > 0)


def _evaluate_fast(rows: np.ndarray, truth: IndexedGroundTruth) -> dict:
    evaluation = hotcoco.COCOeval(truth.index, truth.index.load_res(rows), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval


def _index_slow(dataset: Dataset, places: np.ndarray) -> Any:
    from pycocotools.coco import COCO  # here, because a machine that only trains needs no kernel
    truth = COCO()
    columns = zip(places.tolist(), dataset.labels.tolist(), to_xywh(dataset.boxes).tolist(), _areas(dataset).tolist(),
                  ((dataset.flags & CROWD) > 0).tolist())
    truth.dataset = {"info": {}, "images": _images(dataset), "categories": _categories(dataset),
                     "annotations": [{"id": n, "image_id": image, "category_id": label, "bbox": box, "area": area,
                                      "iscrowd": int(crowd)}
                                     for n, (image, label, box, area, crowd) in enumerate(columns, start=1)]}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what we return
        truth.createIndex()
    return truth


def _evaluate_slow(rows: np.ndarray, truth: IndexedGroundTruth) -> dict:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        if len(rows):
            found = truth.index.loadRes(rows)
        else:  # loadRes takes a first one for granted
            found = COCO()
            found.dataset = {**truth.index.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth.index, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


def _images(dataset: Dataset) -> list[dict]:
    return [{"id": place} for place in range(len(dataset))]


def _categories(dataset: Dataset) -> list[dict]:
    return [{"id": label, "name": name} for label, name in enumerate(dataset.classes, start=1)]


def _areas(dataset: Dataset) -> np.ndarray:
    """float64 [N]"""
    return np.where(dataset.flags & DIFFICULT, IGNORED_AREA, dataset.areas.astype(np.float64))


def _result_rows(detections: Detections, truth: IndexedGroundTruth) -> np.ndarray:
    """COCO's array form: image, x, y, width, height, score, category; float64 [K, 7]."""
    places = np.searchsorted(truth.image_ids, detections.image_ids)
    assert np.array_equal(truth.image_ids[places.clip(max=len(truth.image_ids) - 1)], detections.image_ids), \
        "detections of an image that the data set does not have"
    rows = np.empty((len(detections), 7))
    rows[:, 0], rows[:, 1:5], rows[:, 5], rows[:, 6] = places, to_xywh(detections.boxes), detections.scores, \
        detections.labels
    return rows
