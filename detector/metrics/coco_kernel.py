"""COCO's precision and recall arrays, computed by hotcoco, or by pycocotools where hotcoco is not installed.

Both give the same arrays in every bit; tests/detector/metrics/test_coco_kernel.py compares them. The ground truth is
indexed once and kept, because training scores against the same data set at every evaluation.
"""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.metrics.coco_params import MAX_DETECTIONS
from detector.structures import CROWD, DIFFICULT, Dataset, Detections, to_xywh

try:
    import hotcoco
except ImportError:  # a platform without its binary wheel
    hotcoco = None

SMALLER_LIMITS = (1, 10)  # maxDets[:2]
IGNORED_AREA = 1e11  # outside of every area range: COCO then ignores the object, with the usual IoU (unlike a crowd)
FALLBACK = "hotcoco is not installed: pycocotools scores, which gives the same numbers and takes about 90 times as long"


@dataclass(frozen=True)
class CocoArrays:
    """The arrays of pycocotools' `COCOeval.eval`; -1 where a class has no object.

    T = 10 IoU thresholds from 0.50 to 0.95, R = 101 recall thresholds, A = 4 area ranges (all, small, medium, large),
    M = 3 limits on detections (1, 10, 100 of an image and class).
    """

    precision: np.ndarray  # float64 [T, R, C, A, M]
    recall: np.ndarray     # float64 [T, C, A, M]
    scores: np.ndarray     # float64 [T, R, C, A, M], score of the detection at which the recall is reached


@dataclass(frozen=True)
class IndexedGroundTruth:
    """The ground truth of a data set, indexed for scoring."""

    dataset: Dataset
    image_ids: np.ndarray  # int64 [I], rising; an image's id inside the kernel is its position in this array
    index: Any             # hotcoco.COCO or pycocotools.coco.COCO


def fallback_message() -> str:
    """Returns a message for the user if the slow kernel is in use, else an empty text."""
    return "" if hotcoco else FALLBACK


def index_ground_truth(dataset: Dataset) -> IndexedGroundTruth:
    """Returns the indexed ground truth. Crowd regions and difficult objects will be ignored in scoring."""
    image_ids = np.sort(dataset.image_ids)
    image_of_object = np.searchsorted(image_ids, dataset.image_ids)[dataset.image_of_box()]
    build_index = index_hotcoco if hotcoco else index_pycocotools
    return IndexedGroundTruth(dataset, image_ids, build_index(dataset, image_of_object))


def evaluate_coco(detections: Detections, ground_truth: IndexedGroundTruth,
                  max_detections: int = MAX_DETECTIONS) -> CocoArrays:
    """Returns the precision, recall and score arrays of `detections`.

    Args:
        max_detections: the largest of the three limits on detections of an image and class; COCO's is 100.
    """
    evaluate = evaluate_hotcoco if hotcoco else evaluate_pycocotools
    arrays = evaluate(result_rows(detections, ground_truth), ground_truth, [*SMALLER_LIMITS, max_detections])
    return CocoArrays(arrays["precision"], arrays["recall"], arrays["scores"])


def index_hotcoco(dataset: Dataset, image_of_object: np.ndarray) -> Any:
    return hotcoco.COCO.from_arrays(
        image_entries(dataset), category_entries(dataset), image_of_object, dataset.labels.astype(np.int64),
        to_xywh(dataset.boxes), area=object_areas(dataset), iscrowd=(dataset.flags & CROWD) > 0)


def evaluate_hotcoco(rows: np.ndarray, ground_truth: IndexedGroundTruth, limits: list[int]) -> dict:
    evaluation = hotcoco.COCOeval(ground_truth.index, ground_truth.index.load_res(rows), "bbox")
    evaluation.params.max_dets = limits
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval


def index_pycocotools(dataset: Dataset, image_of_object: np.ndarray) -> Any:
    from pycocotools.coco import COCO  # imported here, because it is needed only without hotcoco
    index = COCO()
    columns = zip(image_of_object.tolist(), dataset.labels.tolist(), to_xywh(dataset.boxes).tolist(),
                  object_areas(dataset).tolist(), ((dataset.flags & CROWD) > 0).tolist())
    annotations = [{"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area,
                    "iscrowd": int(crowd)} for number, (image, label, box, area, crowd) in enumerate(columns, start=1)]
    index.dataset = {"info": {}, "images": image_entries(dataset), "categories": category_entries(dataset),
                     "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):  # createIndex prints its progress
        index.createIndex()
    return index


def evaluate_pycocotools(rows: np.ndarray, ground_truth: IndexedGroundTruth, limits: list[int]) -> dict:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        if len(rows):
            results = ground_truth.index.loadRes(rows)
        else:  # loadRes fails on an empty list
            results = COCO()
            results.dataset = {**ground_truth.index.dataset, "annotations": []}
            results.createIndex()
        evaluation = COCOeval(ground_truth.index, results, "bbox")
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


def image_entries(dataset: Dataset) -> list[dict]:
    """Returns the `images` of a COCO annotation file; ids are positions in IndexedGroundTruth.image_ids."""
    return [{"id": position} for position in range(len(dataset))]


def category_entries(dataset: Dataset) -> list[dict]:
    """Returns the `categories` of a COCO annotation file; ids are labels."""
    return [{"id": label, "name": name} for label, name in enumerate(dataset.classes, start=1)]


def object_areas(dataset: Dataset) -> np.ndarray:
    """Returns the area of each object, float64 [N]; that of a difficult one is outside of every range."""
    return np.where(dataset.flags & DIFFICULT, IGNORED_AREA, dataset.areas.astype(np.float64))


def result_rows(detections: Detections, ground_truth: IndexedGroundTruth) -> np.ndarray:
    """Returns what `loadRes` takes, float64 [K, 7]: image, x, y, width, height, score, category."""
    image_ids = ground_truth.image_ids
    positions = np.searchsorted(image_ids, detections.image_ids)
    assert np.array_equal(image_ids[positions.clip(max=len(image_ids) - 1)], detections.image_ids), \
        "a detection has an image id that the data set does not have"
    rows = np.empty((len(detections), 7))
    rows[:, 0], rows[:, 1:5] = positions, to_xywh(detections.boxes)
    rows[:, 5], rows[:, 6] = detections.scores, detections.labels
    return rows
