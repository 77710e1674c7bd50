"""Fleet R-CNN's detector: data, model, training and evaluation. This package does not depend on Slurm or the launcher.

The functions below are the public Python API; what they return is documented where it is defined.

    from detector import load_config, train, load
    config = load_config("custom/bccd", ["data.root=/data/bccd"])
    train(config)
    detections = load("runs/bccd")("photo.jpg", score=0.5)

Importing the package does not import torch; each function imports what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detector.config.load import load_config
from detector.config.names import named_run
from detector.errors import BadInput

if TYPE_CHECKING:
    import os

    from detector.config.schema import Config, Data
    from detector.distributed.stop_signal import StopRequest
    from detector.evaluation.scoring import Evaluation
    from detector.inference.predictor import Predictor
    from detector.model.faster_rcnn import Detector
    from detector.structures import Dataset, Detections
    from detector.training.loop import Outcome

__version__ = "0.6.0"
__all__ = ["BadInput", "build_model", "coco_metrics", "evaluate", "load", "load_config", "read_dataset", "train"]


def train(config: Config, stop: StopRequest | None = None) -> Outcome:
    """Trains a config, or resumes its run from the newest checkpoint in its run folder.

    Works in a plain interpreter or notebook, as one process, and in every rank that torchrun starts (collective). Reads
    RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; without them no process group is opened.

    With run.num_workers > 0, a script must call this below `if __name__ == "__main__":`, as always where worker
    processes are started.

    Args:
        stop: a StopRequest that was entered as a context: SIGTERM, Ctrl-C and others then stop the training early, with
            everything saved. Without it, signal handlers are left as they are.

    Returns:
        Outcome.FINISHED, or Outcome.STOPPED if a stop was requested.

    Raises:
        BadInput: an error that the user can fix; on all ranks.
        detector.errors.NotFinite: the loss became infinite or NaN; on all ranks.
    """
    from detector.config.load import run_folder
    from detector.data.workers import worker_context
    if config.run.num_workers:
        worker_context()  # its server imports torch in parallel with this process
    from detector.distributed.process_group import process_group
    from detector.distributed.stop_signal import StopRequest
    from detector.run.files import HEARTBEATS_FOLDER
    from detector.training import loop
    with process_group(config.run.device, config.run.timeout_minutes, run_folder(config) / HEARTBEATS_FOLDER) as device:
        return loop.train(config, device, stop or StopRequest())


def evaluate(run: str | os.PathLike, overrides: Sequence[str] = (), checkpoint: str = "best") -> Evaluation | None:
    """Evaluates a checkpoint of a run on its validation data, and writes nothing.

    One process, or every rank that torchrun starts (collective), as in `train`.

    Args:
        run: the run folder, or its name below runs/.
        overrides: `key=value` options over those of the run, such as ["evaluate.score_thresh=0.01"].
        checkpoint: best, last, or a file.

    Returns:
        The metrics, in all and by class; None on ranks other than 0.

    Raises:
        BadInput: no such run or checkpoint, or its data cannot be read.
    """
    from detector.evaluation.evaluate_run import evaluate_checkpoint
    result = evaluate_checkpoint(named_run(str(run)), list(overrides), checkpoint)
    return result.evaluation if result else None


def load(run: str | os.PathLike, checkpoint: str = "", device: str = "auto", config: str = "") -> Predictor:
    """Returns a trained detector, to be called with images: `load("runs/bccd")("photo.jpg", score=0.5)`.

    Args:
        run: a run folder, its name below runs/, or a checkpoint of a run; "coco" or "coco:BUILDER" for torchvision's
            detectors trained on COCO, such as "coco:fasterrcnn_mobilenet_v3_large_fpn"; or another file of weights,
            with its `config`.
        checkpoint: of a run folder: best, last, or a file; empty: best.
        device: auto, cpu or cuda.
        config: the config that a file of weights belongs to: a row of the tables, a shipped config or a YAML file.

    Raises:
        BadInput: no such detector, checkpoint or device; or weights that cannot be downloaded or do not fit.
    """
    from detector.inference.predictor import load_predictor
    return load_predictor(str(run), checkpoint, device, config)


def read_dataset(config: Data, splits: str | Sequence[str] = "train", seed: int = 0) -> Dataset:
    """Returns images and annotations as arrays, with boxes and duplicates fixed as the options say.

    Args:
        config: the section `data` of a config.
        splits: "train" or "val" for the splits that `data.train` or `data.val` name, with the classes that a model
            trained on this config has; else names of splits or annotation files, with their own classes.
        seed: of the config, which decides the images that `data.val` as a share holds out.

    Raises:
        BadInput: a missing folder, unreadable annotations or an empty data set.
    """
    from detector.data.read import read_splits, read_train, read_val
    if splits not in ("train", "val"):
        return read_splits(config, (splits,) if isinstance(splits, str) else tuple(splits))
    train_data = read_train(config, seed)
    return train_data if splits == "train" else read_val(config, train_data.classes, seed)


def build_model(config: Config, num_classes: int) -> Detector:
    """Returns a detector with random weights, on the CPU.

    Args:
        num_classes: classes of objects, without the background.

    Returns:
        A torch module: called with images and targets it returns the losses by name; `predict` returns detections.
    """
    from detector.model import faster_rcnn
    return faster_rcnn.build_model(config.model, config.evaluate, num_classes)


def coco_metrics(detections: Detections, dataset: Dataset) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Returns COCO's twelve metrics, 0 ... 1, and AP, AP50, AP75, APs, APm and APl of each class; -1: no such object.

    Args:
        detections: boxes in pixels of the original images; labels 1 ... C as in `dataset.classes`.
    """
    from detector.metrics import coco
    return coco.coco_metrics(detections, dataset)
