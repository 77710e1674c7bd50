"""Compares an exported detector with the model that it was exported from.

K detections of an image. The comparison is made in pixels of the resized image, where the boxes are computed; scaling
them back to the original image would scale the rounding errors, too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from detector.config.load import load_config
from detector.config.schema import Evaluate
from detector.data.formats.shapes import draw_image
from detector.data.image_io import read_image
from detector.data.image_walk import image_files
from detector.data.read import read_part
from detector.errors import BadInput, count_of
from detector.model.faster_rcnn import Detector
from detector.run.files import CONFIG_FILE
from detector.seeding import derive_seed, numpy_random_state
from detector.structures import Resize, scale_and_size
from detector.visualization.validation_images import evenly_spaced

TOLERANCE = 1e-3  # pixels of the resized image for a corner, and score
NUM_IMAGES = 20   # that both detectors are compared on
SCALES = ((1, 1), (0.5, 0.5), (1, 0.6), (0.6, 1), (1.3, 1.3), (0.4, 0.7))  # of height and width, image by image
OUTPUTS = ("boxes", "scores", "labels")

# One image uint8 [3, H, W] -> boxes float32 [K, 4] in its pixels, scores [K], labels int64 [K]; see TracedDetector.
DetectFunction = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Agreement:
    """The differences between two detectors on the same images."""

    num_images: int
    num_sizes: int               # different sizes among the images
    num_boxes: int               # boxes that both detected
    max_box_difference: float    # of a corner, pixels of the resized image
    max_score_difference: float
    num_unmatched: int           # boxes that only one of the two detected

    def __str__(self) -> str:
        return (f"{count_of(self.num_boxes, 'box', 'boxes')} in {count_of(self.num_images, 'image')} of "
                f"{count_of(self.num_sizes, 'size')}: boxes differ by at "
                f"most {self.max_box_difference:.1e} pixels of the resized image, scores by at most "
                f"{self.max_score_difference:.1e}")


def refuse_disagreement(agreement: Agreement, kind: str, images: str) -> None:
    """Raises BadInput where boxes are unmatched, or where there is no box to compare.

    Args:
        kind: format of the file.
        images: description of the compared images.
    """
    if agreement.num_unmatched:
        raise BadInput(f"the {kind} file does not agree with the model within {TOLERANCE:g} and was deleted. On "
                       f"{images}: {agreement.num_unmatched} boxes have no partner; {agreement}. Export in "
                       "another format, and report this as a bug")
    if not agreement.num_boxes:
        raise BadInput(f"the model detects nothing in {images}, so the {kind} file could not be compared with it and "
                       "was deleted. Name images with objects that this detector knows: --images FOLDER")


def load_check_images(run: str, source: str) -> tuple[list[Tensor], str]:
    """Returns NUM_IMAGES images of many sizes, and a description of them.

    The images are those of the path `source`; else validation images of the run; else drawn ones.
    """
    if source:
        paths, description = image_files(source), f"images of {source}"
    else:
        try:
            config = load_config(str(Path(run) / CONFIG_FILE))
            val = read_part(config.data, "val" if config.data.val else "train", config.seed, Path(run))
            paths = [val.path(index) for index in evenly_spaced(len(val), NUM_IMAGES)]
            description = f"images of {val.name}"
        except BadInput:
            paths, description = [], "drawn images, as there is no validation data"
    if paths:
        remedy = "Replace it, or name other images with --images"
        images = [read_image(paths[number % len(paths)], remedy=remedy) for number in range(NUM_IMAGES)]
    else:
        images = [_draw(number) for number in range(NUM_IMAGES)]
    return [rescale(image, *SCALES[number % len(SCALES)]) for number, image in enumerate(images)], description


def _draw(number: int) -> Tensor:
    image, *_ = draw_image(numpy_random_state(derive_seed(0, "export", number)))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def rescale(image: Tensor, height_scale: float, width_scale: float) -> Tensor:
    size = [max(1, round(image.shape[1] * height_scale)), max(1, round(image.shape[2] * width_scale))]
    return interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def model_as_function(model: Detector, resize: Resize, padded_size: tuple[int, int] = (0, 0)) -> DetectFunction:
    """Returns a function of one image that runs the model itself; its input is padded to the padded size at least."""
    def detect(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        detections = model.predict([image], resize, min_padded_size=padded_size)[0][0]
        return tuple(detections[name] for name in OUTPUTS)
    return detect


def compare(model: Detector, detect: DetectFunction, images: list[Tensor], evaluate: Evaluate,
            padded_size: tuple[int, int] = (0, 0)) -> Agreement:
    """Runs the model and an exported detector on each image and compares their boxes, whose order does not matter.

    The padding of an image changes features near its edges; both detectors therefore pad to the same padded_size.
    """
    resize = Resize(evaluate.min_size, evaluate.max_size)
    detect_with_model = model_as_function(model, resize, padded_size)
    num_boxes, num_unmatched, box_difference, score_difference = 0, 0, 0.0, 0.0
    for image in images:
        scale, _ = scale_and_size(*image.shape[-2:], resize)
        expected, exported = list(detect_with_model(image)), list(detect(image))
        expected[0], exported[0] = scale * expected[0], scale * exported[0]
        differences, unmatched = match_detections(expected, exported, evaluate)
        num_boxes, num_unmatched = num_boxes + len(differences), num_unmatched + unmatched
        box_difference = max(box_difference, differences[:, 0].max(initial=0))
        score_difference = max(score_difference, differences[:, 1].max(initial=0))
    num_sizes = len({tuple(image.shape) for image in images})
    return Agreement(len(images), num_sizes, num_boxes, float(box_difference), float(score_difference), num_unmatched)


def match_detections(expected: Sequence[Tensor], exported: Sequence[Tensor],
                     evaluate: Evaluate) -> tuple[np.ndarray, int]:
    """Matches the boxes of two detectors within TOLERANCE; partners have the same class.

    A box whose score is within TOLERANCE of the lowest score that is kept may be missing in one of the two: rounding
    decides whether it is kept.

    Args:
        expected, exported: boxes [K, 4], scores [K], labels [K] of one image.

    Returns:
        float64 [P, 2], the box and score difference of each pair; and the number of boxes without a partner.
    """
    a, b = ([part.detach().cpu().double().numpy() for part in parts] for parts in (expected, exported))
    min_scores = [scores.min() for _, scores, _ in (a, b) if len(scores) >= evaluate.max_detections]
    min_score = max([evaluate.score_thresh, *min_scores])
    pairs, unmatched = [], 0
    for detections, others in ((a, b), (b, a)):
        for box, score, label in zip(*detections):
            box_difference = np.abs(others[0] - box).max(axis=1)
            differences = np.stack([box_difference, np.abs(others[1] - score)], axis=1)[others[2] == label]
            nearest = differences[np.argmin(differences.max(axis=1))] if len(differences) else np.full(2, np.inf)
            if nearest.max() <= TOLERANCE:
                pairs += [nearest] if detections is a else []
            elif score > min_score + TOLERANCE:
                unmatched += 1
    return np.array(pairs).reshape(-1, 2), unmatched
