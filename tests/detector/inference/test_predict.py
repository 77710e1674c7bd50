"""A trained detector on images of one's own: any folder, a video, broken images among them, nothing overwritten."""

import contextlib
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from detector.errors import BadInput
from detector.inference.predict import predict
from detector.inference.predictor import ImageDetections
from detector.inference.writers import coco_rows

CLASSES = ("cat", "dog")


@pytest.fixture
def run(untrained_run) -> str:
    return untrained_run


def look(run: str, source, score: float = 0.0, out="", which: str = "best", status: int = 0, **more) -> Path:
    """Predicts on the CPU, asserts the exit status and gives the folder of the results."""
    assert predict(run, str(source), "cpu", score, str(out), which, **more) == status
    return Path(out) if out else Path(run) / "predictions"


def picture(path: Path, height: int = 80, width: int = 60) -> Path:
    """Smooth, so that a JPEG of it is almost the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    down, right = np.linspace(0, 255, height)[:, None], np.linspace(0, 255, width)[None]
    pixels = np.stack([down + 0 * right, right + 0 * down, (down + right) / 2], axis=2)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def written(folder: Path) -> dict[str, list[dict]]:
    """The rows of each image, by its name."""
    said = {image["file_name"]: [] for image in json.loads((folder / "images.json").read_text())["images"]}
    for row in json.loads((folder / "detections.json").read_text()):
        said[row["file_name"]].append(row)
    return said


def classes_of(folder: Path) -> list[str]:
    return [kind["name"] for kind in json.loads((folder / "images.json").read_text())["categories"]]


def pictures(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix == ".jpg"]


def test_a_folder_with_all_below_it(run, tmp_path, capsys):
    for name, size in (("b.png", (80, 60)), ("a.jpg", (50, 90)), ("deep/er/c.bmp", (64, 64))):
        picture(tmp_path / "images" / name, *size)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    folder = look(run, tmp_path / "images")
    said = written(folder)
    assert classes_of(folder) == ["cat", "dog"] and list(said) == ["a.jpg", "b.png", "deep/er/c.bmp"]
    assert len(pictures(folder)) == 3 and (folder / "deep" / "er").is_dir()
    assert "in 3 images" in (out := capsys.readouterr().out) and "a second" in out
    for name, found in said.items():
        width, height = Image.open(tmp_path / "images" / name).size
        assert found and all(one["category"] in CLASSES and 0 <= one["score"] <= 1 for one in found)
        assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
        for x, y, wide, high in (one["bbox"] for one in found):
            assert 0 <= x < x + wide <= width + 0.02 and 0 <= y < y + high <= height + 0.02
    drawn = {Image.open(path).size for path in pictures(folder)}
    assert drawn == {(60, 80), (90, 50), (64, 64)}


def test_the_results_are_what_pycocotools_and_a_spreadsheet_read(run, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / "images" / name)
    folder = look(run, tmp_path / "images")
    truth = COCO()
    truth.dataset = json.loads((folder / "images.json").read_text()) | {"annotations": [], "info": {}}
    truth.createIndex()
    read = truth.loadRes(str(folder / "detections.json"))
    rows = list(csv.DictReader(open(folder / "detections.csv", newline="")))
    assert len(read.anns) == len(rows) == sum(map(len, written(folder).values())) > 2
    for row, note in zip(rows, read.anns.values()):
        assert (int(row["image_id"]), row["class"]) == (note["image_id"], CLASSES[note["category_id"] - 1])
        assert float(row["x2"]) - float(row["x1"]) == pytest.approx(note["bbox"][2], abs=0.02)


def test_pictures_of_equal_names_do_not_take_each_others_place(run, tmp_path):
    for name, height in (("one.png", 50), ("one.jpg", 60), ("one.bmp", 70)):
        picture(tmp_path / "images" / name, height)
    folder = look(run, tmp_path / "images", out=tmp_path / "out")
    assert sorted(Image.open(path).height for path in pictures(folder)) == [50, 60, 70]
    assert len(written(folder)) == 3


def test_a_single_image_also_by_its_bare_name(run, tmp_path, monkeypatch):
    path = picture(tmp_path / "images" / "one.png")
    folder = look(run, path, out=tmp_path / "out")
    assert list(written(folder)) == ["one.png"] and len(pictures(folder)) == 1
    monkeypatch.chdir(path.parent)
    assert written(look(run, "one.png", out=tmp_path / "again")) == written(folder)


def test_nothing_found_is_the_picture_and_empty_tables(run, tmp_path, capsys):
    path = picture(tmp_path / "images" / "one.png")
    folder = look(run, path, 1.0, tmp_path / "out")
    assert written(folder) == {"one.png": []} and (folder / "detections.csv").read_text().count("\n") == 1
    drawn = np.asarray(Image.open(pictures(folder)[0])).astype(int)
    assert np.abs(drawn - np.asarray(Image.open(path)).astype(int)).mean() < 2
    assert "0 objects in 1 images" in capsys.readouterr().out


def test_the_score_decides_what_is_written(run, tmp_path):
    path = picture(tmp_path / "images" / "one.png")
    everything = written(look(run, path, out=tmp_path / "all"))["one.png"]
    middle = everything[len(everything) // 2]["score"] - 1e-5  # it was rounded
    some = written(look(run, path, middle, tmp_path / "some"))["one.png"]
    assert 0 < len(some) < len(everything) and some == everything[:len(some)]


def test_a_broken_image_is_reported_the_rest_goes_on_and_the_status_tells(run, tmp_path, capsys):
    for name in ("a.png", "c.png"):
        picture(tmp_path / "images" / name)
    (tmp_path / "images" / "b.png").write_text("no image")
    folder = look(run, tmp_path / "images", status=1)
    assert list(written(folder)) == ["a.png", "c.png"] and len(pictures(folder)) == 2
    said = capsys.readouterr()
    assert "left out" in said.out + said.err and "b.png" in said.out + said.err and "1 images could not" in said.out


def test_what_is_found_in_an_image_does_not_depend_on_its_neighbours(run, tmp_path):
    for number, size in enumerate(((80, 60), (60, 80), (80, 60), (64, 64), (60, 80), (80, 60))):
        picture(tmp_path / "images" / f"{number}.png", *size)
    alone = written(look(run, tmp_path / "images", out=tmp_path / "alone", batch=1))
    together = written(look(run, tmp_path / "images", out=tmp_path / "together", batch=4))
    assert list(alone) == list(together)
    for name in alone:
        for one, other in zip(alone[name], together[name], strict=True):
            assert one["bbox"] == pytest.approx(other["bbox"], abs=0.02)
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)


def test_no_image_is_bad_input_with_its_reason(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_text("no image")
    for source, message in (("none", "no such image or folder"), ("empty", "no image in .*jpg, .jpeg, .png"),
                            ("broken", "no image below .* could be read"), ("none.mp4", "no such video")):
        with pytest.raises(BadInput, match=message):
            look(run, tmp_path / source, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"score": 1.5}, {"batch": 0}, {"limit": -1}])
def test_numbers_that_make_no_sense(run, tmp_path, wrong):
    with pytest.raises(BadInput, match="--score .* --batch .* --frames"):
        look(run, picture(tmp_path / "one.png"), **wrong)


def test_images_of_ones_own_are_never_overwritten(run, tmp_path):
    """Also where the pictures shall lie in the folder of the images."""
    paths = [picture(tmp_path / "images" / name) for name in ("one.jpg", "two.png")]
    before = [path.read_bytes() for path in paths]
    for source in (tmp_path / "images", paths[0]):
        with contextlib.suppress(BadInput):
            look(run, source, out=tmp_path / "images")
    assert [path.read_bytes() for path in paths] == before


def test_the_best_is_taken_unless_another_checkpoint_is_named(run, tmp_path):
    path, checkpoints = picture(tmp_path / "images" / "one.png"), Path(run) / "checkpoints"
    newest = written(look(run, path, out=tmp_path / "a"))
    assert newest == written(look(run, path, out=tmp_path / "b", which="last"))
    content = torch.load(checkpoints / "step-00000007.pt", weights_only=True)
    content["classes"] = ["cow", "pig"]
    torch.save(content, checkpoints / "best.pt")
    assert classes_of(look(run, path, out=tmp_path / "c")) == ["cow", "pig"]
    assert classes_of(look(run, path, out=tmp_path / "d", which="last")) == ["cat", "dog"]
    assert classes_of(look(run, path, out=tmp_path / "e", which=str(checkpoints / "best.pt"))) == ["cow", "pig"]


def test_a_run_that_is_not_there_or_not_trained_is_bad_input(run, tmp_path):
    path = picture(tmp_path / "images" / "one.png")
    (tmp_path / "fresh").mkdir()
    for folder, which, message in (("none", "best", "no such run folder"), ("fresh", "best", "no checkpoint in"),
                                   ("fresh", "last", "no checkpoint in"), ("run", "none.pt", "no such checkpoint")):
        with pytest.raises(BadInput, match=message):
            look(str(tmp_path / folder), path, 0.5, which=which)


def test_a_video_becomes_a_video_with_its_frames_numbered(run, tmp_path, capsys):
    cv2 = pytest.importorskip("cv2", reason="OpenCV, of the extra video, is not installed")
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for shade in (0, 120, 240, 60, 180):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    folder = look(run, tmp_path / "clip.avi", out=tmp_path / "out", batch=2)
    said = json.loads((folder / "images.json").read_text())["images"]
    assert [image["id"] for image in said] == [1, 2, 3, 4, 5] and {image["file_name"] for image in said} == {"clip.avi"}
    assert {row["image_id"] for row in json.loads((folder / "detections.json").read_text())} == {1, 2, 3, 4, 5}
    assert "in 5 frames" in capsys.readouterr().out and sorted(path.name for path in folder.iterdir()) == [
        "clip.mp4", "detections.csv", "detections.json", "images.json"]
    again = cv2.VideoCapture(str(folder / "clip.mp4"))
    assert again.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    frames = [again.read()[1] for _ in range(5)]
    assert all(frame.shape == (48, 64, 3) for frame in frames) and not again.read()[0]
    assert all(frame.std() > 5 for frame in frames), "nothing was drawn on it"

    some = look(run, tmp_path / "clip.avi", out=tmp_path / "some", limit=2)
    assert len(json.loads((some / "images.json").read_text())["images"]) == 2


def test_coco_rows_by_hand():
    found = ImageDetections(np.array([[1.234, 2, 3, 4]], np.float32), np.array([0.98764], np.float32), np.array([2]), ("dog",))
    assert coco_rows(3, "a.jpg", found) == [{"image_id": 3, "category_id": 2, "bbox": [1.23, 2.0, 1.77, 2.0],
                                             "score": 0.98764, "file_name": "a.jpg", "category": "dog"}]
    none = ImageDetections(found.boxes[:0], found.scores[:0], found.labels[:0], ())
    assert coco_rows(3, "a.jpg", none) == []
