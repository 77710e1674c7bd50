"""Draws a fixed set of validation images at every evaluation: ground truth beside detections."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from detector.data.image_io import read_image
from detector.data.text_files import printable
from detector.errors import BadInput
from detector.run.files import PICTURES_FOLDER
from detector.structures import Dataset, Detections, ceil_div
from detector.visualization.draw_boxes import draw_boxes, limit_side, side_by_side

MIN_SIDE = 320   # pixels; smaller images are enlarged, or class names would cover the objects
MAX_SIDE = 4096  # pixels; larger images are reduced, and none is enlarged beyond: a JPEG has at most 65,500 a side
MAX_STEM = 60    # letters of an image's name in the name of its drawing; file systems allow 255 bytes
MIN_SCORE = 0.3  # of a detection that is drawn; with evaluate.score_thresh boxes would cover the image


def evenly_spaced(total: int, count: int) -> list[int]:
    """Returns at most `count` evenly spaced indices below `total`; the same ones at every call."""
    return sorted({int(i) for i in np.linspace(0, total - 1, min(count, total)).round()}) if count else []


@dataclass(frozen=True)
class EncodedImage:
    """An image for TensorBoard, already encoded, so that the training process does not spend time on it."""

    name: str
    png: bytes
    width: int
    height: int


def encode_png(name: str, image: Image.Image) -> EncodedImage:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return EncodedImage(name, buffer.getvalue(), *image.size)


def resize_for_drawing(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image, uint8 [H, W, 3], and its boxes enlarged or reduced to the sides that a drawing may have."""
    short, long = sorted(image.shape[:2])
    scale = max(1, min(ceil_div(MIN_SIDE, short), MAX_SIDE // long))
    return limit_side(image.repeat(scale, axis=0).repeat(scale, axis=1), scale * boxes, MAX_SIDE)


def draw_validation_images(run: Path, step: int, dataset: Dataset, detections: Detections,
                           count: int) -> list[EncodedImage]:
    """Draws `count` images and writes them to pictures/ in the run folder, replacing those of earlier steps.

    Images that cannot be read are left out; evaluation has already reported them.

    Returns:
        The same drawings as PNGs, for TensorBoard, which keeps those of every step.
    """
    folder, drawings = run / PICTURES_FOLDER, []
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    for index in evenly_spaced(len(dataset), count):
        try:
            image = read_image(dataset.path(index), tuple(dataset.sizes[index])).permute(1, 2, 0).numpy()
        except BadInput:
            continue
        rows = dataset.rows(index)
        drawn = (detections.image_ids == dataset.image_ids[index]) & (detections.scores >= MIN_SCORE)
        num_objects = rows.stop - rows.start
        image, boxes = resize_for_drawing(image, np.concatenate([dataset.boxes[rows], detections.boxes[drawn]]))
        sheet = side_by_side(
            draw_boxes(image, boxes[:num_objects], dataset.labels[rows], dataset.classes),
            draw_boxes(image, boxes[num_objects:], detections.labels[drawn], dataset.classes,
                       detections.scores[drawn]), ("ground truth", f"predicted, step {step}"))
        name = f"{index:06d}-{printable(Path(dataset.path(index)).stem)[:MAX_STEM]}"
        temporary = folder / f"{name}.part"  # a stop of the run may kill this process while it writes
        with contextlib.suppress(OSError):  # a full disk: TensorBoard's copy is made in memory
            sheet.save(temporary, "JPEG", quality=90)
            temporary.replace(folder / f"{name}.jpg")
        drawings.append(encode_png(f"validation/{name}", sheet))
    return drawings
