"""A window that shows the frames of a camera with their boxes, through OpenCV."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from detector.inference.sources import import_opencv

KEYS = (ord("q"), 27)  # end the camera: q, Escape
ShowFrame = Callable[[np.ndarray], bool]  # uint8 [H, W, 3], RGB -> whether to go on


@contextmanager
def camera_window(title: str) -> Iterator[ShowFrame | None]:
    """Opens a window, and yields a function that shows a frame in it; or prints why there is none, and yields None.

    The function returns False where the user has pressed q or closed the window.
    """
    reason = why_no_window(title)
    if reason:
        print(f"no window: {reason}; only the video is written, until Ctrl-C")
        yield None
        return
    cv2 = import_opencv()

    def show(pixels: np.ndarray) -> bool:
        cv2.imshow(title, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(1) & 0xFF not in KEYS and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1
    try:
        yield show
    finally:
        cv2.destroyAllWindows()


def why_no_window(title: str) -> str:
    """Opens a window and returns "", or returns why that cannot be done."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display"  # asked first, as OpenCV with Qt would end the process
    cv2 = import_opencv()
    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    except cv2.error:
        return ("this OpenCV has none (pip uninstall opencv-python-headless, then pip install opencv-python, which has "
                "windows)")
    return ""
