"""Frames of files, folders and videos, and batches of frames with the same padded size."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from detector.data.image_walk import image_files
from detector.errors import BadInput
from detector.inference.predict import describe_folders, describe_missing
from detector.inference.sources import Frame, batch_frames, is_video, open_frames
from detector.structures import Resize

RESIZE = Resize(64, 128)


def frame(number: int, height: int, width: int) -> Frame:
    return Frame(number, f"{number}", "", torch.zeros((3, height, width), dtype=torch.uint8))


def numbers(frames: list[Frame], size: int) -> list[list[int]]:
    return [[frame.number for frame in batch] for batch in batch_frames(frames, size, RESIZE)]


def test_image_files_come_in_the_order_of_their_names(tmp_path):
    for name in ("10.png", "2.JPG", "deep/1.jpeg", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(Path(path).relative_to(tmp_path)) for path in image_files(str(tmp_path))] == [
        "10.png", "2.JPG", "deep/1.jpeg"]
    assert image_files(str(tmp_path / "x.txt")) == [str(tmp_path / "x.txt")]  # named by the caller: not filtered by suffix


@pytest.mark.parametrize("source, video", [("a.mp4", True), ("A.MOV", True), ("camera:0", True), ("a.jpg", False),
                                           ("camera", False)])
def test_videos_are_recognised_by_name(source, video):
    assert is_video(source) == video


def test_a_folder_may_be_named_like_a_video(tmp_path):
    (tmp_path / "clip.mp4").mkdir()
    assert not is_video(str(tmp_path / "clip.mp4"))


def test_a_folder_is_read_in_order_unreadable_images_with_their_error(tmp_path):
    for number in range(30):  # more than are read ahead
        Image.new("RGB", (8 + number, 9)).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "07.png").write_text("no image")
    with open_frames(str(tmp_path)) as source:
        assert source.count == 30 and source.fps == 0
        frames = list(source.frames)
    assert [frame.name for frame in frames] == [f"{number:02d}.png" for number in range(30)]
    assert [frame.number for frame in frames] == list(range(1, 31))
    assert frames[7].image is None and "07.png" in frames[7].error
    assert all(tuple(frame.image.shape) == (3, 9, 7 + frame.number) for frame in frames if frame.image is not None)
    with open_frames(str(tmp_path), 3) as source:
        assert source.count == 3 and len(list(source.frames)) == 3


def test_a_batch_holds_frames_of_one_padded_size():
    tall, wide = (100, 50), (50, 100)
    frames = [frame(n, *size) for n, size in enumerate([tall, wide, tall, tall, wide], start=1)]
    assert numbers(frames, 2) == [[1, 3], [2, 5], [4]]
    assert numbers(frames, 1) == [[1], [2], [3], [4], [5]]
    assert numbers([], 2) == []


def test_an_unreadable_frame_is_yielded_alone_and_at_once():
    frames = [frame(1, 64, 64), Frame(2, "b", "b", None, "broken"), frame(3, 64, 64)]
    assert numbers(frames, 2) == [[2], [1, 3]]


def test_waiting_frames_are_limited():
    """With batches of 2 at most 16 frames wait; then the batch of the oldest one is yielded incomplete."""
    frames = [frame(1, 32, 128), *(frame(n, 64, 64 + 32 * (n % 3)) for n in range(2, 40))]
    groups = numbers(frames, 2)
    assert sorted(sum(groups, [])) == list(range(1, 40)) and all(len(batch) <= 2 for batch in groups)


def test_without_opencv_the_error_states_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "a.mp4").touch()
    for source in (str(tmp_path / "a.mp4"), "camera:0"):
        with pytest.raises(BadInput, match=r"fleet-rcnn\[video\]"), open_frames(source):
            pass


@pytest.mark.parametrize("source, message", [("camera:x", "camera:0"), ("camera:97", "no camera"), ("text.mp4", "no video"),
                                          ("none.mp4", "no such video")])
def test_videos_that_cannot_be_opened(tmp_path, source, message, capfd):
    pytest.importorskip("cv2", reason="OpenCV, of the extra video, is not installed")
    (tmp_path / "text.mp4").write_text("no video")
    path = source if source.startswith("camera") else str(tmp_path / source)
    with pytest.raises(BadInput, match=message), open_frames(path):
        pass


def test_the_padded_size_depends_on_the_size_divisor():
    frames = [frame(1, 64, 97), frame(2, 64, 100), frame(3, 64, 97), frame(4, 64, 100)]  # one padded size for divisor 32
    for divisor, expected in ((32, [[1, 2], [3, 4]]), (1, [[1, 3], [2, 4]])):
        assert [[frame.number for frame in batch] for batch in batch_frames(frames, 2, RESIZE, divisor)] == expected


def test_photographs_that_are_heic_are_left_out_with_a_word(tmp_path):
    Image.new("RGB", (8, 9)).save(tmp_path / "a.jpg")
    for name in ("a.HEIC", "IMG_2.HEIC", "IMG_1.heic"):
        (tmp_path / name).touch()
    with open_frames(str(tmp_path)) as source:
        assert source.count == 1 and describe_folders(source) == (
            f"left out: 2 files are HEIC, which is not read; first: {tmp_path}/IMG_1.heic. Save as JPEG")
        assert describe_missing(source, 0, 1) == ["2 HEIC files were left out"]
