"""`fleet-rcnn evaluate --time`: milliseconds of reading, preprocessing, model and postprocessing of one image."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector.config.load import load_config
from detector.config.schema import Config
from detector.data.image_io import read_image
from detector.data.read import describe, read_part
from detector.distributed.collectives import run_on_main
from detector.distributed.process_group import choose_device
from detector.errors import BadInput
from detector.inference.load_detector import find_checkpoint, load_detector
from detector.inference.predictor import predict_batch
from detector.model.faster_rcnn import Detector
from detector.run.environment import collect_environment
from detector.run.files import CONFIG_FILE, write_whole
from detector.structures import Dataset, Resize
from detector.visualization.validation_images import evenly_spaced

STAGES = ("reading", "pre-processing", "model", "post-processing")
WARM_UP, TIMED = 5, 30  # images


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds of one image."""

    median: float
    low: float   # 10th percentile
    high: float  # 90th percentile


def percentiles(seconds: np.ndarray) -> Percentiles:
    """Returns the percentiles of float64 [images] in milliseconds."""
    low, median, high = (1000 * np.quantile(seconds, (0.1, 0.5, 0.9))).tolist()
    return Percentiles(median, low, high)


def measure_latency(run: str, overrides: list[str], checkpoint: str) -> None:
    """Prints a table for each device of this machine that `run.device` allows, and writes timing.json.

    One image at a time, in the precision of `run.precision`, after a warm-up.

    - reading: file to uint8 image
    - pre-processing: copy to the device, normalise, resize, pad
    - model: backbone, RPN with its NMS, RoI heads up to class scores and box deltas
    - post-processing: box decoding, NMS of each class, copy of the boxes to the CPU
    """
    path = find_checkpoint(run, checkpoint)
    config = load_config(str(Path(run) / CONFIG_FILE), overrides)
    data = read_part(config.data, "val" if config.data.val else "train", config.seed, Path(run))
    run_on_main(lambda: measure_devices(Path(run), path, config, data))


def measure_devices(folder: Path, checkpoint: Path, config: Config, data: Dataset) -> None:
    """Measures the CPU, the GPU or both, prints the tables and writes timing.json."""
    kinds = [kind for kind in ("cpu", "cuda") if config.run.device in ("auto", kind)
             and (kind == "cpu" or config.run.device == kind or torch.cuda.is_available())]
    print(f"{checkpoint}, on {describe(data)}; one image at a time, {TIMED} images after {WARM_UP} to warm up"
          + (f"; without evaluate.tta={config.evaluate.tta}" if config.evaluate.tta != "none" else ""))
    devices = {}
    for kind in kinds:
        device = choose_device(kind)
        model, _, _, _ = load_detector(checkpoint, device, config)
        seconds = time_images(model, config, data, device)
        stages = {name: percentiles(seconds[:, column]) for column, name in enumerate(STAGES)}
        stages["all"] = percentiles(seconds.sum(axis=1))
        name = torch.cuda.get_device_name(device) if kind == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        devices[kind] = {"name": name, "milliseconds": {stage: asdict(value) for stage, value in stages.items()}}
        print(format_table(f"{name}, {config.run.precision}", stages))
    content = {"images": TIMED, "precision": config.run.precision, "min_size": config.evaluate.min_size,
               "max_size": config.evaluate.max_size, "devices": devices, "environment": collect_environment()}
    write_whole(folder / "timing.json", json.dumps(content, indent=1) + "\n")


def time_images(model: Detector, config: Config, data: Dataset, device: torch.device) -> np.ndarray:
    """Returns the seconds of each stage, float64 [TIMED, 4]. Raises BadInput where an image cannot be read."""
    paths = [data.path(index) for index in evenly_spaced(len(data), TIMED)]
    resize = Resize(config.evaluate.min_size, config.evaluate.max_size)
    rows = []
    for number in range(WARM_UP + TIMED):
        started_at = time.perf_counter()
        try:
            image = read_image(paths[number % len(paths)])
        except BadInput as error:
            raise BadInput(f"cannot measure the latency: {error}") from error
        read_s = time.perf_counter() - started_at
        rows.append([read_s, *time_stages(model, image, resize, config.run.precision, device)])
    return np.array(rows[WARM_UP:])


def time_stages(model: Detector, image: Tensor, resize: Resize, precision: str, device: torch.device) -> list[float]:
    """Returns the seconds of pre-processing, model and post-processing; waits for the device between the stages."""
    marks: list[float] = []

    def mark(*_) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        marks.append(time.perf_counter())
    hooks = [model.backbone.register_forward_pre_hook(mark), model.roi_heads.box_predictor.register_forward_hook(mark)]
    try:
        mark()
        predict_batch(model, [image], None, resize, precision, device)
        mark()
    finally:
        for hook in hooks:
            hook.remove()
    return np.diff(marks).tolist()


def format_table(title: str, stages: dict[str, Percentiles]) -> str:
    """Returns the table of one device as text."""
    lines = [title, f"{'ms an image':>18} {'median':>9} {'10 %':>9} {'90 %':>9}"]
    lines += [f"{name:>18} {stage.median:9.2f} {stage.low:9.2f} {stage.high:9.2f}" for name, stage in stages.items()]
    return "\n".join([*lines, f"{1000 / stages['all'].median:.1f} images/s"])
