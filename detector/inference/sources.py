"""Sources of images: a file, a folder, a video or a camera. Files are read ahead of the caller."""

import importlib
import itertools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from detector.data.image_io import read_image
from detector.data.image_walk import list_images
from detector.errors import BadInput
from detector.run.files import DETECTIONS_FILE
from detector.structures import SIZE_DIVISOR, Resize, padded_size

IMAGES_FILE, TABLE_FILE = "images.json", "detections.csv"  # with DETECTIONS_FILE the tables that `predict` writes
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts",
                  ".3gp", ".ogv")
READ_AHEAD = 8       # image files that are read ahead of the caller
READERS = 4          # threads that read them
MAX_WAITING = 8      # batches' worth of frames that wait for others of the same padded size
DEFAULT_FPS = 25.0   # of a camera or video file that does not state its own


@dataclass(frozen=True)
class Frame:
    """One image of a source."""

    number: int           # from 1, in the order of the source
    name: str             # path of the image relative to its folder, or name of the video
    path: str             # of the image file; empty for a frame of a video
    image: Tensor | None  # uint8 [3, H, W], RGB; None if the file could not be read
    error: str = ""       # why the file could not be read


@dataclass(frozen=True)
class FrameSource:
    """The frames of an open source, and how many there are."""

    frames: Iterator[Frame]
    count: int | None  # None: unknown, as of a camera
    fps: float         # frames per second of a video; 0 for images
    name: str          # of the video; empty for images
    image_names: Mapping[str, int] = field(default_factory=dict)  # Frame.name -> Frame.number; empty for a video
    folder: str = ""                          # that the image names are relative to
    unreadable_folders: tuple[str, ...] = ()  # a message for each
    skipped_folders: tuple[str, ...] = ()     # below the source, with results of `predict`
    heic_files: tuple[str, ...] = ()          # below the source, which are not read
    path: str = ""                            # of the source, see source_path
    stated_count: int = 0                     # frames that a video file states, whatever the limit; 0: unknown


def is_video(source: str) -> bool:
    """Returns True for camera:NUMBER and for the name of a video file."""
    return is_camera(source) or source.lower().endswith(VIDEO_SUFFIXES) and not os.path.isdir(source)


def is_camera(source: str) -> bool:
    """Returns True for camera:NUMBER."""
    return source.startswith("camera:")


def source_path(source: str) -> str:
    """Returns what tells a source from all others: the path without links of an image, folder or video; camera:NUMBER.
    """
    return source if is_camera(source) else os.path.realpath(source)


@contextmanager
def open_frames(source: str, limit: int = 0, out: str = "") -> Iterator[FrameSource]:
    """Opens an image, a folder of images, a video file or camera:NUMBER.

    Args:
        limit: maximum number of frames; 0: all.
        out: folder of the results. Images in this folder and in those of earlier results are left out, except where the
            source itself is such a folder.

    Raises:
        BadInput: there is no such source, or it cannot be opened.
    """
    if is_video(source):
        with _open_video(source) as video:
            if limit:
                yield replace(video, frames=itertools.islice(video.frames, limit),
                              count=min(limit, video.count or limit))
            else:
                yield video
        return
    out_place = os.path.realpath(out) if out else ""
    listing = list_images(source, lambda folder, names: os.path.realpath(folder) == out_place
                          or {DETECTIONS_FILE, IMAGES_FILE, TABLE_FILE} <= set(names))
    paths = listing.paths[:limit] if limit else listing.paths
    folder = source if os.path.isdir(source) else os.path.dirname(source)
    names = [os.path.relpath(path, folder or ".") for path in paths]
    with ThreadPoolExecutor(READERS) as pool:  # decoding releases the GIL
        yield FrameSource(_read_ahead(pool, paths, names), len(paths), 0.0, "",
                          {name: number for number, name in enumerate(names, start=1)}, folder,
                          tuple(listing.unreadable), tuple(listing.skipped), tuple(listing.heic), source_path(source))


def _read_ahead(pool: ThreadPoolExecutor, paths: list[str], names: list[str]) -> Iterator[Frame]:
    def read(number: int) -> Frame:
        path, name = paths[number - 1], names[number - 1]
        try:
            return Frame(number, name, path, read_image(path, remedy="Replace it"))
        except BadInput as error:
            return Frame(number, name, path, None, str(error))
    pending: deque = deque()
    for number in range(1, len(paths) + 1):
        pending.append(pool.submit(read, number))
        if len(pending) > READ_AHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


@contextmanager
def _open_video(source: str) -> Iterator[FrameSource]:
    cv2 = import_opencv()
    camera = source.removeprefix("camera:") if is_camera(source) else None
    if camera is not None and not camera.isdecimal():
        raise BadInput(f"{source}: a camera is named by its number, such as camera:0")
    if camera is None and not os.path.isfile(source):
        raise BadInput(f"no such video: {source}")
    capture = cv2.VideoCapture(source if camera is None else int(camera))
    try:
        if not capture.isOpened():
            raise BadInput(f"{source} cannot be opened: " + ("no camera has this number" if camera else
                           "it is no video, or OpenCV does not know its format"))
        fps = capture.get(cv2.CAP_PROP_FPS)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if camera is None else 0
        name = os.path.basename(source) if camera is None else f"camera{camera}"
        yield FrameSource(_video_frames(cv2, capture, name), count if count > 0 else None,
                          fps if 0 < fps < 1000 else DEFAULT_FPS, name, path=source_path(source),
                          stated_count=max(count, 0))
    finally:
        capture.release()


def _video_frames(cv2, capture, name: str) -> Iterator[Frame]:
    for number in itertools.count(1):
        success, pixels = capture.read()
        if not success:
            return
        yield Frame(number, name, "", torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).permute(2, 0, 1))


def import_opencv():
    """Returns OpenCV's module; raises BadInput where it is not installed."""
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise BadInput("videos and cameras need OpenCV, which is not installed: pip install 'fleet-rcnn[video]'"
                       ) from error


def batch_frames(frames: Iterable[Frame], batch_size: int, resize: Resize,
                 divisor: int = SIZE_DIVISOR) -> Iterator[list[Frame]]:
    """Yields batches of frames that have the same padded size, so that no frame is padded for the sake of another.

    A frame that could not be read is yielded at once, alone. When MAX_WAITING batches' worth of frames wait for others
    of their size, the batch with the oldest frame is yielded incomplete.
    """
    waiting: dict[tuple[int, int], list[Frame]] = {}
    for frame in frames:
        if frame.image is None:
            yield [frame]
            continue
        size = padded_size(frame.image, resize, divisor)
        waiting.setdefault(size, []).append(frame)
        if len(waiting[size]) == batch_size:
            yield waiting.pop(size)
        elif sum(map(len, waiting.values())) >= MAX_WAITING * batch_size:
            yield waiting.pop(min(waiting, key=lambda size: waiting[size][0].number))
    yield from waiting.values()
