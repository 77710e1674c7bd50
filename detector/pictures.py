"""A fixed set of validation pictures, ground truth beside predictions, at every evaluation."""

from pathlib import Path

import numpy as np

from detector.data.files import read_image
from detector.draw import draw_boxes, side_by_side
from detector.errors import BadInput
from detector.journal import Journal
from detector.records import Dataset, Detections

LEAST_SIDE = 320   # pixels; smaller pictures are enlarged, or names would cover what they name
LEAST_SCORE = 0.3  # of a detection that is drawn; everything from 0.05 on would hide the picture


def fixed_choice(images: int, count: int) -> list[int]:
    """Evenly spaced indices, the same at every evaluation."""
    return sorted({int(i) for i in np.linspace(0, images - 1, min(count, images)).round()}) if count else []


def draw_validation(journal: Journal, step: int, dataset: Dataset, detections: Detections, count: int) -> None:
    """Draws into pictures/ (the newest of each image) and TensorBoard (all of them)."""
    folder = journal.folder / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for index in fixed_choice(len(dataset), count):
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
        sheet.save(folder / f"{name}.jpg", quality=90)
        journal.picture(step, name, np.asarray(sheet))
