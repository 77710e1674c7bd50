"""The verb compare: the difference in AP between two runs on the same images, with confidence intervals."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from detector.config.load import load_config
from detector.config.names import no_such_run
from detector.config.schema import Config
from detector.data.read import describe, read_val
from detector.data.split import val_share
from detector.errors import BadInput
from detector.evaluation.detections_file import read_detections
from detector.evaluation.notes import empty_class_note, unreadable_note
from detector.evaluation.results import evaluated_classes, read_results
from detector.metrics.bootstrap import (
    APDifference,
    ap_difference,
    bootstrap_class_aps,
    bootstrap_draws,
    match_by_class,
    mean_over_classes,
)
from detector.metrics.coco_params import AREA_RANGES
from detector.metrics.matching import ignored_object_mask
from detector.run import files
from detector.run.files import to_json
from detector.structures import Dataset, Detections

MIN_RESAMPLES = 20  # with fewer draws the ends of the interval are meaningless


def compare(run_a: str, run_b: str, resamples: int, as_json: bool = False) -> None:
    """Prints AP of both runs and the 95 % interval of their difference: for all objects, by size and by class.

    Reads the detections.json of both runs; no model is needed.

    Args:
        run_a, run_b: run folders that were evaluated, or folders below them that `evaluate RUN key=value` wrote.
        resamples: number of draws of the images, see metrics/bootstrap.py.
        as_json: print one JSON object instead.

    Raises:
        BadInput: a folder has no evaluation, or the runs were evaluated on other images, classes or by another metric;
            or there is no object to be found.
    """
    if resamples < MIN_RESAMPLES:
        raise BadInput(f"--resamples {resamples}: give {MIN_RESAMPLES} or more, or the interval is meaningless")
    configs = [read_config(run) for run in (run_a, run_b)]
    check_comparable(configs, (run_a, run_b))
    dataset = read_val(configs[0].data, evaluated_classes(run_a), configs[0].seed, Path(run_a))
    if ignored_object_mask(dataset).all():
        raise BadInput(f"nothing to compare: {empty_class_note(dataset, configs[0].evaluate.metric)}")
    detections = [read_detections(str(Path(run) / files.DETECTIONS_FILE), dataset) for run in (run_a, run_b)]
    rows = ap_differences(*detections, dataset, configs[0].evaluate.metric, resamples)
    if as_json:
        sides_as_json = {name: side_as_json(run, config) for name, run, config in zip("ab", (run_a, run_b), configs)}
        print(to_json({**sides_as_json, "metric": configs[0].evaluate.metric, "images": len(dataset),
                       "resamples": resamples, "differences": {name: {**asdict(row), "difference": row.b - row.a,
                                              "significant": bool(row.significant)} for name, row in rows.items()}}, 1))
        return
    sides = [f"{name}: {describe_side(run, config)}" for name, run, config in zip("AB", (run_a, run_b), configs)]
    print("\n".join([*sides, f"on {describe(dataset)}; {resamples} draws of the images", format_table(rows), "",
                     summarize_differences(rows)]))


def side_as_json(run: str, config: Config) -> dict:
    """Returns what one side of the comparison is: folder, weights, step and data."""
    record = read_results(run)
    return {"run": run, "checkpoint": record.get("checkpoint"), "step": record.get("step"), "data": record.get("data"),
            "root": config.data.root}


def describe_side(run: str, config: Config) -> str:
    """Returns what one side of the comparison is: the folder, the weights, the data, the metric, unreadable images."""
    record = read_results(run)
    weights = f"{Path(record['checkpoint']).name} of step {record.get('step')}" if record.get("checkpoint") \
        else f"step {record.get('step')}"
    text = f"{run} ({weights}, {record.get('data', '')} in {config.data.root}, metric {config.evaluate.metric})"
    unreadable = record.get("unreadable") or ()
    return text + (f"; {unreadable_note(tuple(unreadable), record.get('images', 0))}" if unreadable else "")


def read_config(run: str) -> Config:
    """Returns the config of a run folder. Raises BadInput if a file that `compare` needs is missing."""
    if not Path(run).is_dir():
        raise no_such_run(run)
    for name in (files.CONFIG_FILE, files.DETECTIONS_FILE, files.RESULTS_FILE):
        if not (Path(run) / name).is_file():
            raise BadInput(f"{run} has no {name}: compare needs two run folders that were evaluated, or folders below "
                           f"them in {files.EVALUATIONS_FOLDER}/; run fleet-rcnn evaluate {run} first")
    return load_config(str(Path(run) / files.CONFIG_FILE), [])


def check_comparable(configs: list[Config], runs: tuple[str, str]) -> None:
    """Raises BadInput if two runs were evaluated on other images, on other classes or by another metric."""
    values = [{"data.format": config.data.format, "data.root": str(Path(config.data.root).resolve()),
               "data.val": list(config.data.val),
               "evaluate.metric": read_results(run).get("metric", config.evaluate.metric),
               **({"data.train": list(config.data.train), "seed": config.seed} if val_share(config.data.val) else {})}
              for run, config in zip(runs, configs)]
    different = [f"{key} is {values[0][key]} and {values[1][key]}" for key in values[0]
                 if key in values[1] and values[0][key] != values[1][key]]
    classes = [evaluated_classes(run) for run in runs]
    if classes[0] != classes[1]:
        different.append(f"classes are {', '.join(classes[0])} and {', '.join(classes[1])}")
    if different:
        raise BadInput("these runs cannot be compared: " + "; ".join(different)
                       + ". Evaluate both on the same images, by the same metric")


def ap_differences(a: Detections, b: Detections, dataset: Dataset, metric: str,
                   resamples: int) -> dict[str, APDifference]:
    """Returns the difference in AP by name: all, small, medium, large, then "class NAME" (of all sizes)."""
    times = bootstrap_draws(len(dataset), resamples)
    by_size: dict[str, APDifference] = {}
    by_class: dict[str, APDifference] = {}
    for size in AREA_RANGES:
        aps_a, aps_b = (bootstrap_class_aps(match_by_class(detections, dataset, metric, size), times, metric)
                        for detections in (a, b))
        by_size[size] = ap_difference(mean_over_classes(aps_a), mean_over_classes(aps_b))
        if size == "all":
            by_class = {f"class {name}": ap_difference(aps_a[:, c], aps_b[:, c])
                        for c, name in enumerate(dataset.classes)}
    return by_size | by_class


def format_table(rows: dict[str, APDifference]) -> str:
    """Returns the table of the differences; an asterisk marks significant ones."""
    lines = [f"{'AP':>26} {'A':>8} {'B':>8} {'B - A':>8}   95 % of draws"]
    for name, row in rows.items():
        if np.isnan(row.b - row.a):
            lines.append(f"{name:>26}        no object")
            continue
        mark = "  *" if row.significant else ""
        lines.append(f"{name:>26} {row.a:8.4f} {row.b:8.4f} {row.b - row.a:+8.4f}   {row.low:+.4f} to {row.high:+.4f}"
                     + mark)
    return "\n".join(lines)


def summarize_differences(rows: dict[str, APDifference]) -> str:
    """Returns one sentence on all objects, and one on how many classes differ significantly."""
    if rows["all"].low > 0:
        result = "B is better"
    elif rows["all"].high < 0:
        result = "A is better"
    else:
        result = "no significant difference: the interval contains zero"
    classes = [row for name, row in rows.items() if name.startswith("class ")]
    significant = sum(row.significant for row in classes)
    return (f"{result}. {significant} of {len(classes)} classes differ significantly (*); of so many classes, about "
            f"{0.05 * len(classes):.1f} would by chance alone")
