"""A trained detector from its checkpoint, and what it sees in one batch."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detector.config.load import from_dict
from detector.config.schema import Config
from detector.data.image_io import read_image
from detector.distributed.process_group import choose_device
from detector.errors import BadInput
from detector.model.faster_rcnn import Detector, build_model, placed
from detector.model.precision import autocast, to_device
from detector.run.checkpoint_files import read_checkpoint, step_files
from detector.structures import Resize

pass
from detector.structures import padded_size


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
    content = read_checkpoint(path)
    stored = from_dict(content["config"], f"config in {path}")
    config = config or stored
    model = build_model(stored.model, config.evaluate, len(content["classes"]))
    model.load_state_dict(content["ema"] or content["model"])
    return placed(model, config.run.channels_last, device).eval(), config, tuple(content["classes"]), content["step"]


def predict_batch(model: Detector, images: list, targets: list | None, side: Resize, precision: str,
                  device: torch.device) -> tuple[list[dict[str, torch.Tensor]], dict[str, float] | None]:
    """Detections of one batch, on the CPU, and with targets the losses by name."""
    images, moved = to_device(images, targets or [], device)
    with autocast(precision, device):
        found, losses = model.predict(images, side, None if targets is None else moved)
    return [{key: value.cpu() for key, value in one.items()} for one in found], \
        None if losses is None else dict(zip(losses, torch.stack(list(losses.values())).tolist()))

AT_ONCE = 4  # images of one batch, unless another number is asked for


@dataclass(frozen=True, repr=False)
class ImageDetections:
    """What was found in one image, the best first."""

    boxes: np.ndarray   # float32 [K, 4]: x1, y1, x2, y2 in pixels
    scores: np.ndarray  # float32 [K], 0 ... 1
    labels: np.ndarray  # int32 [K], 1 ... C
    names: tuple[str, ...]  # [K], the class of each box

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        lines = [f"  {name} {score:.2f} at " + " ".join(f"{side:.0f}" for side in box)
                 for name, score, box in zip(self.names, self.scores, self.boxes)]
        return "\n".join([f"{len(self)} objects", *lines])


@dataclass(frozen=True, repr=False)
class Predictor:
    """Call it with a path, PIL image, array uint8 [H, W, 3] or [H, W], tensor uint8 [3, H, W], or a list of these."""

    model: Detector
    config: Config
    classes: tuple[str, ...]
    step: int
    device: torch.device

    def __call__(self, images, score: float = 0.5) -> "ImageDetections | list[ImageDetections]":
        """The objects of one image, or of each of a list; raises BadInput for an image that cannot be read."""
        if isinstance(images, (list, tuple)):
            return self.detect([pixels_of(image) for image in images], score)
        return self.detect([pixels_of(images)], score)[0]

    def __repr__(self) -> str:
        return f"{self.config.model.backbone}, step {self.step}, on {self.device}, of " + ", ".join(self.classes)

    @property
    def side(self) -> Resize:
        return Resize(self.config.evaluate.min_size, self.config.evaluate.max_size)

    def detect(self, images: list[Tensor], score: float, at_once: int = AT_ONCE) -> list[ImageDetections]:
        """Images uint8 [3, H, W]. Only those that the network sees on one canvas share a batch, so that what is found
        in an image does not depend on the others."""
        self.model.roi_heads.score_thresh = min(self.model.roi_heads.score_thresh, score)
        found: list[ImageDetections | None] = [None] * len(images)
        canvases: dict[tuple[int, int], list[int]] = {}
        for number, image in enumerate(images):
            canvases.setdefault(padded_size(image, self.side, self.model.input.multiple), []).append(number)
        for numbers in canvases.values():
            for first in range(0, len(numbers), at_once):
                some = numbers[first:first + at_once]
                answers, _ = predict_batch(self.model, [images[n] for n in some], None, self.side,
                                           self.config.run.precision, self.device)
                for number, answer in zip(some, answers):
                    found[number] = self.found(answer, score)
        return found

    def found(self, answer: dict[str, Tensor], score: float) -> ImageDetections:
        boxes, scores, labels = (answer[key].numpy() for key in ("boxes", "scores", "labels"))
        keep = scores >= score
        labels = labels[keep].astype(np.int32)
        return ImageDetections(boxes[keep], scores[keep], labels, tuple(self.classes[label - 1] for label in labels))


def load_run(run: str, which: str, device: str) -> Predictor:
    chosen = choose_device(device)
    model, config, classes, step = load_detector(find_checkpoint(run, which), chosen)
    return Predictor(model, config, classes, step, chosen)


def pixels_of(image) -> Tensor:
    """uint8 [3, H, W], RGB. Raises BadInput for what is no image."""
    if isinstance(image, (str, os.PathLike)):
        return read_image(os.fspath(image))
    if isinstance(image, Image.Image):
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3:
        return image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
        if image.ndim == 3 and image.shape[2] == 3:
            return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous()
    shape = f" of {image.dtype} {list(image.shape)}" if hasattr(image, "shape") else ""
    raise BadInput(f"{type(image).__name__}{shape} is no image: give a path, a PIL image, an array uint8 [H, W, 3] or "
                   "[H, W] in RGB, a tensor uint8 [3, H, W], or a list of these")
