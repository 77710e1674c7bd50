"""`fleet-rcnn predict`: runs a trained detector on images, a video or a camera."""

import os
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from tqdm import tqdm

from detector.data.image_io import decoder_note
from detector.data.image_walk import describe_heic
from detector.data.text_files import printable
from detector.errors import FAILED, INTERRUPTED, OK, BadInput, count_of
from detector.inference.predictor import BATCH_SIZE, Predictor, load_predictor
from detector.inference.slicing import Slicing
from detector.inference.sources import FrameSource, batch_frames, is_camera, is_video, open_frames, source_path
from detector.inference.weights_file import results_folder
from detector.inference.window import ShowFrame, camera_window
from detector.inference.writers import PredictionWriter, folder_for, refuse_replacing
from detector.report.image_budget import JpegBudget
from detector.report.report import PageInfo

REPORT_FRAMES = 2000  # the number of frames that a report plans for if the source does not know its own, as a camera
MISSING_FRAMES = 0.01  # fraction of the frames that a video states and may lack: for some formats it is an estimate


def predict(detector: str, source: str, device: str = "auto", score: float = 0.5, out: str = "", checkpoint: str = "",
            batch_size: int = BATCH_SIZE, limit: int = 0, report: bool = False, config_name: str = "",
            tile: int = 0, overlap: float | None = None) -> int:
    """Writes images with boxes, COCO results and a table into a folder; returns the exit status.

    An image or a folder that cannot be read is reported and skipped; the exit status is then 1, and so it is where a
    video ends before the number of frames that it states. After Ctrl-C the detections until then are written; the exit
    status is 130.

    Args:
        detector: a run folder, `coco`, `coco:BUILDER`, or a file of weights; see open_detector.
        source: an image, a folder, a video or camera:NUMBER.
        score: minimum score of a detection.
        out: folder of the results; empty: see default_folder. What an earlier call has written there is removed.
        checkpoint: of a run, see find_checkpoint.
        limit: maximum number of frames; 0: all.
        report: also write report.html.
        config_name: of a file of weights, see open_detector.
        tile, overlap: see Slicing; tile 0: no tiles; overlap None: the default.

    Raises:
        BadInput: an argument is invalid, or no image can be read.
    """
    if not 0 <= score <= 1 or batch_size < 1 or limit < 0:
        raise BadInput(f"--score {score:g} --batch {batch_size} --frames {limit}: --score must lie in 0 ... 1, --batch "
                       "must be 1 or more, --frames 0 (all) or more")
    if overlap is not None and not tile:
        raise BadInput(f"--overlap {overlap:g} is of the tiles of --slice: add --slice 640, or leave --overlap out")
    slicing = Slicing(tile, *([] if overlap is None else [overlap])) if tile else None
    folder = Path(out) if out else default_folder(detector, source)
    if os.path.isdir(source) and folder.resolve() == Path(source).resolve():
        raise BadInput(f"--out {folder}: this is the folder of the images, which would be replaced by images with "
                       "boxes. Name another folder")
    with open_frames(source, limit, str(folder)) as frames:
        refuse_replacing(folder, frames, report)
        predictor = load_predictor(detector, checkpoint, device, config_name)
        for line in filter(None, (decoder_note(), describe_folders(frames))):
            print(line)
        jpegs = JpegBudget(frames.count or REPORT_FRAMES) if report else None
        writer = PredictionWriter(folder, predictor.classes, frames, jpegs)
        with camera_window(f"{source}: q ends it") if is_camera(source) else nullcontext() as show:
            errors, elapsed_s, is_whole = predict_frames(predictor, frames, writer, score, 1 if show else batch_size,
                                                         slicing, show)
    if not writer.results:
        raise BadInput(f"{source}: the video has no frame" if is_video(source) else
                       f"no image below {source} could be read; first: {[*frames.unreadable_folders, *errors][0]}")
    writer.close()
    print_summary(writer, source, elapsed_s)
    if report:
        command = ["fleet-rcnn", "predict", detector, *(["--config", config_name] if config_name else []), source,
                   *(["--slice", str(tile)] if tile else []), "--report"]
        print(write_report(writer, predictor, " ".join(command), detector, source, score))
    missing = describe_missing(frames, len(errors), len(writer.results) if is_whole else None)
    for line in missing:
        print(line)
    if not is_whole:
        return INTERRUPTED
    return FAILED if missing else OK


def default_folder(detector: str, source: str) -> Path:
    """Returns predictions/NAME in the run folder, or in the current folder where there is no run.

    NAME is that of the source, with a suffix where another source of this name has the folder, see `folder_for`: the
    results of one source neither mix with those of another nor replace them.
    """
    name = source.replace(":", "") if is_camera(source) else Path(source).resolve().name
    name = name if is_camera(source) or os.path.isdir(source) else Path(name).stem
    return folder_for(source_path(source), results_folder(detector) / "predictions" / (name or "images"))


def print_summary(writer: PredictionWriter, source: str, elapsed_s: float) -> None:
    """Prints what was detected, how fast, and where it was written."""
    num_images = len(writer.results)
    unit, drawn = ("frame", "the video") if is_video(source) else ("image", "images with boxes")
    print(f"{count_of(writer.num_objects, 'object')} in {count_of(num_images, unit)}, "
          f"{num_images / elapsed_s:.1f} a second: {drawn}, "
          f"detections.json, images.json and detections.csv are in {printable(str(writer.folder))}")


def write_report(writer: PredictionWriter, predictor: Predictor, command: str, detector: str, source: str,
                 score: float) -> str:
    """Writes report.html; returns a sentence about it."""
    facts = (predictor.description, f"{count_of(writer.num_objects, 'object')} of score {score:g} or more")
    return printable(writer.report(PageInfo(f"{Path(source).name or source} by {Path(detector).resolve().name}", facts,
                                            command, predictor.config.evaluate.nms_thresh, score=score)))


def describe_folders(source: FrameSource) -> str:
    """Returns a line for each folder that is left out, and one for files of HEIC, and why; "" if there is none."""
    skipped = (f"left out: folder {folder}, which holds results of `predict`" for folder in source.skipped_folders)
    heic = [f"left out: {describe_heic([*source.heic_files])}"] if source.heic_files else []
    return printable("\n".join([*(f"left out: {message}" for message in source.unreadable_folders), *skipped, *heic]))


def describe_missing(source: FrameSource, unreadable_images: int, num_frames: int | None) -> list[str]:
    """Returns a line for each part of the source that could not be read: images, folders, the end of a video.

    Args:
        num_frames: that were read until the source ended by itself or at a limit; None: Ctrl-C came before.
    """
    lines = []
    if unreadable_images:
        lines.append(count_of(unreadable_images, "image could not be read and was left out",
                              "images could not be read and were left out"))
    if source.heic_files:
        lines.append(count_of(len(source.heic_files), "HEIC file was left out", "HEIC files were left out"))
    if source.unreadable_folders:
        lines.append(count_of(len(source.unreadable_folders), "folder could not be read and was left out",
                              "folders could not be read and were left out"))
    if source.name and source.count and num_frames is not None:
        if source.count - num_frames > max(1, MISSING_FRAMES * source.count):
            lines.append(f"the video states {source.stated_count} frames, {num_frames} could be read: its end is "
                         "missing or damaged. Copy the file again from where it comes")
    return lines


def predict_frames(predictor: Predictor, source: FrameSource, writer: PredictionWriter, score: float, batch_size: int,
                   slicing: Slicing | None, show: ShowFrame | None) -> tuple[list[str], float, bool]:
    """Predicts all frames. Shows a progress bar.

    Args:
        show: is given each drawn frame, uint8 [H, W, 3]; the rest is left out when it returns False.

    Returns:
        The errors of unreadable frames, the elapsed seconds, and False where Ctrl-C has ended it before the last frame.

    Raises:
        KeyboardInterrupt: Ctrl-C before there is any result.
    """
    started_at, errors = time.monotonic(), []
    divisor = predictor.model.preprocessing.size_divisor
    with tqdm(total=source.count, unit="frame" if source.name else "image", disable=None) as bar:
        try:
            for batch in batch_frames(source.frames, batch_size, predictor.resize, divisor):
                if batch[0].image is None:
                    errors.append(batch[0].error)
                    tqdm.write(printable(f"left out: {batch[0].error}"))
                else:
                    detections = predictor.detect([frame.image for frame in batch], score, batch_size, slicing)
                    drawn = [writer.add(frame, of_frame) for frame, of_frame in zip(batch, detections)]
                    if show and not all(show(np.asarray(image)) for image in drawn):
                        break
                bar.update(len(batch))
        except KeyboardInterrupt:
            if not writer.results:
                raise
            tqdm.write("interrupted: the detections until here are written")
            return errors, time.monotonic() - started_at, False
    return errors, time.monotonic() - started_at, True
