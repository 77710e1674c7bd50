"""Loading a detector: from a run folder, a checkpoint, a file of weights, or by the name of one of torchvision's."""

import os
from pathlib import Path

import torch

from detector.config.load import from_dict
from detector.config.names import named_run, no_such_run
from detector.config.options import fill_auto
from detector.config.schema import Config
from detector.errors import BadInput, shorten
from detector.inference.weights_file import COCO, WEIGHT_SUFFIXES, is_coco_name, named_detector, open_weights
from detector.model.faster_rcnn import Detector, build_model, to_device_and_layout
from detector.run.checkpoint_files import best_path, names_not_finite, read_checkpoint, step_files, whole_beside
from detector.run.files import CHECKPOINTS_FOLDER

LAST = "last.pt"  # the name of the newest checkpoint in other programs


def find_checkpoint(run: str, checkpoint: str = "") -> Path:
    """Returns the path of a checkpoint.

    Args:
        run: the run folder.
        checkpoint: best or empty (the newest checkpoint if there has been no evaluation yet), last, or a file, by its
            path or by its name in the run folder.

    Raises:
        BadInput: there is no such run folder, or no checkpoint in it.
    """
    folder = Path(named_run(run))
    if checkpoint not in ("", "best", "last"):
        for path in (Path(checkpoint).expanduser(), folder / CHECKPOINTS_FOLDER / checkpoint):
            if path.is_file():
                return path
    if not folder.is_dir():
        raise no_such_run(run)
    best, steps = best_path(folder), step_files(folder)
    if checkpoint not in ("", "best", "last", LAST):
        present = [path.name for path in (best, *steps) if path.is_file()]
        raise BadInput(f"no such checkpoint: {checkpoint}. " + (
            f"In {folder / CHECKPOINTS_FOLDER}: {shorten(present)}. Name one of them, best, or last, or the path of a "
            "file" if present else f"There is none in {folder / CHECKPOINTS_FOLDER}: has this run trained?"))
    if checkpoint not in ("last", LAST) and best.is_file():
        return best
    if not steps:
        raise BadInput(f"no checkpoint in {folder / CHECKPOINTS_FOLDER}: has this run trained?")
    return steps[0]


def load_detector(path: Path, device: torch.device,
                  config: Config | None = None) -> tuple[Detector, Config, tuple[str, ...], int]:
    """Loads the detector of a checkpoint in evaluation mode; its averaged weights (EMA) if the checkpoint has them.

    Args:
        config: how to evaluate; None: as stored in the checkpoint. The model is always built as stored.

    Returns:
        model, config, class names, step

    Raises:
        BadInput: the checkpoint is damaged, or its weights are not finite. No other one is taken in its place: the
            message names those that can be.
    """
    try:
        content = read_checkpoint(path)
    except BadInput as error:
        raise BadInput(f"{error}. {describe_others(path)}") from error
    weights = content["ema"] or content["model"]
    names = names_not_finite(weights)
    if names:
        raise BadInput(f"{path}: the weights {shorten(names)} are not finite: the training had diverged at step "
                       f"{content['step']}. {describe_others(path)}")
    stored = from_dict(content["config"], f"config in {path}")
    config = fill_auto(config, stored) if config else stored
    model = build_model(stored.model, config.evaluate, len(content["classes"]))
    model.load_state_dict(weights)
    model = to_device_and_layout(model, config.run.channels_last, device).eval()
    return model, config, tuple(content["classes"]), content["step"]


def open_detector(name: str, checkpoint: str, device: torch.device,
                  config_name: str = "") -> tuple[Detector, Config, tuple[str, ...], int]:
    """Loads a detector by its name, in evaluation mode.

    Args:
        name: a run, by folder or name; a checkpoint of a run; `coco` or `coco:BUILDER`, torchvision's detectors;
            or another file of weights, which needs `config_name`.
        checkpoint: of a run folder, see find_checkpoint; other detectors have none, and it is empty.
        config_name: the config that a file of weights belongs to: a row of the tables, a shipped config or a file.

    Returns:
        model, config, class names, step; the step is 0 where there is no run.

    Raises:
        BadInput: there is no such detector, or its weights cannot be read or do not fit.
    """
    name = named_detector(name)
    is_file = os.path.isfile(os.path.expanduser(name)) or name.endswith(WEIGHT_SUFFIXES) and not os.path.isdir(name)
    if checkpoint and (is_file or is_coco_name(name)):
        raise BadInput(f"--checkpoint {checkpoint}: is of a run folder, and {name} is none; leave --checkpoint out")
    if is_coco_name(name) or is_file and config_name:
        detector = open_weights(name, config_name)
        model = to_device_and_layout(detector.model, detector.config.run.channels_last, device).eval()
        return model, detector.config, detector.classes, 0
    if config_name:
        raise BadInput(f"--config {config_name}: {name} is a run folder, which has a config of its own; leave --config "
                       "out" if os.path.isdir(name) else f"no such file of weights: {name}")
    if not is_file and not os.path.isdir(name):
        raise BadInput(f"{no_such_run(name)}; {COCO} is a detector that needs no run")
    if not is_file:
        return load_detector(find_checkpoint(name, checkpoint), device)
    try:
        return load_detector(Path(name).expanduser(), device)
    except BadInput as error:
        if error.mistakes:  # of the config in a checkpoint
            raise
        raise BadInput(f"{error}. Weights of another program need the config that they belong to: --config "
                       "coco/resnet50_fpn, or another of configs/") from error


def describe_others(path: Path) -> str:
    """Returns what can be done instead where a checkpoint cannot be used."""
    others = whole_beside(path)
    if not others:
        return "Restore it from a copy, or train again"
    return "Name another one, such as --checkpoint " + shorten([str(other) for other in others], 3, " or ")
