"""Any detector's detections in COCO's results format, scored against a COCO annotation file; no model is needed."""

import os

from detector.data.formats import coco
from detector.data.read import describe
from detector.errors import BadInput
from detector.evaluation.results import read_results
from detector.evaluation.scoring import format_metrics
from detector.metrics import coco_kernel
from detector.metrics.analysis import analyse, describe_errors


def score_file(detections: str, annotations: str, metric: str) -> None:
    """Prints COCO's twelve numbers or VOC's, for each class and size, and what the errors cost."""
    if not os.path.isfile(annotations):
        raise BadInput(f"no such annotation file: {annotations}")
    dataset = coco.read(os.path.dirname(annotations) or ".", os.path.basename(annotations))
    if not len(dataset):
        raise BadInput(f"{annotations} lists no image: there is nothing to score against")
    found = read_results(detections, dataset)
    why = analyse(found, dataset, metric)
    notes = [coco_kernel.note()] * bool(coco_kernel.note())
    if not len(found):
        notes.append(f"{detections} holds no detection: every object of {annotations} is missed")
    print("\n".join([*notes, f"{len(found)} detections, on {describe(dataset)}", format_metrics(why.metrics, why.per_class), "",
                     describe_errors(why)]))
