"""The process beside the training that scores and draws evaluations, one after the other."""

import os
from dataclasses import dataclass
from pathlib import Path

from detector.config.schema import Config
from detector.data.workers import start_worker
from detector.evaluation.results import write_results
from detector.evaluation.scoring import Evaluation, Predictions, prepare_ground_truth, score
from detector.metrics.analysis import analyse
from detector.metrics.coco_kernel import IndexedGroundTruth
from detector.run.checkpoint_files import checkpoint_path
from detector.structures import Dataset
from detector.visualization.curves_file import write_curves
from detector.visualization.tensorboard_curves import confusion_images, pr_curves
from detector.visualization.validation_images import draw_validation_images

NICE = 10  # added to the niceness of the process: training steps get a core first


@dataclass(frozen=True)
class Drawings:
    """Images and precision-recall curves of an evaluation, for the loggers."""

    step: int
    images: list
    pr_curves: list


@dataclass(frozen=True)
class ScoringJob:
    """The arguments that all evaluations of a run share."""

    dataset: Dataset
    config: Config
    folder: Path
    ground_truth: IndexedGroundTruth | None


_job: ScoringJob | None = None  # set in the scoring process only
_scored: Predictions | None = None  # in the scoring process: the predictions scored last, to be drawn next


def init_process(dataset: Dataset, config: Config, folder: Path) -> None:
    """Prepares the scoring process: it ignores stop signals, ends with the training process, and has low priority."""
    global _job
    start_worker(0)
    os.nice(NICE)
    _job = make_job(dataset, config, folder)


def score_in_process(predictions: Predictions) -> Evaluation:
    global _scored
    _scored = None
    evaluation = score_and_write(_job, predictions)
    _scored = predictions
    return evaluation


def draw_in_process() -> Drawings | None:
    """Returns the drawings of the evaluation scored last; None where scoring failed."""
    return draw(_job, _scored) if _scored is not None else None


def make_job(dataset: Dataset, config: Config, folder: Path) -> ScoringJob:
    return ScoringJob(dataset, config, folder, prepare_ground_truth(dataset, config.evaluate.metric))


def score_and_write(job: ScoringJob, predictions: Predictions) -> Evaluation:
    """Scores an evaluation and writes results.json and detections.json."""
    evaluation = score(predictions, job.dataset, job.config.evaluate, job.ground_truth)
    write_results(job.folder, evaluation, predictions.detections, job.dataset, job.config.evaluate.metric,
                  str(checkpoint_path(job.folder, evaluation.step)), [])
    return evaluation


def draw(job: ScoringJob, predictions: Predictions) -> Drawings:
    """Draws validation images, the confusion matrix and precision-recall curves of an evaluation."""
    detections = predictions.detections
    images = draw_validation_images(job.folder, predictions.step, job.dataset, detections,
                                    job.config.run.num_val_images)
    analysis = analyse(detections, job.dataset, job.config.evaluate.metric, job.ground_truth)
    if job.config.run.plots:
        write_curves(job.folder, predictions.step, analysis)
        images += confusion_images(analysis, predictions.step)
    return Drawings(predictions.step, images, pr_curves(analysis, detections))
