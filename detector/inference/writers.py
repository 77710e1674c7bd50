"""Writes predictions: COCO results and the ids of their images, a CSV table, and images or a video with boxes."""

import contextlib
import csv
import io
import itertools
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
from detector.run.files import DETECTIONS_FILE, REPORT_FILE, read_json, write_whole
from detector.structures import Dataset, Detections, build_dataset, concat_detections, to_xywh
from detector.visualization.draw_boxes import draw_boxes, limit_side

COLUMNS = ("image_id", "image", "class", "score", "x1", "y1", "x2", "y2")
JPEG_QUALITY = 92
MAX_JPEG_SIDE = 65_500  # pixels; libjpeg's limit
WRITTEN = "written"     # key of images.json: names of the pictures, the video and the report beside it
SOURCE = "source"       # key of images.json: what was predicted, see sources.source_path
MAX_NAME_BYTES = 255    # of a file's name on most file systems


class PredictionWriter:
    """Collects the detections of all frames. Images are drawn at once; `close` writes everything else."""

    def __init__(self, folder: Path, classes: tuple[str, ...], source: FrameSource, jpegs: JpegBudget | None = None):
        """
        Args:
            source: whose frames are predicted.
            jpegs: collects the images of a report; None: no report.
        """
        self.folder, self.classes, self.jpegs, self.source = folder, classes, jpegs, source
        self.written: list[str] = []  # names of all files but the tables
        self.video = AnnotatedVideo(folder / f"{Path(source.name).stem}.mp4", source.fps) if source.name else None
        if self.video:
            self.written.append(self.video.path.name)
        self.results: dict[int, tuple[str, int, int, ImageDetections]] = {}  # by frame number: name, height, width

    @property
    def num_objects(self) -> int:
        return sum(len(detections) for *_, detections in self.results.values())

    def add(self, frame: Frame, detections: ImageDetections) -> Image.Image:
        """Draws the detections of one frame and returns the drawn image.

        Raises:
            BadInput: the drawn image would replace the original one.
        """
        name = "" if self.video else picture_name(frame, self.source.image_names)
        path = self.folder / name
        if frame.path and path.resolve() == Path(frame.path).resolve():
            raise BadInput(f"--out {self.folder}: this is the folder of {frame.path}, which would be replaced by the "
                           "image with boxes. Name another folder")
        if not self.results:
            remove_earlier_results(self.folder, self.source)
        pixels = frame.image.permute(1, 2, 0).contiguous().numpy()
        self.results[frame.number] = (printable(frame.name), *pixels.shape[:2], detections)
        if self.jpegs:
            self.jpegs.add(pixels)
        limited, boxes = limit_side(pixels, detections.boxes, MAX_JPEG_SIDE)
        drawn = draw_boxes(limited, boxes, detections.labels, self.classes, detections.scores)
        if self.video:
            self.video.add(np.asarray(drawn))
            return drawn
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(path, quality=JPEG_QUALITY)
        self.written.append(name)
        return drawn

    def close(self) -> None:
        """Writes detections.json (COCO results), images.json (images and categories by id) and detections.csv.

        images.json also tells the source, and lists the other files that were written, for `remove_earlier_results`.
        """
        if self.video:
            self.video.close()
        report = [REPORT_FILE] if self.jpegs else []
        ordered = dict(sorted(self.results.items()))
        rows = [json.dumps(row) for number, (name, _, _, detections) in ordered.items()
                for row in coco_rows(number, name, detections)]
        write_whole(self.folder / DETECTIONS_FILE, "[" + ",\n ".join(rows) + "]\n")
        write_whole(self.folder / IMAGES_FILE, json.dumps(
            {"images": [{"id": number, "file_name": name, "height": height, "width": width}
                        for number, (name, height, width, _) in ordered.items()],
             "categories": [{"id": label, "name": name} for label, name in enumerate(self.classes, start=1)],
             SOURCE: self.source.path, WRITTEN: [*self.written, *report]}) + "\n")
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        for number, (name, _, _, detections) in ordered.items():
            writer.writerows([number, name, class_name, f"{score:.4f}", *(f"{corner:.2f}" for corner in box)]
                             for class_name, score, box in zip(detections.names, detections.scores, detections.boxes))
        write_whole(self.folder / TABLE_FILE, table.getvalue())

    def report(self, info: PageInfo) -> str:
        """Writes report.html; returns a sentence about it."""
        return write_prediction_report(self.folder / REPORT_FILE, info, *self.to_dataset(), self.jpegs)

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


def remove_earlier_results(folder: Path, source: FrameSource) -> None:
    """Removes what an earlier call of `predict` has written into a folder, and folders that are empty then.

    The list in images.json tells which files these are. All others stay, and so do the images that are predicted now.
    """
    tables = [DETECTIONS_FILE, TABLE_FILE, IMAGES_FILE]
    written = read_json(folder / IMAGES_FILE).get(WRITTEN)
    if not isinstance(written, list):  # no results, or those of another program
        return
    names = [str(name) for name in written]
    top = Path(os.path.realpath(folder))
    images = {os.path.realpath(os.path.join(source.folder, name)) for name in source.image_names}
    for name in [*names, *tables]:
        path = Path(os.path.realpath(folder / name))
        if top in path.parents and str(path) not in images:
            path.unlink(missing_ok=True)
            for parent in path.parents[:len(path.parents) - len(top.parents) - 1]:
                with contextlib.suppress(OSError):  # not empty
                    parent.rmdir()


def folder_for(source: str, folder: Path) -> Path:
    """Returns the folder for the results of a source: this one, or with -2, -3, ... where another source has it.

    The source is in images.json; results without it, as earlier versions wrote them, are replaced.

    Args:
        source: see `source_path`.
    """
    names = (folder.name if number == 1 else f"{folder.name}-{number}" for number in itertools.count(1))
    return next(place for place in map(folder.with_name, names)
                if read_json(place / IMAGES_FILE).get(SOURCE, source) == source)


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
