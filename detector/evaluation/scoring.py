"""Scores predictions: detections and ground truth to an Evaluation.

This module needs neither the model nor the other ranks, so that scoring can run in a process of its own beside the
training steps.
"""

import math
import time
from dataclasses import dataclass

import numpy as np

from detector.config.schema import Evaluate
from detector.errors import BadInput
from detector.metrics import coco_kernel
from detector.metrics.coco import coco_metrics
from detector.metrics.visual_genome import visual_genome_metrics
from detector.metrics.voc import voc_metrics
from detector.structures import Dataset, Detections

METRIC_FUNCTIONS = {"coco": coco_metrics, "voc": voc_metrics, "visual_genome": visual_genome_metrics}


@dataclass(frozen=True)
class Predictions:
    """The predictions of all ranks."""

    step: int                    # training step of the model's weights
    detections: Detections       # ordered by image id
    losses: list[dict]           # of each batch: {"batch": its number, "images": how many, "losses": {name: value}}
    indices: np.ndarray          # int64 [I], indices of the images that were predicted
    unreadable: tuple[str, ...]  # messages of images that could not be decoded and were replaced by grey ones
    elapsed_s: float             # of predicting
    peak_memory_gib: float       # of rank 0: its GPU's memory, or on a CPU its process's
    not_finite: int = 0          # images in whose batches the network's outputs were not finite


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation; results.json holds these fields."""

    step: int                               # training step of the model's weights
    metrics: dict[str, float]               # by name, with the means of the losses if they were computed
    per_class: dict[str, dict[str, float]]  # by name of the class
    images: int
    images_per_s: float                     # of predicting, over all ranks
    elapsed_s: float                        # of predicting and scoring
    peak_memory_gib: float                  # of rank 0: its GPU's memory, or on a CPU its process's
    unreadable: tuple[str, ...]             # see Predictions.unreadable
    not_finite: int = 0                     # see Predictions.not_finite


def prepare_ground_truth(dataset: Dataset, metric: str) -> coco_kernel.IndexedGroundTruth | None:
    """Returns what `score` can use again and again for one data set; None if the metric needs no preparation."""
    return coco_kernel.index_ground_truth(dataset) if metric == "coco" else None


def score(predictions: Predictions, dataset: Dataset, config: Evaluate,
          ground_truth: coco_kernel.IndexedGroundTruth | None = None) -> Evaluation:
    """Returns the evaluation of `predictions`.

    The metrics are NaN if the network's outputs were finite for no image.

    Args:
        ground_truth: prepare_ground_truth(dataset, config.metric), if it exists already.

    Raises:
        BadInput: no image could be read: the metrics would be those of grey images.
        AssertionError: an image of the data set was predicted twice or not at all.
    """
    started_at = time.monotonic()
    assert np.array_equal(np.sort(predictions.indices), np.arange(len(dataset))), \
        "an image was evaluated twice, or never"
    if 0 < len(dataset) <= len(predictions.unreadable):
        raise BadInput(f"none of the {len(dataset)} images of {dataset.name} could be read: there is nothing to "
                       f"evaluate. First: {predictions.unreadable[0]}. Set data.root and data.images to folders that "
                       "hold the images")
    prepared = {"ground_truth": ground_truth} if ground_truth else {}
    metrics, per_class = METRIC_FUNCTIONS[config.metric](predictions.detections, dataset, **prepared)
    if predictions.not_finite >= len(dataset) > 0:  # the detections, if there are any, mean nothing
        metrics = dict.fromkeys(metrics, math.nan)
    return Evaluation(predictions.step, metrics | loss_means(predictions.losses), per_class, len(dataset),
                      len(dataset) / predictions.elapsed_s, predictions.elapsed_s + time.monotonic() - started_at,
                      predictions.peak_memory_gib, predictions.unreadable, predictions.not_finite)


def loss_means(losses: list[dict]) -> dict[str, float]:
    """Returns the mean of each loss over the images, and "loss", their sum; {} if no loss was computed.

    Args:
        losses: see Predictions.losses; all batches have the same names.
    """
    if not losses:
        return {}
    names = list(losses[0]["losses"])
    values = np.array([[batch["losses"][name] for name in names] for batch in losses], np.float64)
    means = np.average(values, axis=0, weights=[batch["images"] for batch in losses])
    return {"loss": float(means.sum()), **dict(zip(names, map(float, means)))}
