"""Visual Genome's average precision, as in bottom-up-attention and in the published table.

AP at IoU 0.5 as in VOC since 2010 (lib/datasets/vg_eval.py of bottom-up-attention). With thousands of classes, many
have no object in a test split, so the mean depends on how classes without objects are counted.
"""

import numpy as np

from detector.metrics.voc import area_ap, precision_recall_by_class
from detector.structures import Dataset, Detections


def visual_genome_metrics(detections: Detections, dataset: Dataset
                          ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Returns AP and AP_weighted of the data set, and AP and the number of objects of each class.

    AP is the mean over all classes, in which a class without objects counts as 0. AP_weighted weights each class by its
    number of objects. Both are 0 if there is no object.
    """
    per_class = {name: {"AP": area_ap(recall, precision) if objects else 0.0, "objects": float(objects)}
                 for name, (recall, precision, objects)
                 in zip(dataset.classes, precision_recall_by_class(detections, dataset))}
    aps = np.array([values["AP"] for values in per_class.values()])
    objects = np.array([values["objects"] for values in per_class.values()])
    return {"AP": float(aps.mean()) if len(aps) else 0.0,
            "AP_weighted": float(aps @ objects / max(objects.sum(), 1))}, per_class
