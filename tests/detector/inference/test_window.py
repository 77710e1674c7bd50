"""Frames of a camera in a window: q ends it, and without a window the video is written all the same."""

import itertools
import json
import socket
import sys
import tempfile

import numpy as np
import pytest

from detector.inference.predict import predict
from detector.inference.window import X_PORT, addresses_of, camera_window, why_no_display

cv2 = pytest.importorskip("cv2", reason="OpenCV, of the extra video, is not installed")
NUM_FRAMES = 4  # of the camera


class Camera:
    """A camera of grey frames, in the place of cv2.VideoCapture."""

    def __init__(self, number: int):
        self.frames = itertools.chain([np.full((48, 64, 3), 50 * shade, np.uint8) for shade in range(NUM_FRAMES)])

    def isOpened(self) -> bool:
        return True

    def get(self, _property: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        frame = next(self.frames, None)
        return frame is not None, frame

    def release(self) -> None:
        pass


class Screen:
    """The functions of OpenCV for windows: keys are pressed after given frames."""

    def __init__(self):
        self.shown, self.titles, self.keys, self.visible = [], [], {}, True
        self.server = socket.create_server(("127.0.0.1", 0))
        self.display = f"127.0.0.1:{self.server.getsockname()[1] - X_PORT}.0"

    def install(self, monkeypatch) -> "Screen":
        monkeypatch.setenv("DISPLAY", self.display)
        for name, function in (("namedWindow", lambda title, flags: self.titles.append(title)),
                               ("imshow", lambda title, pixels: self.shown.append(pixels)),
                               ("waitKey", lambda delay: self.keys.get(len(self.shown), -1)),
                               ("getWindowProperty", lambda title, flag: float(self.visible)),
                               ("destroyAllWindows", self.titles.clear)):
            monkeypatch.setattr(cv2, name, function)
        return self


@pytest.fixture
def camera(monkeypatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Camera)


def images_of(folder) -> list[dict]:
    return json.loads((folder / "images.json").read_text())["images"]


def test_every_frame_is_shown_with_its_boxes_and_written(untrained_run, camera, tmp_path, monkeypatch, capsys):
    screen = Screen().install(monkeypatch)
    assert predict(untrained_run, "camera:0", "cpu", 0.0, str(tmp_path / "out")) == 0
    assert len(screen.shown) == NUM_FRAMES == len(images_of(tmp_path / "out")) and not screen.titles
    assert all(pixels.shape == (48, 64, 3) and pixels.std() > 5 for pixels in screen.shown), "no box was drawn"
    assert (tmp_path / "out" / "camera0.mp4").stat().st_size and "no window" not in capsys.readouterr().out


@pytest.mark.parametrize("key", [ord("q"), 27])
def test_a_key_ends_the_camera_and_what_was_shown_is_written(key, untrained_run, camera, tmp_path, monkeypatch):
    screen = Screen().install(monkeypatch)
    screen.keys = {1: ord("x"), 2: key}
    assert predict(untrained_run, "camera:0", "cpu", 0.0, str(tmp_path / "out")) == 0
    assert len(screen.shown) == len(images_of(tmp_path / "out")) == 2 and not screen.titles


def test_closing_the_window_ends_the_camera(untrained_run, camera, tmp_path, monkeypatch):
    screen = Screen().install(monkeypatch)
    screen.visible = False
    assert predict(untrained_run, "camera:0", "cpu", 0.0, str(tmp_path / "out")) == 0 and len(screen.shown) == 1


def test_without_a_display_one_line_says_so_and_the_video_is_written(untrained_run, camera, tmp_path, monkeypatch, capsys):
    screen = Screen().install(monkeypatch)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert predict(untrained_run, "camera:0", "cpu", 0.0, str(tmp_path / "out")) == 0
    assert "no window: there is no display" in capsys.readouterr().out and not screen.shown
    assert len(images_of(tmp_path / "out")) == NUM_FRAMES


def test_a_display_that_does_not_answer_is_no_display(monkeypatch, capsys):
    screen = Screen().install(monkeypatch)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with camera_window("camera:0") as show:
        assert show is not None
    screen.server.close()
    for display in (screen.display, ":987654", "nonsense", "127.0.0.1:99999"):
        monkeypatch.setenv("DISPLAY", display)
        with camera_window("camera:0") as show:
            assert show is None
        assert f"no window: the display does not answer (DISPLAY={display}); only the video" in capsys.readouterr().out
    assert not screen.titles


def test_a_wayland_display_is_a_socket_in_the_folder_of_the_user(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:  # tmp_path may be too long
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-7")
        assert "does not answer (WAYLAND_DISPLAY=wayland-7)" in why_no_display()
        server.bind(f"{folder}/wayland-7")
        server.listen()
        assert why_no_display() == ""
        monkeypatch.setenv("WAYLAND_DISPLAY", f"{folder}/wayland-7")
        assert why_no_display() == ""
        monkeypatch.setenv("DISPLAY", ":987654")  # one of the two is enough
        assert why_no_display() == ""


@pytest.mark.parametrize("display, addresses", [
    (":0", ["/tmp/.X11-unix/X0", "\0/tmp/.X11-unix/X0"]), ("unix:1.0", ["/tmp/.X11-unix/X1", "\0/tmp/.X11-unix/X1"]),
    ("localhost:10.0", [("localhost", 6010)]), ("[::1]:2", [("::1", 6002)]), ("", []), ("none", [])])
def test_the_sockets_of_a_display(display, addresses):
    assert addresses_of("DISPLAY", display) == addresses


def test_an_opencv_without_windows_says_what_to_install(monkeypatch, capsys):
    def not_implemented(*args):
        raise cv2.error("The function is not implemented")
    Screen().install(monkeypatch)
    monkeypatch.setattr(cv2, "namedWindow", not_implemented)
    with camera_window("camera:0") as show:
        assert show is None
    assert "pip install opencv-python," in capsys.readouterr().out


def test_images_and_videos_open_no_window(untrained_run, tmp_path, monkeypatch):
    screen = Screen().install(monkeypatch)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
    assert predict(untrained_run, str(tmp_path / "a.png"), "cpu", 0.0, str(tmp_path / "out")) == 0
    assert not screen.shown and not screen.titles
