"""Writes predictions: COCO results and the ids of their images, a CSV table, and images or a video with boxes."""

import contextlib
import csv
import io
import itertools
import json
import os
from collections.abc import Container
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
TABLES = (DETECTIONS_FILE, TABLE_FILE, IMAGES_FILE)
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
        self.video = AnnotatedVideo(folder / video_name(source), source.fps) if source.name else None
        if self.video:
            self.written.append(self.video.path.name)
        self.results: dict[int, tuple[str, int, int, ImageDetections]] = {}  # by frame number: name, height, width

    @property
    def num_objects(self) -> int:
        return sum(len(detections) for *_, detections in self.results.values())

    def add(self, frame: Frame, detections: ImageDetections) -> Image.Image:
        """Draws the detections of one frame and returns the drawn image.

        Before the first one, removes the results of an earlier call and lists the files of this one.
        """
        if not self.results:
            remove_earlier_results(self.folder, self.source)
            self.write_images_file(planned_files(self.source, self.jpegs is not None))
        pixels = frame.image.permute(1, 2, 0).contiguous().numpy()
        self.results[frame.number] = (printable(frame.name), *pixels.shape[:2], detections)
        if self.jpegs:
            self.jpegs.add(pixels)
        limited, boxes = limit_side(pixels, detections.boxes, MAX_JPEG_SIDE)
        drawn = draw_boxes(limited, boxes, detections.labels, self.classes, detections.scores)
        if self.video:
            self.video.add(np.asarray(drawn))
            return drawn
        name = picture_name(frame.name, frame.number, self.source.image_names)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(path, quality=JPEG_QUALITY)
        self.written.append(name)
        return drawn

    def close(self) -> None:
        """Writes detections.json (COCO results), images.json (images and categories by id) and detections.csv."""
        if self.video:
            self.video.close()
        ordered = dict(sorted(self.results.items()))
        rows = [json.dumps(row) for number, (name, _, _, detections) in ordered.items()
                for row in coco_rows(number, name, detections)]
        write_whole(self.folder / DETECTIONS_FILE, "[" + ",\n ".join(rows) + "]\n")
        self.write_images_file([*self.written, *([REPORT_FILE] if self.jpegs else [])])
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        for number, (name, _, _, detections) in ordered.items():
            writer.writerows([number, name, class_name, f"{score:.4f}", *(f"{corner:.2f}" for corner in box)]
                             for class_name, score, box in zip(detections.names, detections.scores, detections.boxes))
        write_whole(self.folder / TABLE_FILE, table.getvalue())

    def write_images_file(self, written: list[str]) -> None:
        """Writes images.json: the images until now and the categories by id, the source, and the list of other files.

        The list tells a later call what it may replace. It is written before the first of these files, so that what a
        call has left that was killed is known, too.
        """
        write_whole(self.folder / IMAGES_FILE, json.dumps(
            {"images": [{"id": number, "file_name": name, "height": height, "width": width}
                        for number, (name, height, width, _) in sorted(self.results.items())],
             "categories": [{"id": label, "name": name} for label, name in enumerate(self.classes, start=1)],
             SOURCE: self.source.path, WRITTEN: written}) + "\n")

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


def earlier_results(folder: Path, source: FrameSource) -> list[Path]:
    """Returns the paths, without links, of what an earlier call of `predict` has written into a folder.

    The list in images.json names these files; the tables are last. The images or the video that are predicted now, and
    files elsewhere, are left out.
    """
    written = read_json(folder / IMAGES_FILE).get(WRITTEN)
    if not isinstance(written, list):  # no results, or those of another program
        return []
    names = [*map(str, written), *TABLES]
    top = Path(os.path.realpath(folder))
    inputs, paths = input_files(source), [Path(os.path.realpath(folder / name)) for name in names]
    return [path for path in paths if top in path.parents and path not in inputs]


def input_files(source: FrameSource) -> set[Path]:
    """Returns the paths, without links, of the images or the video that are predicted."""
    images = (os.path.realpath(os.path.join(source.folder, name)) for name in source.image_names)
    return {Path(path) for path in (source.path, *images)}


def remove_earlier_results(folder: Path, source: FrameSource) -> None:
    """Removes what an earlier call of `predict` has written into a folder, and folders that are empty then."""
    top = Path(os.path.realpath(folder))
    for path in earlier_results(folder, source):
        path.unlink(missing_ok=True)
        for parent in path.parents[:len(path.parents) - len(top.parents) - 1]:
            with contextlib.suppress(OSError):  # not empty
                parent.rmdir()


def refuse_replacing(folder: Path, source: FrameSource, has_report: bool) -> None:
    """Raises BadInput where the results would replace what is predicted, or a file that `predict` has not written."""
    replaceable, inputs = set(earlier_results(folder, source)), input_files(source)
    names = [*planned_files(source, has_report), *TABLES]
    present = {parent: list_names(folder / parent) for parent in {os.path.dirname(name) for name in names}}
    for name in names:
        parent, base = os.path.split(name)
        path = Path(os.path.realpath(folder / name))
        if base in present[parent] and path not in replaceable:
            reason = "is predicted now" if path in inputs else "was not written by an earlier `predict`"
            raise BadInput(f"--out {folder}: {folder / name} {reason}, and would be replaced. Name another folder")


def list_names(folder: Path) -> set[str]:
    """Returns the names in a folder of results; none if it does not exist. Raises BadInput if it is a file."""
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
    except NotADirectoryError as error:
        raise BadInput(f"--out: {folder} lies below a file, or is one. Name another folder") from error


def planned_files(source: FrameSource, has_report: bool) -> list[str]:
    """Returns the names of all files but the tables that a call of `predict` writes, and of the unfinished video."""
    pictures = [picture_name(name, number, source.image_names) for name, number in source.image_names.items()]
    videos = [video_name(source), partial_name(video_name(source))] if source.name else []
    return [*pictures, *videos, *([REPORT_FILE] if has_report else [])]


def folder_for(source: str, folder: Path) -> Path:
    """Returns the folder for the results of a source: this one, or with -2, -3, ... where another source has it.

    The source is in images.json; results without it, as earlier versions wrote them, are replaced.

    Args:
        source: see `source_path`.
    """
    names = (folder.name if number == 1 else f"{folder.name}-{number}" for number in itertools.count(1))
    return next(place for place in map(folder.with_name, names)
                if read_json(place / IMAGES_FILE).get(SOURCE, source) == source)


def picture_name(image: str, number: int, image_names: Container[str]) -> str:
    """Returns the name of the drawn picture of an image: its own where that ends in .jpg, or else with .jpg appended.

    .jpg is appended once more where another image has that name. A name that is too long becomes the frame's number.
    """
    name = image
    while not name.endswith(".jpg") or name != image and name in image_names:
        name += ".jpg"
    folder, base = os.path.split(name)
    return name if len(os.fsencode(base)) <= MAX_NAME_BYTES else os.path.join(folder, f"{number:06d}.jpg")


def video_name(source: FrameSource) -> str:
    """Returns the name of the video with boxes."""
    return f"{Path(source.name).stem}.mp4"


def partial_name(name: str) -> str:
    """Returns the name of a video that is being written; OpenCV tells the format by its ending."""
    return f"{Path(name).stem}.part.mp4"


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
        self.partial = path.with_name(partial_name(path.name))

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
