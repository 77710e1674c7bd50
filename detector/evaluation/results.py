"""Writes and reads results.json and detections.json of an evaluation. The latter has COCO's results format."""

import json
from dataclasses import asdict
from pathlib import Path

from detector.errors import BadInput
from detector.evaluation.scoring import Evaluation
from detector.metrics.coco import to_coco_results
from detector.run import files
from detector.run.files import read_json, to_json, write_whole
from detector.run.usage import Cost, read_cost
from detector.structures import Dataset, Detections

ROWS_PER_CHUNK = 1000   # detections that are converted to JSON at once; between chunks other threads can run


def write_results(folder: Path, evaluation: Evaluation, detections: Detections, dataset: Dataset, metric: str,
                  checkpoint: str, overrides: list[str]) -> None:
    """Writes results.json and detections.json into `folder`; a metric that is not finite is null.

    Args:
        metric, checkpoint, overrides: how `detections` were evaluated: evaluate.metric, the path of the weights, and
            the options that differ from the run's; stored in results.json.
    """
    rows = to_coco_results(detections, dataset)
    chunks = (json.dumps(rows[first:first + ROWS_PER_CHUNK])[1:-1] for first in range(0, len(rows), ROWS_PER_CHUNK))
    write_whole(folder / files.DETECTIONS_FILE, f"[{', '.join(chunks)}]")
    record = {**asdict(evaluation), "data": dataset.name, "root": dataset.root, "metric": metric,
              "checkpoint": checkpoint, "overrides": overrides}
    cost = read_cost(folder)  # of a run that goes on, the cost so far
    record |= {"cost": cost.as_json()} if cost else {}
    write_whole(folder / files.RESULTS_FILE, to_json(record, indent=1) + "\n")


def write_cost(run: Path, cost: Cost) -> None:
    """Replaces the cost in the run's results.json; does nothing if there was no evaluation."""
    record = read_json(run / files.RESULTS_FILE)
    if record:
        write_whole(run / files.RESULTS_FILE, to_json({**record, "cost": cost.as_json()}, indent=1) + "\n")


def read_results(folder: str) -> dict:
    """Returns the content of results.json, which has the fields of Evaluation and the arguments of write_results.

    In a run folder there is also "cost", with fields of Cost. Files of version 0.2 and before have no root, metric,
    checkpoint and overrides.

    Raises:
        BadInput: the file cannot be read.
    """
    path = Path(folder) / files.RESULTS_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record["per_class"], dict):
            return record
        raise KeyError("per_class")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} cannot be read ({error}): evaluate this run again") from error


def evaluated_classes(folder: str) -> tuple[str, ...]:
    """Returns the classes of an evaluation in the order of their labels. Raises BadInput, see `read_results`."""
    return tuple(read_results(folder)["per_class"])
