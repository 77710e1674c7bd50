"""Images one after another, from a file, a folder, a video or a camera; read ahead of what is done with them."""

import importlib
import itertools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterable, Iterator

import torch
from torch import Tensor

from detector.data.image_io import image_files, read_image
from detector.errors import BadInput
from detector.structures import SIZE_DIVISOR, Resize, padded_size

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
AHEAD = 8          # images that are read before they are asked for
WINDOW = 8         # batches of images that wait for others of their size
USUAL_RATE = 25.0  # frames per second of a camera or file that does not say


@dataclass(frozen=True)
class Frame:
    number: int           # from 1: of the image in the order of names, or of the frame
    name: str             # of the image below its folder, or of the video
    path: str             # of the image; empty for a frame of a video
    image: Tensor | None  # uint8 [3, H, W], RGB; None where it could not be read
    fault: str = ""       # and why


@dataclass(frozen=True)
class Source:
    frames: Iterator[Frame]
    count: int | None      # None: nobody knows
    rate: float            # frames per second of a video, 0 for images
    name: str              # of the video


def is_video(source: str) -> bool:
    return source.startswith("camera:") or source.lower().endswith(VIDEOS) and not os.path.isdir(source)


@contextmanager
def open_frames(source: str, limit: int = 0) -> Iterator[Source]:
    """An image, a folder of images, a video file or camera:NUMBER; at most `limit` frames, unless it is 0."""
    if is_video(source):
        with _video(source) as found:
            yield found if not limit else Source(itertools.islice(found.frames, limit),
                                                 min(limit, found.count or limit), found.rate, found.name)
        return
    paths = image_files(source)
    paths = paths[:limit] if limit else paths
    base = source if os.path.isdir(source) else os.path.dirname(source)
    with ThreadPoolExecutor(4) as pool:  # decoding lets other threads run
        yield Source(_read_ahead(pool, paths, base), len(paths), 0.0, "")


def _read_ahead(pool: ThreadPoolExecutor, paths: list[str], base: str) -> Iterator[Frame]:
    def read(number: int) -> Frame:
        path = paths[number - 1]
        name = os.path.relpath(path, base or ".")
        try:
            return Frame(number, name, path, read_image(path))
        except BadInput as error:
            return Frame(number, name, path, None, str(error))
    waiting: deque = deque()
    for number in range(1, len(paths) + 1):
        waiting.append(pool.submit(read, number))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _video(source: str) -> Iterator[Source]:
    cv2 = video_library()
    camera = source.removeprefix("camera:") if source.startswith("camera:") else None
    if camera is not None and not camera.isdigit():
        raise BadInput(f"{source}: a camera has a number, such as camera:0")
    if camera is None and not os.path.isfile(source):
        raise BadInput(f"no such video: {source}")
    capture = cv2.VideoCapture(source if camera is None else int(camera))
    try:
        if not capture.isOpened():
            raise BadInput(f"{source} cannot be opened: " + ("no camera of this number answers" if camera else
                           "it is no video, or of a kind that OpenCV does not know"))
        rate = capture.get(cv2.CAP_PROP_FPS)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if camera is None else 0
        name = os.path.basename(source) if camera is None else f"camera{camera}"
        yield Source(_video_frames(cv2, capture, name), count if count > 0 else None,
                     rate if 0 < rate < 1000 else USUAL_RATE, name)
    finally:
        capture.release()


def _video_frames(cv2, capture, name: str) -> Iterator[Frame]:
    for number in itertools.count(1):
        good, pixels = capture.read()
        if not good:
            return
        yield Frame(number, name, "", torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).permute(2, 0, 1))


def video_library():
    """OpenCV, of the extra `video`."""
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise BadInput("videos and cameras need OpenCV, which is not installed: pip install 'fleet-rcnn[video]'"
                       ) from error


def batches(frames: Iterable[Frame], size: int, side: Resize, multiple: int = SIZE_DIVISOR) -> Iterator[list[Frame]]:
    """Batches of frames that the network sees on one canvas, so that no image pays for another's padding.

    A frame waits for others of its kind only so long; those that could not be read come at once, alone.
    """
    waiting: dict[tuple[int, int], list[Frame]] = {}
    for frame in frames:
        if frame.image is None:
            yield [frame]
            continue
        kind = padded_size(frame.image, side, multiple)
        waiting.setdefault(kind, []).append(frame)
        if len(waiting[kind]) == size:
            yield waiting.pop(kind)
        elif sum(map(len, waiting.values())) >= WINDOW * size:
            yield waiting.pop(min(waiting, key=lambda kind: waiting[kind][0].number))
    yield from waiting.values()
