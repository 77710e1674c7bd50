"""A fixed set of validation pictures, ground truth beside predictions, at every evaluation."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from detector.data.image_io import read_image
from detector.errors import BadInput
from detector.structures import Dataset, Detections
from detector.visualization.draw_boxes import draw_boxes, side_by_side

LEAST_SIDE = 320   # pixels; smaller pictures are enlarged, or names would cover what they name
LEAST_SCORE = 0.3  # of a detection that is drawn; everything from 0.05 on would hide the picture


def evenly_spaced(images: int, count: int) -> list[int]:
    """Evenly spaced indices, the same at every evaluation."""
    return sorted({int(i) for i in np.linspace(0, images - 1, min(count, images)).round()}) if count else []


@dataclass(frozen=True)
class Picture:
    """For TensorBoard; already a PNG, so that whoever hands it on need not work for it."""

    name: str
    png: bytes
    width: int
    height: int


def as_picture(name: str, image: Image.Image) -> Picture:
    file = io.BytesIO()
    image.save(file, "PNG")
    return Picture(name, file.getvalue(), *image.size)


def draw_validation(run: Path, step: int, dataset: Dataset, detections: Detections, count: int) -> list[Picture]:
    """Draws into the run's pictures/ (the newest of each image); gives the same for TensorBoard (which keeps all)."""
    folder, pictures = run / "pictures", []
    folder.mkdir(parents=True, exist_ok=True)
    for index in evenly_spaced(len(dataset), count):
        try:
            image = read_image(dataset.path(index), tuple(dataset.sizes[index])).permute(1, 2, 0).numpy()
        except BadInput:
            continue  # it was counted when it was predicted
        rows, enlarge = dataset.rows(index), -(-LEAST_SIDE // min(image.shape[:2]))
        image = image.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
        found = (detections.image_ids == dataset.image_ids[index]) & (detections.scores >= LEAST_SCORE)
        sheet = side_by_side(
            draw_boxes(image, enlarge * dataset.boxes[rows], dataset.labels[rows], dataset.classes),
            draw_boxes(image, enlarge * detections.boxes[found], detections.labels[found], dataset.classes,
                       detections.scores[found]), ("ground truth", f"predicted, step {step}"))
        name = f"{index:06d}-{Path(dataset.path(index)).stem}"
        beside = folder / f"{name}.part"  # drawing may be cut off, where a run is told to stop
        sheet.save(beside, "JPEG", quality=90)
        beside.replace(folder / f"{name}.jpg")
        pictures.append(as_picture(f"validation/{name}", sheet))
    return pictures
