"""COCO's twelve numbers by pycocotools, fed from flat arrays. (cocodataset.org, "Detection evaluation")"""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.boxes import to_xywh
from detector.config.schema import METRICS
from detector.records import CROWD, DIFFICULT, Dataset, Detections

IGNORED_AREA = 1e11  # beyond every size range: pycocotools then ignores the object, without a crowd's own IoU


def coco_metrics(detections: Detections, dataset: Dataset) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The twelve numbers, and for each class AP and AP50; -1 where there is nothing to be found, as in pycocotools.

    Crowd regions and difficult objects are ignored: what hits them is neither right nor wrong.
    """
    truth = COCO()
    truth.dataset = {"info": {}, "images": [{"id": int(i)} for i in dataset.image_ids],
                     "annotations": _annotations(dataset),
                     "categories": [{"id": c} for c in range(1, len(dataset.classes) + 1)]}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what we return
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(_result_rows(detections)) if len(detections) else COCO(), "bbox")
        if not len(detections):  # without a category its results would be taken for broken
            evaluation.cocoDt.dataset = {**truth.dataset, "annotations": []}
            evaluation.cocoDt.createIndex()
        evaluation.params.imgIds = [int(i) for i in dataset.image_ids]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class], all sizes, 100 detections
    per_class = {name: {"AP": _mean(precision[:, :, c]), "AP50": _mean(precision[0, :, c])}
                 for c, name in enumerate(dataset.classes)}
    return dict(zip(METRICS["coco"], (float(value) for value in evaluation.stats))), per_class


def results(detections: Detections, dataset: Dataset) -> list[dict]:
    """COCO's results format, with the ids of the annotation file; its server and its tools read it."""
    boxes = to_xywh(detections.boxes).round(3).tolist()
    return [{"image_id": int(i), "category_id": int(dataset.category_ids[label - 1]), "bbox": box, "score": score}
            for i, label, box, score in zip(detections.image_ids, detections.labels, boxes,
                                            detections.scores.astype(np.float64).round(6).tolist())]


def _annotations(dataset: Dataset) -> list[dict]:
    image_ids = dataset.image_ids[dataset.image_of_row()]
    areas = np.where(dataset.flags & DIFFICULT, IGNORED_AREA, dataset.areas)
    return [{"id": n, "image_id": int(image), "category_id": int(label), "bbox": box, "area": area,
             "iscrowd": int(crowd)}
            for n, (image, label, box, area, crowd) in enumerate(
                zip(image_ids, dataset.labels, to_xywh(dataset.boxes).tolist(), areas.tolist(),
                    (dataset.flags & CROWD) > 0), start=1)]


def _result_rows(detections: Detections) -> np.ndarray:
    """pycocotools' own array form: image, x, y, width, height, score, category; float64 [K, 7]."""
    return np.concatenate([detections.image_ids[:, None], to_xywh(detections.boxes), detections.scores[:, None],
                           detections.labels[:, None]], axis=1).astype(np.float64)


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0
