"""How long one image takes, and where: reading, pre-processing, the model, post-processing; on the CPU and on a GPU."""

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
from detector.data.read import describe, read_splits
from detector.distributed.collectives import run_on_main
from detector.distributed.process_group import choose_device
from detector.errors import BadInput
from detector.inference.predictor import find_checkpoint, load_detector, predict_batch
from detector.model.faster_rcnn import Detector
from detector.run.environment import collect_environment
from detector.run.files import write_whole
from detector.structures import Dataset, Resize
from detector.visualization.validation_images import evenly_spaced

STAGES = ("reading", "pre-processing", "model", "post-processing")
WARM_UP, TIMED = 5, 30  # images


@dataclass(frozen=True)
class Spread:
    """Milliseconds of one image."""

    median: float
    low: float   # a tenth of the images take less
    high: float  # a tenth of the images take more


def spread(seconds: np.ndarray) -> Spread:
    low, median, high = (1000 * np.quantile(seconds, (0.1, 0.5, 0.9))).tolist()
    return Spread(median, low, high)


def time_run(run: str, overrides: list[str], which: str) -> None:
    """Prints the table for each device that this machine has and `run.device` allows, and writes timing.json.

    One image at a time, in the precision of `run.precision`, after a warm-up. reading: from the file to uint8;
    pre-processing: onto the device, normalised, resized, padded; model: up to class scores and box deltas of the
    proposals, which includes the RPN and its NMS; post-processing: decoding, NMS of the classes, boxes onto the CPU.
    """
    path = find_checkpoint(run, which)
    config = load_config(str(Path(run) / "config.yaml"), overrides)
    data = read_splits(config.data, config.data.val or config.data.train)
    run_on_main(lambda: time_devices(Path(run), path, config, data))


def time_devices(folder: Path, checkpoint: Path, config: Config, data: Dataset) -> None:
    kinds = [kind for kind in ("cpu", "cuda") if config.run.device in ("auto", kind)
             and (kind == "cpu" or config.run.device == kind or torch.cuda.is_available())]
    print(f"{checkpoint}, on {describe(data)}; one image at a time, {TIMED} images after {WARM_UP} to warm up")
    found = {}
    for kind in kinds:
        device = choose_device(kind)
        model, _, _, _ = load_detector(checkpoint, device, config)
        seconds = time_images(model, config, data, device)
        stages = {name: spread(seconds[:, i]) for i, name in enumerate(STAGES)} | {"all": spread(seconds.sum(axis=1))}
        name = torch.cuda.get_device_name(device) if kind == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        found[kind] = {"name": name, "milliseconds": {key: asdict(value) for key, value in stages.items()}}
        print(table(f"{name}, {config.run.precision}", stages))
    about = {"images": TIMED, "precision": config.run.precision, "short_side": config.evaluate.min_size,
             "long_side": config.evaluate.max_size, "devices": found, "surroundings": collect_environment()}
    write_whole(folder / "timing.json", json.dumps(about, indent=1) + "\n")


def time_images(model: Detector, config: Config, data: Dataset, device: torch.device) -> np.ndarray:
    """Seconds of each stage, float64 [TIMED, 4]. Raises BadInput where no image can be read."""
    paths = [data.path(index) for index in evenly_spaced(len(data), TIMED)]
    side = Resize(config.evaluate.min_size, config.evaluate.max_size)
    rows = []
    for number in range(WARM_UP + TIMED):
        begun_at = time.perf_counter()
        try:
            image = read_image(paths[number % len(paths)])
        except BadInput as error:
            raise BadInput(f"cannot time: {error}") from error
        rows.append([time.perf_counter() - begun_at, *time_stages(model, image, side, config.run.precision, device)])
    return np.array(rows[WARM_UP:])


def time_stages(model: Detector, image: Tensor, side: Resize, precision: str, device: torch.device) -> list[float]:
    """Seconds of pre-processing, model and post-processing; the device is waited for at each border."""
    marks: list[float] = []

    def mark(*_) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        marks.append(time.perf_counter())
    hooks = [model.backbone.register_forward_pre_hook(mark), model.roi_heads.box_predictor.register_forward_hook(mark)]
    try:
        mark()
        predict_batch(model, [image], None, side, precision, device)
        mark()
    finally:
        for hook in hooks:
            hook.remove()
    return np.diff(marks).tolist()


def table(title: str, stages: dict[str, Spread]) -> str:
    lines = [title, f"{'ms an image':>18} {'median':>9} {'10 %':>9} {'90 %':>9}"]
    lines += [f"{name:>18} {one.median:9.2f} {one.low:9.2f} {one.high:9.2f}" for name, one in stages.items()]
    return "\n".join([*lines, f"{1000 / stages['all'].median:.1f} images/s"])
