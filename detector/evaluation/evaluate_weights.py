"""Evaluates a file of weights, such as a released checkpoint of jwyang/faster-rcnn.pytorch, without a run folder."""

from dataclasses import replace
from pathlib import Path

from detector.config.load import apply_override, run_folder, to_yaml
from detector.config.schema import Config
from detector.config.sections import flatten
from detector.data.classes import relabel, resolve_classes
from detector.data.read import describe, read_part
from detector.distributed import collectives
from detector.distributed.process_group import process_group
from detector.errors import BadInput
from detector.evaluation.evaluate import evaluate
from detector.evaluation.notes import evaluation_notes, image_notes
from detector.evaluation.results import write_results
from detector.inference.weights_file import build_from_weights, config_with_weights
from detector.loggers.metric_tables import evaluated_metrics
from detector.loggers.terminal import show
from detector.model.faster_rcnn import to_device_and_layout
from detector.run import files
from detector.run.files import write_whole


def evaluate_weights(weights: str, recipe: str, overrides: list[str]) -> None:
    """Evaluates a file of weights; prints the metrics and writes config.yaml, results.json and detections.json.

    The files are written into a run folder of their own, whose name ends in that of the weights. The classes are those
    of the validation data.

    Args:
        weights: path of the file.
        recipe: a row of the tables, or a config: model and validation data.
        overrides: options that differ from the recipe.

    Raises:
        BadInput: there is no such file or recipe, or the file leaves a part of the model without weights.
    """
    config = config_for_weights(weights, recipe, overrides)
    with process_group(config.run.device, config.run.timeout_minutes) as device:
        dataset = read_part(config.data, "val", config.seed)
        classes = resolve_classes(config.data, dataset)
        dataset = relabel(dataset, classes, strict=not config.data.classes)
        detector = collectives.run_on_local_main_first(lambda: build_from_weights(config, classes))
        model = to_device_and_layout(detector.model, config.run.channels_last, device).eval()
        evaluation, detections = evaluate(model, dataset, config, device, step=0)

        def write_and_print() -> None:
            folder = run_folder(config)
            write_whole(folder / files.CONFIG_FILE, to_yaml(config))
            write_results(folder, evaluation, detections, dataset, config.evaluate.metric, weights, overrides)
            notes = [*image_notes(evaluation), *dataset.warnings, *evaluation_notes(
                detections, dataset, config.evaluate.metric, evaluation.metrics["AP"], config.evaluate.max_detections)]
            show(
                f"{weights}: {detector.report}", f"on {describe(dataset)}",
                evaluated_metrics(evaluation.metrics, evaluation.per_class), *(f"note: {note}" for note in notes),
                f"{evaluation.images_per_s:.1f} images/s; {files.RESULTS_FILE} and {files.DETECTIONS_FILE} are in "
                f"{folder}")
        collectives.run_on_main(write_and_print)


def config_for_weights(weights: str, recipe: str, overrides: list[str]) -> Config:
    """Returns the config of a recipe with these weights and a run name of its own.

    Settings of the model that the file of weights stores, such as its RoI pooling, replace those of the recipe; an
    override replaces both.

    Raises:
        BadInput: there is no such file or recipe, or the recipe has no validation data.
    """
    overridden = overridden_options(overrides)
    config = config_with_weights(weights, recipe, overrides, overridden)
    if not config.data.val:
        raise BadInput("data.val=[]: there is nothing to evaluate on; name a split, such as data.val=val")
    if "run.name" in overridden:
        return config
    return replace(config, run=replace(config.run, name=f"{config.run.name}-{Path(weights).stem}"))


def overridden_options(overrides: list[str]) -> frozenset[str]:
    """Returns the paths of the options that overrides set, by their names of today."""
    tree = {}
    for override in overrides:
        apply_override(tree, override)
    return frozenset(flatten(tree))
