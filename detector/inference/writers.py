"""What is written of predictions: COCO results with the images they are of, a table, pictures or an annotated video."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np

from detector.errors import BadInput
from detector.inference.predictor import ImageDetections
from detector.inference.sources import Frame, video_library
from detector.report.image_budget import JpegBudget
from detector.report.report import About, report_predictions
from detector.run.files import write_whole
from detector.structures import Dataset, Detections, build_dataset, concat_detections, to_xywh
from detector.visualization.draw_boxes import draw_boxes

COLUMNS = ("image_id", "image", "class", "score", "x1", "y1", "x2", "y2")


class Predictions:
    """Collects what was found; pictures are written at once, everything else by `close`."""

    def __init__(self, folder: Path, classes: tuple[str, ...], video: str, rate: float, film: JpegBudget | None = None):
        """film: pictures for a report, to be exposed as they come; None where none is asked for."""
        self.folder, self.classes, self.film = folder, classes, film
        self.video = AnnotatedVideo(folder / f"{Path(video).stem}.mp4", rate) if video else None
        self.found: dict[int, tuple[str, int, int, ImageDetections]] = {}  # by number: name, height, width

    def add(self, frame: Frame, found: ImageDetections) -> None:
        pixels = frame.image.permute(1, 2, 0).contiguous().numpy()
        self.found[frame.number] = (frame.name, *pixels.shape[:2], found)
        if self.film:
            self.film.add(pixels)
        picture = draw_boxes(pixels, found.boxes, found.labels, self.classes, found.scores)
        if self.video:
            self.video.add(np.asarray(picture))
            return
        path = self.folder / (frame.name if frame.name.endswith(".jpg") else f"{frame.name}.jpg")
        if path.resolve() == Path(frame.path).resolve():
            raise BadInput(f"--out {self.folder}: this is the folder of {frame.path}; drawing there would replace it")
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=92)

    def close(self) -> None:
        """detections.json (COCO results), images.json (what its ids mean) and detections.csv."""
        if self.video:
            self.video.close()
        ordered = dict(sorted(self.found.items()))
        rows = [json.dumps(row) for number, (name, _, _, found) in ordered.items()
                for row in coco_rows(number, name, found)]
        write_whole(self.folder / "detections.json", "[" + ",\n ".join(rows) + "]\n")
        write_whole(self.folder / "images.json", json.dumps(
            {"images": [{"id": number, "file_name": name, "height": height, "width": width}
                        for number, (name, height, width, _) in ordered.items()],
             "categories": [{"id": label, "name": name} for label, name in enumerate(self.classes, start=1)]}) + "\n")
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        for number, (name, _, _, found) in ordered.items():
            writer.writerows([number, name, kind, f"{score:.4f}", *(f"{side:.2f}" for side in box)]
                             for kind, score, box in zip(found.names, found.scores, found.boxes))
        write_whole(self.folder / "detections.csv", table.getvalue())

    def report(self, about: About) -> str:
        """Writes report.html and gives a sentence about it."""
        return report_predictions(self.folder / "report.html", about, *self.records(), self.film)

    def records(self) -> tuple[Dataset, Detections]:
        """The images in the order in which they came, without objects, and what was found in them."""
        images = [(f"{name} {number}" if self.video else name, number, height, width)
                  for number, (name, height, width, _) in self.found.items()]
        parts = [Detections(np.full(len(found), number, np.int64), found.boxes, found.scores, found.labels)
                 for number, (_, _, _, found) in self.found.items()]
        labels = list(range(1, len(self.classes) + 1))
        return (build_dataset("predictions", "", list(self.classes), labels, images, np.zeros((0, 8))),
                concat_detections(parts))


def coco_rows(number: int, name: str, found: ImageDetections) -> list[dict]:
    """COCO's results format, and the names of image and class for people, which its tools let pass."""
    boxes = to_xywh(found.boxes).round(2).tolist()
    return [{"image_id": number, "category_id": int(label), "bbox": box, "score": round(float(score), 5),
             "file_name": name, "category": kind}
            for label, box, score, kind in zip(found.labels, boxes, found.scores, found.names)]


class AnnotatedVideo:
    """An MP4 that appears when it is whole."""

    def __init__(self, path: Path, rate: float):
        self.path, self.rate, self.writer = path, rate, None
        self.beside = path.with_name(f"{path.stem}.part.mp4")

    def add(self, pixels: np.ndarray) -> None:
        """uint8 [H, W, 3], RGB; all of one size."""
        cv2 = video_library()
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = (pixels.shape[1], pixels.shape[0])
            self.writer = cv2.VideoWriter(str(self.beside), cv2.VideoWriter_fourcc(*"mp4v"), self.rate, size)
            if not self.writer.isOpened():
                raise BadInput(f"OpenCV cannot write the video {self.path}; name another folder with --out")
        self.writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        if self.writer is not None:
            self.writer.release()
            os.replace(self.beside, self.path)
