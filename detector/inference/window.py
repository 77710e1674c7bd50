"""A window that shows the frames of a camera with their boxes, through OpenCV."""

import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from detector.inference.sources import import_opencv

X_PORT = 6000  # of display 0
TIMEOUT_S = 5.0
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
    if sys.platform.startswith("linux") and (reason := why_no_display()):
        return reason  # asked first, as OpenCV with Qt would end the process
    cv2 = import_opencv()
    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    except cv2.error:
        return ("this OpenCV has none (pip uninstall opencv-python-headless, then pip install opencv-python, which has "
                "windows)")
    return ""


def why_no_display() -> str:
    """Returns "" if a display that the environment names answers, or why there is none."""
    displays = {name: os.environ[name] for name in ("DISPLAY", "WAYLAND_DISPLAY") if os.environ.get(name)}
    if not displays:
        return "there is no display"
    if any(answers(address) for name, value in displays.items() for address in addresses_of(name, value)):
        return ""
    return "the display does not answer (" + " ".join(f"{name}={value}" for name, value in displays.items()) + ")"


def addresses_of(name: str, value: str) -> list[str | tuple[str, int]]:
    """Returns the sockets of a display, any of which may be there: paths, names that begin with a zero byte, or hosts
    and ports.

    Args:
        name, value: of the environment variable: DISPLAY, such as :0 or localhost:10.0, or WAYLAND_DISPLAY.
    """
    if name == "WAYLAND_DISPLAY":
        return [str(Path(os.environ.get("XDG_RUNTIME_DIR", "")) / value)]
    match = re.fullmatch(r"(.*):(\d+)(\.\d+)?", value)
    if not match:
        return []
    host, number = match[1], int(match[2])
    if host in ("", "unix"):
        return [f"/tmp/.X11-unix/X{number}", f"\0/tmp/.X11-unix/X{number}"]
    return [(host.removeprefix("[").removesuffix("]"), X_PORT + number)]


def answers(address: str | tuple[str, int]) -> bool:
    """Returns whether a process listens at a socket."""
    try:
        if isinstance(address, tuple):
            socket.create_connection(address, TIMEOUT_S).close()
        else:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(TIMEOUT_S)
                client.connect(address)
    except (OSError, OverflowError):  # OverflowError: there is no such port
        return False
    return True
