"""Visual Genome's average precision, as bottom-up-attention and the published table count it.

AP at IoU 0.5 as in VOC since 2010 (lib/datasets/vg_eval.py of bottom-up-attention); with thousands of classes many of
them have nothing to be found in a test split, and how those count decides the mean.
"""

import numpy as np

from detector.metrics.voc import area_ap, curves
from detector.structures import Dataset, Detections


def visual_genome_metrics(detections: Detections, dataset: Dataset
                          ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """AP: the plain mean over all classes, where one without an object counts 0; AP_weighted: each class counts as
    often as it has objects. For each class AP and its number of objects; 0 where there is no object at all."""
    per_class = {name: {"AP": area_ap(recall, precision) if count else 0.0, "objects": float(count)}
                 for name, (recall, precision, count) in zip(dataset.classes, curves(detections, dataset))}
    precisions = np.array([values["AP"] for values in per_class.values()])
    objects = np.array([values["objects"] for values in per_class.values()])
    return {"AP": float(precisions.mean()) if len(precisions) else 0.0,
            "AP_weighted": float(precisions @ objects / max(objects.sum(), 1))}, per_class
