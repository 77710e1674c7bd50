"""Results of `predict` replace those of an earlier call, and no other file: no source, no photograph, no table of another program."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.errors import BadInput
from detector.inference.predict import predict
from detector.inference.predictor import ImageDetections
from detector.inference.sources import open_frames
from detector.inference.writers import PredictionWriter, refuse_replacing

NONE = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), ())


def write_video(path: Path, frames: int = 3) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV, of the extra video, is not installed")
    code = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10.0, (64, 48))
    for shade in range(frames):
        writer.write(np.full((48, 64, 3), 9 * shade, np.uint8))
    writer.release()


def write_file(path: Path) -> Path:
    """Writes an image, a video or a text, as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".mp4", ".avi"):
        write_video(path)
    elif path.suffix in (".jpg", ".png"):
        Image.new("RGB", (40, 30), (200, 30, 60)).save(path)
    else:
        path.write_text('{"images": []}')
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}



@pytest.mark.parametrize("source, in_the_way, reason", [
    ("out/clip.mp4", "out/clip.mp4", "is predicted now"), ("out/m.avi", "out/m.mp4", "was not written by an earlier"),
    ("out/m.avi", "out/m.part.mp4", "was not written"), ("today/a.jpg", "out/a.jpg", "was not written"),
    ("today", "out/a.jpg", "was not written"), ("today", "out/deep/b.png.jpg", "was not written"),
    ("out/a.jpg", "out/a.jpg", "is predicted now"), ("today/a.jpg", "out/report.html", "was not written"),
    ("today/a.jpg", "out/detections.json", "was not written"), ("today/a.jpg", "out/images.json", "was not written")])
@pytest.mark.parametrize("has_results", [False, True])  # of an earlier call, beside the file
def test_a_file_in_the_way_is_bad_input_before_anything_is_done(tmp_path, monkeypatch, source, in_the_way, reason, has_results):
    for name in ("today/a.jpg", "today/deep/b.png", source, in_the_way):
        if Path(name).suffix:
            write_file(tmp_path / name)
    tables = ("out/images.json", "out/detections.json", "out/detections.csv")
    if has_results and in_the_way not in tables:
        write_file(tmp_path / "out" / "earlier.jpg")
        for name in tables:
            (tmp_path / name).write_text(json.dumps({"written": ["earlier.jpg"]}))
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path / "out")
    for out in (str(tmp_path / "out"), "."):
        with pytest.raises(BadInput, match=f"--out .*{Path(in_the_way).name} {reason}.* would be replaced. Name another folder"):
            predict("none", str(tmp_path / source), out=out, report=True)
    assert contents(tmp_path) == before


def test_a_file_in_place_of_the_folder_is_bad_input(tmp_path):
    image = write_file(tmp_path / "a.jpg")
    for out in (image, image / "deep"):
        with pytest.raises(BadInput, match=f"--out: {out} lies below a file, or is one"):
            predict("none", str(image), out=str(out))


@pytest.mark.parametrize("source, left", [("photos/a.jpg", "a.jpg"), ("photos/clip.avi", "clip.part.mp4")])
def test_what_a_killed_call_has_left_is_replaced(tmp_path, source, left):
    path, out = str(write_file(tmp_path / source)), tmp_path / "out"
    for _ in range(2):
        with open_frames(path, out=str(out)) as frames:
            refuse_replacing(out, frames, has_report=False)
            writer = PredictionWriter(out, ("cat",), frames)
            writer.add(next(frames.frames), NONE)
            if writer.video:
                writer.video.writer.release()
        assert sorted(contents(out)) == sorted([left, "images.json"])
    with open_frames(path, out=str(out)) as frames:
        writer = PredictionWriter(out, ("cat",), frames)
        writer.add(next(frames.frames), NONE)
        writer.close()
    last = left.replace(".part", "")
    assert sorted(contents(out)) == sorted([last, "images.json", "detections.json", "detections.csv"])
    assert json.loads((out / "images.json").read_text())["written"] == [last]


def test_the_video_that_is_predicted_stays_even_if_listed(tmp_path):
    video, out = write_file(tmp_path / "out" / "clip.avi"), tmp_path / "out"
    (out / "images.json").write_text(json.dumps({"written": ["clip.avi", "gone.mp4"]}))
    before = video.read_bytes()
    with open_frames(str(video), out=str(out)) as frames:
        refuse_replacing(out, frames, has_report=False)
        writer = PredictionWriter(out, ("cat",), frames)
        writer.add(next(frames.frames), NONE)
        writer.close()
    assert video.read_bytes() == before and (out / "clip.mp4").is_file()
