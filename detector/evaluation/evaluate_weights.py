"""Weights from elsewhere, such as the original's released checkpoints, scored with the recipe of a table's row."""

from dataclasses import replace
from pathlib import Path

from detector.config.load import find_config, load_config, run_folder, to_yaml
from detector.config.schema import Config
from detector.data.read import describe, read_splits, relabel, resolve_classes
from detector.distributed import collectives, process_group
from detector.errors import BadInput
from detector.evaluation.evaluate import evaluate
from detector.evaluation.scoring import format_metrics, write_results
from detector.model.faster_rcnn import build_model, placed
from detector.model.weights.files import read_weights
from detector.model.weights.load import load_weights
from detector.run.files import write_whole


def evaluate_weights(weights: str, recipe: str, overrides: list[str]) -> None:
    """Prints the metrics of a file of weights on the validation data of a config or a table's row, and writes
    results.json and detections.json into a run folder of their own. Refuses a file that leaves a part of the model
    without weights."""
    config = config_for(weights, recipe, overrides)
    with process_group.process_group(config.run.device, config.run.timeout_minutes) as device:
        val = read_splits(config.data, config.data.val)
        classes = resolve_classes(config.data, val)
        val = relabel(val, classes, strict=not config.data.classes)
        model = build_model(config.model, config.evaluate, len(classes))
        report = collectives.run_on_local_main_first(lambda: load_weights(model, config.model, classes))
        if report.fresh:
            raise BadInput(f"{weights} does not fill {len(report.fresh)} tensors of {config.model.backbone} with "
                           f"{len(classes)} classes; they would be random: {', '.join(report.fresh[:10])}. {report}. "
                           "Name the row that it was trained with, or set the options that differ")
        model = placed(model, config.run.channels_last, device).eval()
        evaluation, detections, _ = evaluate(model, val, config, device, step=0)

        def tell() -> None:
            folder = run_folder(config)
            write_whole(folder / "config.yaml", to_yaml(config))
            write_results(folder, evaluation, detections, val)
            print(f"{weights}: {report}\non {describe(val)}\n{format_metrics(evaluation.metrics, evaluation.per_class)}\n"
                  f"{evaluation.images_per_s:.1f} images/s; results.json and detections.json are in {folder}")
        collectives.run_on_main(tell)


def config_for(weights: str, recipe: str, overrides: list[str]) -> Config:
    """The row's config with these weights; what the file itself says of its model (pooling, class-agnostic boxes)
    holds, unless an override says otherwise."""
    if not Path(weights).expanduser().is_file():
        raise BadInput(f"no such file of weights: {weights}")
    try:
        name = str(find_config(f"tables/{recipe}"))
    except BadInput:
        name = recipe
    config = load_config(name, [*overrides, f"model.weights={weights}"])
    if not config.data.val:
        raise BadInput("data.val=[]: there is nothing to evaluate on; name a split, such as data.val=val")
    said = {word.partition("=")[0] for word in overrides}
    stored = {key: value for key, value in read_weights(weights).settings.items() if f"model.{key}" not in said}
    run = config.run if "run.name" in said else replace(config.run, name=f"{config.run.name}-{Path(weights).stem}")
    return replace(config, model=replace(config.model, **stored), run=run)
