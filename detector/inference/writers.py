"""Writes predictions: COCO results and the ids of their images, a CSV table, and images or a video with boxes."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from detector.data.text_files import printable
from detector.errors import BadInput
from detector.inference.predictor import ImageDetections
from detector.inference.sources import IMAGES_FILE, TABLE_FILE, Frame, FrameSource, import_opencv
from detector.report.image_budget import JpegBudget
from detector.report.report import PageInfo, write_prediction_report
from detector.run.files import DETECTIONS_FILE, write_whole
from detector.structures import Dataset, Detections, build_dataset, concat_detections, to_xywh
from detector.visualization.draw_boxes import draw_boxes, limit_side

COLUMNS = ("image_id", "image", "class", "score", "x1", "y1", "x2", "y2")
JPEG_QUALITY = 92
MAX_JPEG_SIDE = 65_500  # pixels; libjpeg's limit
MAX_NAME_BYTES = 255    # of a file's name on most file systems


class PredictionWriter:
    """Collects the detections of all frames. Images are drawn at once; `close` writes everything else."""

    def __init__(self, folder: Path, classes: tuple[str, ...], source: FrameSource, jpegs: JpegBudget | None = None):
        """
        Args:
            source: whose frames are predicted.
            jpegs: collects the images of a report; None: no report.
        """
        self.folder, self.classes, self.jpegs, self.image_names = folder, classes, jpegs, source.image_names
        self.video = AnnotatedVideo(folder / f"{Path(source.name).stem}.mp4", source.fps) if source.name else None
        self.results: dict[int, tuple[str, int, int, ImageDetections]] = {}  # by frame number: name, height, width

    @property
    def num_objects(self) -> int:
        return sum(len(detections) for *_, detections in self.results.values())

    def add(self, frame: Frame, detections: ImageDetections) -> Image.Image:
        """Draws the detections of one frame and returns the drawn image.

        Raises:
            BadInput: the drawn image would replace the original one.
        """
        pixels = frame.image.permute(1, 2, 0).contiguous().numpy()
        self.results[frame.number] = (printable(frame.name), *pixels.shape[:2], detections)
        if self.jpegs:
            self.jpegs.add(pixels)
        limited, boxes = limit_side(pixels, detections.boxes, MAX_JPEG_SIDE)
        drawn = draw_boxes(limited, boxes, detections.labels, self.classes, detections.scores)
        if self.video:
            self.video.add(np.asarray(drawn))
            return drawn
        path = self.folder / picture_name(frame, self.image_names)
        if path.resolve() == Path(frame.path).resolve():
            raise BadInput(f"--out {self.folder}: this is the folder of {frame.path}, which would be replaced by the "
                           "image with boxes. Name another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(path, quality=JPEG_QUALITY)
        return drawn

    def close(self) -> None:
        """Writes detections.json (COCO results), images.json (images and categories by id) and detections.csv."""
        if self.video:
            self.video.close()
        ordered = dict(sorted(self.results.items()))
        rows = [json.dumps(row) for number, (name, _, _, detections) in ordered.items()
                for row in coco_rows(number, name, detections)]
        write_whole(self.folder / DETECTIONS_FILE, "[" + ",\n ".join(rows) + "]\n")
        write_whole(self.folder / IMAGES_FILE, json.dumps(
            {"images": [{"id": number, "file_name": name, "height": height, "width": width}
                        for number, (name, height, width, _) in ordered.items()],
             "categories": [{"id": label, "name": name} for label, name in enumerate(self.classes, start=1)]}) + "\n")
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        for number, (name, _, _, detections) in ordered.items():
            writer.writerows([number, name, class_name, f"{score:.4f}", *(f"{corner:.2f}" for corner in box)]
                             for class_name, score, box in zip(detections.names, detections.scores, detections.boxes))
        write_whole(self.folder / TABLE_FILE, table.getvalue())

    def report(self, info: PageInfo) -> str:
        """Writes report.html; returns a sentence about it."""
        return write_prediction_report(self.folder / "report.html", info, *self.to_dataset(), self.jpegs)

    def to_dataset(self) -> tuple[Dataset, Detections]:
        """Returns the images in the order in which they were added, without objects, and all their detections."""
        images = [(f"{name} {number}" if self.video else name, number, height, width)
                  for number, (name, height, width, _) in self.results.items()]
        parts = [Detections(np.full(len(detections), number, np.int64), detections.boxes, detections.scores,
                            detections.labels)
                 for number, (_, _, _, detections) in self.results.items()]
        labels = list(range(1, len(self.classes) + 1))
        return (build_dataset("predictions", "", list(self.classes), labels, images, np.zeros((0, 8))),
                concat_detections(parts))


def picture_name(frame: Frame, image_names: frozenset[str]) -> str:
    """Returns the name of a frame's drawn picture: its own where that ends in .jpg, or else with .jpg appended.

    .jpg is appended once more where another image has that name. A name that is too long becomes the frame's number.
    """
    name = frame.name
    while not name.endswith(".jpg") or name != frame.name and name in image_names:
        name += ".jpg"
    folder, base = os.path.split(name)
    return name if len(os.fsencode(base)) <= MAX_NAME_BYTES else os.path.join(folder, f"{frame.number:06d}.jpg")


def coco_rows(number: int, name: str, detections: ImageDetections) -> list[dict]:
    """Returns detections in COCO's results format, with the names of image and class as two extra keys."""
    boxes = to_xywh(detections.boxes).round(2).tolist()
    return [{"image_id": number, "category_id": int(label), "bbox": box, "score": round(float(score), 5),
             "file_name": name, "category": class_name}
            for label, box, score, class_name in zip(detections.labels, boxes, detections.scores, detections.names)]


class AnnotatedVideo:
    """Writes an MP4 under a temporary name; `close` gives it its own name."""

    def __init__(self, path: Path, fps: float):
        self.path, self.fps, self.writer = path, fps, None
        self.partial = path.with_name(f"{path.stem}.part.mp4")

    def add(self, pixels: np.ndarray) -> None:
        """Appends a frame uint8 [H, W, 3], RGB; all frames have one size."""
        cv2 = import_opencv()
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = (pixels.shape[1], pixels.shape[0])
            self.writer = cv2.VideoWriter(str(self.partial), cv2.VideoWriter_fourcc(*"mp4v"), self.fps, size)
            if not self.writer.isOpened():
                raise BadInput(f"OpenCV cannot write the video {self.path}; name another folder with --out")
        self.writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        if self.writer is not None:
            self.writer.release()
            os.replace(self.partial, self.path)
