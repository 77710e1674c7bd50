"""The verb score: scores a file of detections, from any detector, against a COCO annotation file."""

import numpy as np

from detector.data.formats import coco
from detector.data.read import describe
from detector.errors import BadInput
from detector.evaluation.detections_file import read_detections_by_id
from detector.evaluation.notes import evaluation_notes
from detector.loggers.metric_tables import evaluated_metrics
from detector.loggers.terminal import show
from detector.metrics import coco_kernel
from detector.metrics.analysis import analyse, describe_errors
from detector.structures import Dataset


def score_file(detections_path: str, annotations_path: str, metric: str) -> None:
    """Prints the metrics, for the data set and for each class, and what each type of error costs.

    The images are not read. Ids may be numbers or texts.

    Args:
        detections_path: a file in COCO's results format.
        annotations_path: a COCO annotation file.
        metric: coco or voc.

    Raises:
        BadInput: a file cannot be read, does not fit the other one, or lists no image.
    """
    truth = coco.read_ground_truth(annotations_path)
    dataset = truth.dataset
    if not len(dataset):
        raise BadInput(f"{annotations_path} lists no image: there is nothing to score against")
    if not dataset.classes:
        raise BadInput(f"{annotations_path} lists no category: there is nothing to score against")
    detections, left_out = read_detections_by_id(detections_path, dataset, truth.image_ids, truth.labels)
    analysis = analyse(detections, dataset, metric)
    notes = [coco_kernel.fallback_message(), *dataset.warnings, *repeated_notes(dataset)]
    if left_out:
        notes.append(f"{left_out} detections are of categories that were left out, and do not count")
    if not len(detections):
        notes.append(f"{detections_path} holds no detection: every object of {annotations_path} is missed")
    notes += evaluation_notes(detections, dataset, metric, analysis.metrics["AP"])
    show(f"{len(detections)} detections, on {describe(dataset)}",
         evaluated_metrics(analysis.metrics, analysis.per_class), "", describe_errors(analysis),
         *(f"note: {note}" for note in notes if note))


def repeated_notes(dataset: Dataset) -> list[str]:
    """Returns sentences about images that are listed twice and objects that are annotated twice, which all count."""
    notes = []
    images = len(dataset) - len(np.unique(dataset.paths))
    if images:
        notes.append(f"{images} of {len(dataset)} images have the file_name of another one: they count as images of "
                     "their own, and need detections of their own")
    rows = np.column_stack([dataset.image_of_box(), dataset.labels, dataset.boxes])
    rows = rows[np.lexsort(rows.T)]
    objects = int((rows[1:] == rows[:-1]).all(axis=1).sum())
    if objects:
        notes.append(f"{objects} of {len(dataset.boxes)} objects have class and box of another object in their image: "
                     "they count as objects of their own, as in pycocotools, and need detections of their own")
    return notes
