"""The verb evaluate: evaluates a checkpoint of a run, and writes the results into the run folder or below it."""

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch

from detector.config.load import load_config, to_dict, to_yaml
from detector.config.options import replace_options
from detector.config.parsing import to_plain
from detector.config.schema import Config, Data
from detector.config.sections import flatten
from detector.data.formats import find_format
from detector.data.read import describe, read_part, read_val, relative_paths
from detector.data.review import note_shared, shared_paths
from detector.data.split import val_share
from detector.distributed import collectives, rank_info
from detector.distributed.process_group import process_group
from detector.errors import BadInput
from detector.evaluation.evaluate import evaluate, never
from detector.evaluation.notes import evaluation_notes, image_notes
from detector.evaluation.record_folder import changed_options, record_folder
from detector.evaluation.results import read_results, write_results
from detector.evaluation.scoring import Evaluation
from detector.inference.load_detector import find_checkpoint, load_detector
from detector.loggers.metric_tables import evaluated_metrics
from detector.loggers.terminal import show
from detector.metrics.analysis import Analysis, analyse, describe_errors
from detector.report.report import PageInfo, write_evaluation_report
from detector.run import files
from detector.run.files import to_json, write_whole
from detector.structures import Dataset, Detections

CHECKPOINT = "checkpoint"  # beside changed options: an evaluation of another checkpoint than the best
# Sections and options that an evaluation does not use; its classes are those of the checkpoint.
OF_TRAINING = ("model.", "optim.", "schedule.", "augment.", "batch.", "data.classes")


@dataclass(frozen=True)
class CheckpointEvaluation:
    """The evaluation of a checkpoint. On ranks other than 0, `evaluation` and `analysis` are None."""

    checkpoint: Path
    config: Config
    dataset: Dataset        # the validation images
    detections: Detections
    evaluation: Evaluation | None
    analysis: Analysis | None


def evaluate_checkpoint(run: str, overrides: list[str], checkpoint: str = "best",
                        stop_requested: Callable[[], bool] = never) -> CheckpointEvaluation | None:
    """Evaluates a checkpoint of a run on its validation data, in this process or on all ranks of torchrun.

    Args:
        run: the run folder.
        overrides: options that differ from the run's config, such as "evaluate.metric=voc".
        checkpoint: best, last, or the path of a checkpoint file.

    Returns:
        The evaluation; or None if a stop was requested on any rank. Nothing is written.

    Raises:
        BadInput: there is no such run or checkpoint, or the data cannot be read.
    """
    path, config, changes = open_run(run, overrides, checkpoint)
    with process_group(config.run.device, config.run.timeout_minutes) as device:
        return evaluate_file(path, config, device, stop_requested, held_out_in(run, changes))


def open_run(run: str, overrides: list[str], checkpoint: str) -> tuple[Path, Config, dict[str, object]]:
    """Returns the checkpoint file, the config of the evaluation, and what differs from the run's own record.

    These are the options that change what is measured, and another checkpoint, see `other_checkpoint`.

    Raises:
        BadInput: there is no such run or checkpoint, or an override has no effect on an evaluation.
    """
    config_file = str(Path(run) / files.CONFIG_FILE)
    path = find_checkpoint(run, checkpoint)
    stored, config = load_config(config_file, []), load_config(config_file, overrides)
    before, after = flatten(to_dict(stored)), flatten(to_dict(config))
    useless = [key for key in after if key.startswith(OF_TRAINING) and after[key] != before[key]]
    if useless:
        classes = f". The metrics of each class are in {files.RESULTS_FILE}" if "data.classes" in useless else ""
        raise BadInput(f"{', '.join(useless)}: no effect on an evaluation, which takes the model as it was trained. "
                       f"Leave it out{classes}")
    other = other_checkpoint(run, checkpoint, path)
    changes = changed_options(stored, config)
    if "data.root" in changes and "data.format" not in changes and not is_readable(config.data):
        config = replace_options(config, {"data.format": "auto"})
        changes = changed_options(stored, config)
    return path, config, {**changes, **other}


def other_checkpoint(run: str, checkpoint: str, path: Path) -> dict[str, object]:
    """Returns {CHECKPOINT: last or the file} for another checkpoint than that of the run's own record; {} for this one.

    best.pt is a hard link of the checkpoint of its step, so that both are one file.

    Args:
        checkpoint, path: as it was named, and its file; see `find_checkpoint`.
    """
    try:
        if find_checkpoint(run).samefile(path):
            return {}
    except (BadInput, OSError):  # the run has no checkpoint, and this one is another run's; or there is no such file
        pass
    return {CHECKPOINT: checkpoint if checkpoint == "last" else str(path.resolve())}


def is_readable(config: Data) -> bool:
    """Returns whether the splits of data.val are there in the layout data.format."""
    try:
        for split in config.val if val_share(config.val) is None else config.train:
            find_format(config.format).sources(os.path.expanduser(config.root), split)
        return True
    except BadInput:
        return False


def held_out_in(run: str, changes: dict[str, object]) -> Path | None:
    """Returns the run folder, whose list of held-out images counts; None where other options hold out other images."""
    return None if {"data.train", "data.val", "seed"} & changes.keys() else Path(run)


def evaluate_file(path: Path, config: Config, device: torch.device, stop_requested: Callable[[], bool],
                  run: Path | None) -> CheckpointEvaluation | None:
    """Evaluates a checkpoint file and analyses its errors. Collective; None if a stop was requested on any rank.

    Args:
        run: the folder whose held-out images are evaluated where data.val is a share, see data/read.py.
    """
    model, config, classes, step = collectives.run_on_all_ranks(lambda: load_detector(path, device, config))
    dataset = read_val(config.data, classes, config.seed, run)
    result = evaluate(model, dataset, config, device, step, stop_requested)
    if result is None:
        return None
    evaluation, detections = result
    analysis = collectives.run_on_all_ranks(
        lambda: analyse(detections, dataset, config.evaluate.metric) if rank_info.is_main() else None)
    return CheckpointEvaluation(path, config, dataset, detections, evaluation, analysis)


def evaluate_run(run: str, overrides: list[str], checkpoint: str, stop_requested: Callable[[], bool] = never,
                 report: bool = False, as_json: bool = False) -> bool:
    """Evaluates a checkpoint, prints the metrics and writes results.json and detections.json.

    They are the run's record, in its folder. With overrides that change what is measured (see record_folder.MEASURED),
    and of another checkpoint than the best, they are written into a folder of their own below it, beside the config.

    Args:
        run, overrides, checkpoint: see `evaluate_checkpoint`.
        report: also write report.html, into the same folder.
        as_json: print the content of results.json with the folder and the notes, as one JSON object, instead.

    Returns:
        False if a stop was requested on any rank; nothing is written then.
    """
    path, config, changes = open_run(run, overrides, checkpoint)
    with process_group(config.run.device, config.run.timeout_minutes) as device:
        result = evaluate_file(path, config, device, stop_requested, held_out_in(run, changes))
        if result is None:
            return False
        trained_on = trained_images(run, result.dataset) if changes.keys() - {CHECKPOINT} else []
        collectives.run_on_main(lambda: write_and_print(Path(run), result, changes, report, trained_on, as_json))
        return True


def trained_images(run: str, dataset: Dataset) -> list[str]:
    """Returns a note on images that the run was trained on; [] without any, or if its data is gone. Collective."""
    config = load_config(str(Path(run) / files.CONFIG_FILE), [])
    try:
        train = read_part(config.data, "train", config.seed, Path(run))
    except BadInput:
        return []
    return note_shared(train, dataset, shared_paths(train, dataset), "by path")


def write_and_print(run: Path, result: CheckpointEvaluation, changes: dict[str, object], report: bool,
                    trained_on: list[str], as_json: bool = False) -> None:
    """Writes the files of an evaluation and prints its metrics.

    Args:
        changes: see `open_run`.
        trained_on: see `trained_images`.
        as_json: see `evaluate_run`.

    Raises:
        BadInput: the files cannot be written. The metrics were printed, except as JSON.
    """
    evaluation, analysis, config = result.evaluation, result.analysis, result.config
    assert evaluation is not None and analysis is not None  # this is rank 0
    folder, page, refusal = record_folder(run, changes), [], None
    try:
        page = write_files(run, folder, result, changes, report)
    except OSError as error:
        refusal = BadInput(f"{error.filename or folder}: {error.strerror}: the results are not written. Free space on "
                           "its disk, or copy the run to a folder that this user can write, and evaluate it there")
    notes = [*image_notes(evaluation), *result.dataset.warnings, *trained_on,
             *evaluation_notes(result.detections, result.dataset, config.evaluate.metric, evaluation.metrics["AP"],
                               config.evaluate.max_detections)]
    if as_json and not refusal:
        print(to_json({"run": str(run), "folder": str(folder), "notes": notes,
                       **read_results(str(folder))}, 1))
    elif not as_json:
        files_text = "" if refusal else f"; {files.RESULTS_FILE} and {files.DETECTIONS_FILE} are in {folder}" + (
            f"; those in {run} stay: this evaluation has other values of {', '.join(changes)}" if changes else "")
        show(f"{result.checkpoint}, step {evaluation.step}, on {describe(result.dataset)}",
             evaluated_metrics(evaluation.metrics, analysis.per_class), "", describe_errors(analysis),
             *(f"note: {note}" for note in notes), f"{evaluation.images_per_s:.1f} images/s{files_text}", *page)
    if refusal:
        raise refusal


def write_files(run: Path, folder: Path, result: CheckpointEvaluation, changes: dict[str, object],
                report: bool) -> list[str]:
    """Writes the files of an evaluation into `folder`; returns a sentence about the report, if there is one."""
    evaluation, config = result.evaluation, result.config
    assert evaluation is not None
    if folder != run:
        write_whole(folder / files.CONFIG_FILE, to_yaml(config))
        if val_share(config.data.val):
            write_whole(folder / files.HELD_OUT_FILE, json.dumps(relative_paths(result.dataset)))
    write_results(folder, evaluation, result.detections, result.dataset, config.evaluate.metric,
                  str(result.checkpoint), [f"{key}={value}" for key, value in changes.items()])
    return [write_report(run, folder, result, changes)] if report else []


def write_report(run: Path, folder: Path, result: CheckpointEvaluation, changes: dict[str, object]) -> str:
    """Writes report.html into `folder`; returns a sentence about it. `changes`: see `write_and_print`."""
    evaluation, analysis, config, dataset = result.evaluation, result.analysis, result.config, result.dataset
    assert evaluation is not None and analysis is not None
    facts = (f"{config.model.backbone}, step {evaluation.step}", describe(dataset), *dataset.warnings,
             *image_notes(evaluation))
    overrides = "".join((f" --{key} " if key == CHECKPOINT else f" {key}=") + shlex.quote(str(to_plain(value)))
                        for key, value in changes.items())
    info = PageInfo(f"{run.resolve().name}: {dataset.name}", facts, f"fleet-rcnn evaluate {run}{overrides} --report",
                    config.evaluate.nms_thresh, "coco" if config.evaluate.metric == "coco" else "voc")
    return write_evaluation_report(folder / files.REPORT_FILE, info, dataset, result.detections, analysis,
                                   evaluation.metrics)
