"""The verb score: scores a file of detections, from any detector, against a COCO annotation file."""

import os

from detector.data.formats import coco
from detector.data.read import describe
from detector.errors import BadInput
from detector.evaluation.results import read_detections
from detector.evaluation.scoring import format_metrics
from detector.metrics import coco_kernel
from detector.metrics.analysis import analyse, describe_errors


def score_file(detections_path: str, annotations_path: str, metric: str) -> None:
    """Prints the metrics, for the data set and for each class, and what each type of error costs.

    Args:
        detections_path: a file in COCO's results format.
        annotations_path: a COCO annotation file.
        metric: coco or voc.

    Raises:
        BadInput: a file cannot be read, does not fit the other one, or lists no image.
    """
    if not os.path.isfile(annotations_path):
        raise BadInput(f"no such annotation file: {annotations_path}")
    dataset = coco.read(os.path.dirname(annotations_path) or ".", os.path.basename(annotations_path))
    if not len(dataset):
        raise BadInput(f"{annotations_path} lists no image: there is nothing to score against")
    detections = read_detections(detections_path, dataset)
    analysis = analyse(detections, dataset, metric)
    lines = [coco_kernel.fallback_message()] if coco_kernel.fallback_message() else []
    if not len(detections):
        lines.append(f"{detections_path} holds no detection: every object of {annotations_path} is missed")
    lines += [f"{len(detections)} detections, on {describe(dataset)}",
              format_metrics(analysis.metrics, analysis.per_class), "", describe_errors(analysis)]
    print("\n".join(lines))
