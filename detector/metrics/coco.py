"""COCO's twelve metrics and its results format. (cocodataset.org, "Detection evaluation")"""

import numpy as np

from detector.config.schema import METRICS
from detector.metrics import coco_kernel
from detector.structures import Dataset, Detections, to_xywh

# Where each metric lies in coco_kernel.CocoArrays: IoU thresholds, index of the area range (all, small, medium, large),
# index of the limit on detections (1, 10, 100).
ALL_IOUS, IOU_50, IOU_75 = slice(None), slice(0, 1), slice(5, 6)
PRECISIONS = {"AP": (ALL_IOUS, 0, 2), "AP50": (IOU_50, 0, 2), "AP75": (IOU_75, 0, 2), "APs": (ALL_IOUS, 1, 2),
              "APm": (ALL_IOUS, 2, 2), "APl": (ALL_IOUS, 3, 2)}
RECALLS = {"AR1": (0, 0), "AR10": (0, 1), "AR100": (0, 2), "ARs": (1, 2), "ARm": (2, 2), "ARl": (3, 2)}


def coco_metrics(detections: Detections, dataset: Dataset, ground_truth: coco_kernel.IndexedGroundTruth | None = None
                 ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Returns COCO's metrics of `detections`.

    Args:
        ground_truth: coco_kernel.index_ground_truth(dataset), if it exists already.

    Returns:
        The twelve metrics by name; and for each class AP, AP50, AP75, APs, APm and APl. -1 where there is no object.
    """
    ground_truth = ground_truth or coco_kernel.index_ground_truth(dataset)
    return summarize(coco_kernel.evaluate_coco(detections, ground_truth), dataset.classes)


def coco_ap(detections: Detections, dataset: Dataset, max_detections: int) -> float:
    """Returns AP with another limit than COCO's on the detections of a class and image that count; -1 without objects.
    """
    ground_truth = coco_kernel.index_ground_truth(dataset)
    arrays = coco_kernel.evaluate_coco(detections, ground_truth, max_detections)
    ious, area, limit = PRECISIONS["AP"]
    return mean_of_known(arrays.precision[ious, :, :, area, limit])


def summarize(arrays: coco_kernel.CocoArrays, classes: tuple[str, ...]
              ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Returns the metrics that `coco_metrics` returns; the twelve equal pycocotools' `COCOeval.stats` in every bit."""
    metrics = {name: mean_of_known(arrays.precision[ious, :, :, area, limit])
               for name, (ious, area, limit) in PRECISIONS.items()}
    metrics |= {name: mean_of_known(arrays.recall[:, :, area, limit]) for name, (area, limit) in RECALLS.items()}
    per_class = {name: {key: mean_of_known(arrays.precision[ious, :, c, area, limit])
                        for key, (ious, area, limit) in PRECISIONS.items()} for c, name in enumerate(classes)}
    return {name: metrics[name] for name in METRICS["coco"]}, per_class


def mean_of_known(values: np.ndarray) -> float:
    """Returns the mean of the values that are not -1, or -1 if there is none."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def to_coco_results(detections: Detections, dataset: Dataset) -> list[dict]:
    """Returns one dict for each detection in COCO's results format, with the category ids of the annotation file.

    Boxes are x, y, width, height in pixels, rounded to 3 digits; scores are rounded to 6 digits.
    """
    boxes = to_xywh(detections.boxes).round(3).tolist()
    categories = dataset.category_ids[detections.labels - 1].tolist()
    return [{"image_id": image, "category_id": category, "bbox": box, "score": score}
            for image, category, box, score in zip(detections.image_ids.tolist(), categories, boxes,
                                                   detections.scores.astype(np.float64).round(6).tolist())]
