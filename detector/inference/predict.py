"""A trained detector on images of one's own, a video or a camera: pictures with boxes, COCO results and a table."""

import os
import time
from pathlib import Path

from tqdm import tqdm

from detector.errors import FAILED, OK, BadInput
from detector.inference.predictor import Predictor, load_run
from detector.inference.sources import Source, batches, is_video, open_frames
from detector.inference.writers import Predictions
from detector.report.image_budget import JpegBudget
from detector.report.report import About

MANY = 2000  # frames of a camera, whose number nobody knows: a report plans its pictures for so many


def predict(run: str, source: str, device: str = "auto", score: float = 0.5, out: str = "", which: str = "best",
            batch: int = 4, limit: int = 0, report: bool = False) -> int:
    """Draws `source` (an image, a folder, a video or camera:NUMBER) into a folder; results lie beside the pictures,
    and with `report` a page that shows them all.

    An image that cannot be read is reported, the rest goes on, and the exit status is 1. Raises BadInput where there
    is nothing that can be read. Ctrl-C ends a camera or a video, and what was found until then is written.
    """
    if not 0 <= score <= 1 or batch < 1 or limit < 0:
        raise BadInput(f"--score {score:g} --batch {batch} --frames {limit}: a score lies in 0 ... 1, a batch holds 1 "
                       "or more images, --frames is how many at most (0: all)")
    folder = Path(out) if out else Path(run) / "predictions"
    if os.path.isdir(source) and folder.resolve() == Path(source).resolve():
        raise BadInput(f"--out {folder}: this is the folder of the images; drawing there would replace them")
    with open_frames(source, limit) as frames:
        detector = load_run(run, which, device)
        film = JpegBudget(frames.count or MANY) if report else None
        predictions = Predictions(folder, detector.classes, frames.name, frames.rate, film)
        broken, elapsed_s = run_through(detector, frames, predictions, score, batch, is_video(source))
    if not predictions.found:
        raise BadInput(f"no image below {source} could be read" if not is_video(source) else f"{source}: no frame came")
    predictions.close()
    found = predictions.found.values()
    objects, images = sum(len(one[-1]) for one in found), len(found)
    kind, drawn = ("frames", "the video") if is_video(source) else ("images", "pictures")
    print(f"{objects} objects in {images} {kind}, {images / elapsed_s:.1f} a second: {drawn}, detections.json, "
          f"images.json and detections.csv are in {folder}")
    if report:
        print(predictions.report(About(
            f"{Path(source).name or source} by {Path(run).resolve().name}",
            (f"{detector.config.model.backbone}, step {detector.step}", f"{objects} objects of score {score:g} or more"),
            f"fleet-rcnn predict {run} {source} --report", detector.config.evaluate.nms_thresh)))
    if broken:
        print(f"{broken} images could not be read and were left out")
    return FAILED if broken else OK


def run_through(detector: Predictor, source: Source, predictions: Predictions, score: float, batch: int,
                video: bool) -> tuple[int, float]:
    """Every frame to where its results are kept; gives how many could not be read, and the seconds it took."""
    started_at, broken = time.monotonic(), 0
    # Frames per second are shown while it runs, on a terminal.
    with tqdm(total=source.count, unit="frame" if video else "image", disable=None) as bar:
        try:
            for group in batches(source.frames, batch, detector.side, detector.model.input.multiple):
                if group[0].image is None:
                    broken += 1
                    tqdm.write(f"left out: {group[0].fault}")
                else:
                    for frame, found in zip(group, detector.detect([frame.image for frame in group], score, batch)):
                        predictions.add(frame, found)
                bar.update(len(group))
        except KeyboardInterrupt:
            tqdm.write("stopped by hand; what was found until now is written")
    return broken, time.monotonic() - started_at
