"""Images one after another, and batches of like ones."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from detector.data.image_io import image_files
from detector.errors import BadInput
from detector.inference.sources import Frame, batches, is_video, open_frames
from detector.structures import Resize

SIDE = Resize(64, 128)


def frame(number: int, height: int, width: int) -> Frame:
    return Frame(number, f"{number}", "", torch.zeros((3, height, width), dtype=torch.uint8))


def numbers(frames: list[Frame], size: int) -> list[list[int]]:
    return [[one.number for one in group] for group in batches(frames, size, SIDE)]


def test_image_files_come_in_the_order_of_their_names(tmp_path):
    for name in ("10.png", "2.JPG", "deep/1.jpeg", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(Path(path).relative_to(tmp_path)) for path in image_files(str(tmp_path))] == [
        "10.png", "2.JPG", "deep/1.jpeg"]
    assert image_files(str(tmp_path / "x.txt")) == [str(tmp_path / "x.txt")]  # named by hand: tried


@pytest.mark.parametrize("source, video", [("a.mp4", True), ("A.MOV", True), ("camera:0", True), ("a.jpg", False),
                                           ("camera", False)])
def test_what_is_a_video(source, video):
    assert is_video(source) == video


def test_a_folder_may_be_called_like_a_video(tmp_path):
    (tmp_path / "clip.mp4").mkdir()
    assert not is_video(str(tmp_path / "clip.mp4"))


def test_a_folder_is_read_in_order_broken_ones_with_their_fault(tmp_path):
    for number in range(30):  # more than are read ahead
        Image.new("RGB", (8 + number, 9)).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "07.png").write_text("no image")
    with open_frames(str(tmp_path)) as source:
        assert source.count == 30 and source.rate == 0
        found = list(source.frames)
    assert [one.name for one in found] == [f"{number:02d}.png" for number in range(30)]
    assert [one.number for one in found] == list(range(1, 31))
    assert found[7].image is None and "07.png" in found[7].fault
    assert all(tuple(one.image.shape) == (3, 9, 7 + one.number) for one in found if one.image is not None)
    with open_frames(str(tmp_path), 3) as source:
        assert source.count == 3 and len(list(source.frames)) == 3


def test_batches_hold_what_has_one_canvas():
    tall, wide = (100, 50), (50, 100)
    frames = [frame(n, *size) for n, size in enumerate([tall, wide, tall, tall, wide], start=1)]
    assert numbers(frames, 2) == [[1, 3], [2, 5], [4]]
    assert numbers(frames, 1) == [[1], [2], [3], [4], [5]]
    assert numbers([], 2) == []


def test_a_broken_frame_comes_alone_and_at_once():
    frames = [frame(1, 64, 64), Frame(2, "b", "b", None, "broken"), frame(3, 64, 64)]
    assert numbers(frames, 2) == [[2], [1, 3]]


def test_no_frame_waits_for_ever():
    """With batches of 2 at most 16 frames wait; then the one that has waited longest goes, alone."""
    frames = [frame(1, 32, 128), *(frame(n, 64, 64 + 32 * (n % 3)) for n in range(2, 40))]
    groups = numbers(frames, 2)
    assert sorted(sum(groups, [])) == list(range(1, 40)) and all(len(group) <= 2 for group in groups)


def test_without_opencv_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "a.mp4").touch()
    for source in (str(tmp_path / "a.mp4"), "camera:0"):
        with pytest.raises(BadInput, match=r"fleet-rcnn\[video\]"), open_frames(source):
            pass


@pytest.mark.parametrize("source, said", [("camera:x", "camera:0"), ("camera:97", "no camera"), ("text.mp4", "no video"),
                                          ("none.mp4", "no such video")])
def test_videos_that_cannot_be_opened(tmp_path, source, said, capfd):
    pytest.importorskip("cv2", reason="OpenCV, of the extra video, is not installed")
    (tmp_path / "text.mp4").write_text("no video")
    path = source if source.startswith("camera") else str(tmp_path / source)
    with pytest.raises(BadInput, match=said), open_frames(path):
        pass


def test_a_batch_is_of_one_canvas_of_the_model_whatever_its_sides_are_multiples_of():
    frames = [frame(1, 64, 97), frame(2, 64, 100), frame(3, 64, 97), frame(4, 64, 100)]  # one canvas of multiples of 32
    for multiple, expected in ((32, [[1, 2], [3, 4]]), (1, [[1, 3], [2, 4]])):
        assert [[one.number for one in group] for group in batches(frames, 2, SIDE, multiple)] == expected
