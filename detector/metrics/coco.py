"""COCO's twelve numbers, in all and by class. (cocodataset.org, "Detection evaluation")"""

import numpy as np

from detector.config.schema import METRICS
from detector.metrics import coco_kernel
from detector.structures import Dataset, Detections, to_xywh

# Where each of the twelve lies in the kernel's arrays: IoUs, size (all, small, medium, large), cap (1, 10, 100).
ALL_IOUS, IOU_50, IOU_75 = slice(None), slice(0, 1), slice(5, 6)
PRECISIONS = {"AP": (ALL_IOUS, 0, 2), "AP50": (IOU_50, 0, 2), "AP75": (IOU_75, 0, 2), "APs": (ALL_IOUS, 1, 2),
              "APm": (ALL_IOUS, 2, 2), "APl": (ALL_IOUS, 3, 2)}
RECALLS = {"AR1": (0, 0), "AR10": (0, 1), "AR100": (0, 2), "ARs": (1, 2), "ARm": (2, 2), "ARl": (3, 2)}


def coco_metrics(detections: Detections, dataset: Dataset,
                 truth: coco_kernel.IndexedGroundTruth | None = None) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The twelve numbers, and for each class AP, AP50, AP75, APs, APm and APl; -1 where there is nothing to be found.

    `truth` is kernel.index(dataset), kept from an earlier evaluation.
    """
    return summary(coco_kernel.curves(detections, truth or coco_kernel.index(dataset)), dataset.classes)


def summary(curves: coco_kernel.Curves, classes: tuple[str, ...]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """What coco_metrics gives, from the arrays; the twelve have the bits of pycocotools' `stats`."""
    metrics = {name: _mean(curves.precision[ious, :, :, size, cap]) for name, (ious, size, cap) in PRECISIONS.items()}
    metrics |= {name: _mean(curves.recall[:, :, size, cap]) for name, (size, cap) in RECALLS.items()}
    per_class = {name: {key: _mean(curves.precision[ious, :, c, size, cap])
                        for key, (ious, size, cap) in PRECISIONS.items()} for c, name in enumerate(classes)}
    return {name: metrics[name] for name in METRICS["coco"]}, per_class


def results(detections: Detections, dataset: Dataset) -> list[dict]:
    """COCO's results format, with the ids of the annotation file; its server and its tools read it."""
    boxes = to_xywh(detections.boxes).round(3).tolist()
    categories = dataset.category_ids[detections.labels - 1].tolist()
    return [{"image_id": image, "category_id": category, "bbox": box, "score": score}
            for image, category, box, score in zip(detections.image_ids.tolist(), categories, boxes,
                                                   detections.scores.astype(np.float64).round(6).tolist())]


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0
