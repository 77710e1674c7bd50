"""A trained detector: its detections for images of any kind."""

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterator, Sequence, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detector.config.schema import Config, Evaluate
from detector.data.image_io import array_to_tensor, pil_to_tensor, read_image
from detector.distributed.process_group import choose_device
from detector.errors import BadInput, count_of
from detector.inference.load_detector import open_detector
from detector.inference.slicing import Slicing, search_tiles
from detector.inference.views import VIEWS, boxes_in_image, merge_views, view_of
from detector.model.faster_rcnn import Detector
from detector.model.precision import autocast, to_device
from detector.structures import Resize, padded_size

AnyImage = str | os.PathLike | Image.Image | np.ndarray | Tensor  # a path, or pixels

VIEW_SCORE_THRESH = 0.001  # test-time augmentation: detections of a view below it are not merged
BATCH_SIZE = 4  # images in one forward pass, unless the caller sets another number


def predict_batch(model: Detector, images: list[Tensor], targets: list[dict] | None, resize: Resize, precision: str,
                  device: torch.device, evaluate: Evaluate | None = None
                  ) -> tuple[list[dict[str, Tensor]], dict[str, float] | None]:
    """Returns the detections of one batch on the CPU, and with targets also the losses by name.

    Args:
        images: uint8 [3, H, W] each, RGB.
        targets: ground truth of each image as in training, or None.
        precision: fp32, bf16 or fp16.
        evaluate: test-time augmentation, which losses do not have, and the limits of merged detections; None: without.
    """
    images, targets_on_device = to_device(images, targets or [], device)
    given_targets = None if targets is None else targets_on_device
    with autocast(precision, device):
        if evaluate and evaluate.tta != "none":
            detections, losses = predict_views(model, images, given_targets, resize, evaluate)
        else:
            on_device, losses = model.predict(images, resize, given_targets)
            detections = to_cpu(on_device)
    return detections, losses and dict(zip(losses, torch.stack(list(losses.values())).tolist()))


def predict_views(model: Detector, images: list[Tensor], targets: list[dict] | None, resize: Resize,
                  evaluate: Evaluate) -> tuple[list[dict[str, Tensor]], dict[str, Tensor] | None]:
    """Returns the detections of each image, those of all its views merged, on the CPU; and the losses of the images.

    Each view gives detections down to VIEW_SCORE_THRESH, so that a merged score does not depend on the threshold.
    """
    with lowered_score_thresh(model, VIEW_SCORE_THRESH):
        detections, losses = model.predict(images, resize, targets)
        of_views = [to_cpu(detections)]
        for view in VIEWS[evaluate.tta][1:]:
            of_view = to_cpu(model.predict([view_of(image, view) for image in images], resize)[0])
            of_views.append([{**of_image, "boxes": boxes_in_image(of_image["boxes"], view, image)}
                             for of_image, image in zip(of_view, images)])
    return [merge_views(list(of_image), evaluate.nms_thresh, evaluate.score_thresh, evaluate.max_detections)
            for of_image in zip(*of_views)], losses


def to_cpu(detections: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{key: value.cpu() for key, value in of_image.items()} for of_image in detections]


@contextmanager
def lowered_score_thresh(model: Detector, score: float) -> Iterator[None]:
    """Lets the model return detections down to `score`, if the threshold of its config is higher."""
    heads, configured = model.roi_heads, model.roi_heads.score_thresh
    heads.score_thresh = min(configured, score)
    try:
        yield
    finally:
        heads.score_thresh = configured


@dataclass(frozen=True, repr=False)
class ImageDetections:
    """The detections of one image, best score first."""

    boxes: np.ndarray       # float32 [K, 4]: x1, y1, x2, y2 in pixels
    scores: np.ndarray      # float32 [K], 0 ... 1
    labels: np.ndarray      # int32 [K], 1 ... C
    names: tuple[str, ...]  # [K], the class of each box

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        lines = [f"  {name} {score:.2f} at " + " ".join(f"{corner:.0f}" for corner in box)
                 for name, score, box in zip(self.names, self.scores, self.boxes)]
        return "\n".join([count_of(len(self), "object"), *lines])


@dataclass(frozen=True, repr=False)
class Predictor:
    """A detector that is called with images and returns their objects.

    An image is a path, a PIL image, an array [H, W] or [H, W, C] in RGB, or a tensor [C, H, W] in RGB. C is 1 to 4; 2
    and 4 channels end with alpha, which is dropped. Arrays and tensors may have any type and range of values that
    files have, see "How pixels are read" in detector/README.md.
    """

    model: Detector
    config: Config
    classes: tuple[str, ...]
    step: int
    device: torch.device

    @overload
    def __call__(self, images: AnyImage, score: float = 0.5, slice: int = 0,
                 overlap: float = 0.2) -> ImageDetections: ...

    @overload
    def __call__(self, images: Sequence[AnyImage], score: float = 0.5, slice: int = 0,
                 overlap: float = 0.2) -> list[ImageDetections]: ...

    def __call__(self, images, score=0.5, slice=0, overlap=0.2):
        """Returns the objects of one image, or a list of them for a list of images.

        Args:
            score: minimum score of a detection.
            slice: for small objects in large images: tiles of so many pixels a side are searched as well; 0: none.
            overlap: of neighboring tiles, as part of a side.

        Raises:
            BadInput: an image cannot be read, its values are not those of pixels, or `score` is not from 0 to 1.
        """
        if not 0 <= score <= 1:
            raise BadInput(f"score {score}: a score is from 0 to 1. Pass such a number")
        slicing = Slicing(slice, overlap) if slice else None
        if isinstance(images, (list, tuple)):
            return self.detect([to_image_tensor(image) for image in images], score, slicing=slicing)
        return self.detect([to_image_tensor(images)], score, slicing=slicing)[0]

    def __repr__(self) -> str:
        return f"{self.description}, on {self.device}, of " + ", ".join(self.classes)

    @property
    def description(self) -> str:
        """The network, and where its weights are from."""
        weights = f"step {self.step}" if self.step else f"weights {Path(self.config.model.weights).name}"
        return f"{self.config.model.backbone}, {weights}"

    @property
    def resize(self) -> Resize:
        return Resize(self.config.evaluate.min_size, self.config.evaluate.max_size)

    def detect(self, images: list[Tensor], score: float, batch_size: int = BATCH_SIZE,
               slicing: Slicing | None = None) -> list[ImageDetections]:
        """Returns the detections of each image, uint8 [3, H, W].

        Only images of the same padded size share a batch. The detections of an image therefore do not depend on the
        other images.

        Args:
            slicing: also search overlapping tiles of each image; the number of detections then has no limit.
        """
        if slicing:
            nms_thresh = self.config.evaluate.nms_thresh
            return [self._with_names(*search_tiles(lambda parts: self.detect(parts, score, batch_size), image, slicing,
                                                   nms_thresh)) for image in images]
        by_padded_size: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            size = padded_size(image, self.resize, self.model.preprocessing.size_divisor)
            by_padded_size.setdefault(size, []).append(index)
        results: list[ImageDetections | None] = [None] * len(images)
        for indices in by_padded_size.values():
            for first in range(0, len(indices), batch_size):
                batch = indices[first:first + batch_size]
                detections = self._predict_batch([images[index] for index in batch], score)
                for index, of_image in zip(batch, detections):
                    results[index] = self._above_score(of_image, score)
        return results

    def _predict_batch(self, images: list[Tensor], score: float) -> list[dict[str, Tensor]]:
        """Returns the detections of one batch, those below the score of the config too if `score` is lower."""
        evaluate = replace(self.config.evaluate, score_thresh=min(self.config.evaluate.score_thresh, score))
        with lowered_score_thresh(self.model, score):
            return predict_batch(self.model, images, None, self.resize, self.config.run.precision, self.device,
                                 evaluate)[0]

    def _above_score(self, detections: dict[str, Tensor], score: float) -> ImageDetections:
        boxes, scores, labels = (detections[key].numpy() for key in ("boxes", "scores", "labels"))
        keep = scores >= score
        return self._with_names(boxes[keep], scores[keep], labels[keep].astype(np.int32))

    def _with_names(self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> ImageDetections:
        return ImageDetections(boxes, scores, labels, tuple(self.classes[label - 1] for label in labels))


def load_predictor(name: str, checkpoint: str, device_name: str, config_name: str = "") -> Predictor:
    """Returns the Predictor of a detector, see `open_detector`. `device_name`: auto, cpu or cuda."""
    device = choose_device(device_name, "name the device cpu or auto")
    model, config, classes, step = open_detector(name, checkpoint, device, config_name)
    return Predictor(model, config, classes, step, device)


def to_image_tensor(image) -> Tensor:
    """Converts an image of any accepted kind (see Predictor) to uint8 [3, H, W], RGB. Raises BadInput for others."""
    if isinstance(image, (str, os.PathLike)):
        if os.path.isdir(image):
            raise BadInput(f"{image} is a folder: pass a list of its images, or run `fleet-rcnn predict` on it")
        return read_image(os.fspath(image), remedy="Replace it")
    if isinstance(image, Image.Image):
        return pil_to_tensor(image)
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3 \
            and image.numel():
        return image
    reason = ""
    try:
        if isinstance(image, Tensor):
            values = (image.float() if image.dtype == torch.bfloat16 else image).detach().cpu().numpy()
            return array_to_tensor(values.transpose(1, 2, 0) if values.ndim == 3 else values)
        if isinstance(image, np.ndarray):
            return array_to_tensor(image)
    except BadInput as error:
        reason = f": {error}"
    shape = f" of {image.dtype} {list(image.shape)}" if hasattr(image, "shape") else ""
    raise BadInput(f"{type(image).__name__}{shape} is no image{reason}. Pass a path, a PIL image, an array [H, W] or "
                   "[H, W, 1 to 4] in RGB, a tensor [1 to 4, H, W], or a list of these")
