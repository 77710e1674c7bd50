"""A trained detector from its checkpoint, and what it sees in one batch."""

from functools import lru_cache
from pathlib import Path

import torch

from detector.checkpoint import read, step_files
from detector.config.load import from_dict
from detector.config.schema import Config
from detector.errors import BadInput
from detector.model.build import Detector, build_model, placed
from detector.model.input import Side


def find_checkpoint(run: str, which: str = "best") -> Path:
    """A run's checkpoint: best (the newest, where nothing was evaluated yet), last, or a file."""
    if which not in ("best", "last"):
        return Path(which)
    folder = Path(run)
    if not folder.is_dir():
        raise BadInput(f"no such run folder: {run}. It is the folder that training made, such as runs/bccd")
    best, steps = folder / "checkpoints" / "best.pt", step_files(folder)
    if which == "best" and best.is_file():
        return best
    if not steps:
        raise BadInput(f"no checkpoint in {folder / 'checkpoints'}: has this run trained?")
    return steps[0]


def load_detector(path: Path, device: torch.device,
                  config: Config | None = None) -> tuple[Detector, Config, tuple[str, ...], int]:
    """The detector of a checkpoint, its average where it has one: model, config, classes, step.

    A config of one's own may say how to evaluate; the model is the checkpoint's in any case.
    """
    content = read(path)
    stored = from_dict(content["config"], f"config in {path}")
    config = config or stored
    model = build_model(stored.model, config.evaluate, len(content["classes"]))
    model.load_state_dict(content["ema"] or content["model"])
    return placed(model, config.run.channels_last, device).eval(), config, tuple(content["classes"]), content["step"]


def predict_batch(model: Detector, images: list, targets: list | None, side: Side, precision: str,
                  device: torch.device) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor | None]:
    """One batch on the device; detections, and with targets the four losses, come back on the CPU."""
    images, moved = to_device(images, targets or [], device)
    with autocast(precision, device):
        found, losses = model.predict(images, side, None if targets is None else moved)
    return [{key: value.cpu() for key, value in one.items()} for one in found], \
        None if losses is None else losses.cpu()


def to_device(images: list, targets: list, device: torch.device) -> tuple[list, list]:
    """Images, and of targets what a loss needs. A frame stays: it is numbers.

    On a GPU the copies have a stream of their own. The host is up to one step ahead of the device, so a batch is copied
    while the step before is computed, and the next one begins when it is there. From pinned memory nobody waits.
    """
    stream = copy_stream(device)
    with torch.cuda.stream(stream):  # None, on a CPU, changes nothing
        images = [image.to(device, non_blocking=True) for image in images]
        targets = [{**{key: target[key].to(device, non_blocking=True) for key in ("boxes", "labels")},
                    **({"frame": target["frame"]} if "frame" in target else {})} for target in targets]
    if stream is not None:
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(stream)
        for tensor in [*images, *(target[key] for target in targets for key in ("boxes", "labels"))]:
            tensor.record_stream(computing)  # else its memory might take the next batch while it is still read
    return images, targets


@lru_cache
def copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """The one stream that batches are copied on; each stream keeps memory of its own. None for a CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Mixed precision, or nothing at fp32."""
    kinds = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, kinds[precision], enabled=precision != "fp32")
