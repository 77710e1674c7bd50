"""Notes beside the numbers of an evaluation: what they hide, and why some are undefined."""

import numpy as np

from detector.errors import shorten
from detector.evaluation.scoring import Evaluation
from detector.metrics.coco import coco_ap
from detector.metrics.coco_params import MAX_DETECTIONS
from detector.metrics.limit import beyond_limit
from detector.metrics.matching import count_objects, ignored_object_mask
from detector.structures import Dataset, Detections

MAX_CLASSES, MAX_IMAGES = 10, 3  # names in a note


def evaluation_notes(detections: Detections, dataset: Dataset, metric: str, ap: float,
                     max_detections: int = 0) -> list[str]:
    """Returns one sentence for each thing that the metrics do not tell by themselves.

    Args:
        metric: coco, voc or visual_genome.
        ap: the metric AP.
        max_detections: the detections of an image that the detector keeps (evaluate.max_detections); 0: unknown.
    """
    notes = [empty_class_note(dataset, metric), limit_note(detections, dataset, ap) if metric == "coco" else "",
             max_detections_note(dataset, max_detections) if max_detections else ""]
    return [note for note in notes if note]


def empty_class_note(dataset: Dataset, metric: str) -> str:
    """Returns a sentence about classes that no metric can be computed of."""
    counts = count_objects(dataset, ignored_object_mask(dataset))
    absent = [name for name, count in zip(dataset.classes, counts) if not count]
    undefined = "undefined (0)" if metric == "visual_genome" else "undefined (-)"
    if not counts.any():
        ignored = f"; its {len(dataset.boxes)} objects are crowd regions or difficult" if len(dataset.boxes) else ""
        return f"{dataset.name} has no object to be found{ignored}: AP is {undefined}. Evaluate on annotated images"
    if not absent:
        return ""
    effect = "it counts as 0 in AP" if metric == "visual_genome" else "not part of the means over classes"
    return f"no object of class {shorten(absent, MAX_CLASSES)} in {dataset.name}: {effect}"


def limit_note(detections: Detections, dataset: Dataset, ap: float) -> str:
    """Returns a sentence about objects and detections that COCO's AP does not look at."""
    beyond = beyond_limit(detections, dataset)
    if not beyond.objects and not beyond.detections:
        return ""
    text = f"COCO's AP looks at the best {MAX_DETECTIONS} detections of a class in an image"
    if beyond.objects:
        text += (f"; {beyond.images} of {len(dataset)} images have more objects of a class, so that {beyond.objects} "
                 f"of {len(dataset.boxes)} objects cannot be found")
    if beyond.detections:
        unlimited = coco_ap(detections, dataset, beyond.most_detections)
        text += (f"; {beyond.detections} of {len(detections)} detections were not looked at. AP is {ap:.4f}, and would "
                 f"be {unlimited:.4f} with all detections")
    return text


def max_detections_note(dataset: Dataset, max_detections: int) -> str:
    """Returns a sentence about images with more objects than the detector keeps detections."""
    objects = np.bincount(dataset.image_of_box()[~ignored_object_mask(dataset)], minlength=len(dataset))
    images = int((objects > max_detections).sum())
    if not images:
        return ""
    hidden = int(np.maximum(objects - max_detections, 0).sum())
    return (f"{images} of {len(dataset)} images have more than evaluate.max_detections={max_detections} objects, so "
            f"that {hidden} objects cannot be found; set evaluate.max_detections={int(objects.max())}")


def image_notes(evaluation: Evaluation) -> list[str]:
    """Returns a sentence about images whose outputs were not finite, and one about images that could not be read."""
    notes = [not_finite_note(evaluation.not_finite, evaluation.images),
             unreadable_note(evaluation.unreadable, evaluation.images)]
    return [note for note in notes if note]


def not_finite_note(not_finite: int, images: int) -> str:
    """Returns a sentence about images for which the network's outputs were not finite; "" if there were none."""
    if not not_finite:
        return ""
    return (f"the network's outputs are infinite or NaN in the batches of {not_finite} of {images} images, whose "
            "detections are missing or without meaning: the weights have diverged or are damaged, or "
            "run.precision=fp16 overflows. Evaluate an earlier checkpoint, or with run.precision=fp32")


def unreadable_note(unreadable: tuple[str, ...], images: int) -> str:
    """Returns a sentence about images that were replaced by grey ones; "" if there were none."""
    if not unreadable:
        return ""
    return (f"{len(unreadable)} of {images} images could not be read: their objects count as missed. First: "
            + shorten(list(unreadable), MAX_IMAGES, "; "))
