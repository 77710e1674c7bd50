"""`predict` on images, folders and videos: results, unreadable images, and originals that are never overwritten."""

import contextlib
import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from detector.errors import BadInput
from detector.inference.predict import describe_missing, predict
from detector.inference.predictor import ImageDetections, Predictor
from detector.inference.sources import FrameSource
from detector.inference.writers import coco_rows

CLASSES = ("cat", "dog")


@pytest.fixture
def run(untrained_run) -> str:
    return untrained_run


def predict_to_folder(run: str, source, score: float = 0.0, out="", checkpoint: str = "best", status: int = 0, **options) -> Path:
    """Predicts on the CPU, asserts the exit status and returns the folder of the results."""
    assert predict(run, str(source), "cpu", score, str(out), checkpoint, **options) == status
    return Path(out) if out else Path(run) / "predictions" / Path(source).name


def save_gradient(path: Path, height: int = 80, width: int = 60) -> Path:
    """Saves a smooth image, which JPEG compression hardly changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    down, right = np.linspace(0, 255, height)[:, None], np.linspace(0, 255, width)[None]
    pixels = np.stack([down + 0 * right, right + 0 * down, (down + right) / 2], axis=2)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def rows_by_image(folder: Path) -> dict[str, list[dict]]:
    """Returns the rows of detections.json by image name."""
    rows = {image["file_name"]: [] for image in json.loads((folder / "images.json").read_text())["images"]}
    for row in json.loads((folder / "detections.json").read_text()):
        rows[row["file_name"]].append(row)
    return rows


def classes_of(folder: Path) -> list[str]:
    return [category["name"] for category in json.loads((folder / "images.json").read_text())["categories"]]


def jpegs(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix == ".jpg"]


def test_a_folder_with_its_subfolders(run, tmp_path, capsys):
    for name, size in (("b.png", (80, 60)), ("a.jpg", (50, 90)), ("deep/er/c.bmp", (64, 64))):
        save_gradient(tmp_path / "images" / name, *size)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    folder = predict_to_folder(run, tmp_path / "images")
    rows = rows_by_image(folder)
    assert classes_of(folder) == ["cat", "dog"] and list(rows) == ["a.jpg", "b.png", "deep/er/c.bmp"]
    assert len(jpegs(folder)) == 3 and (folder / "deep" / "er").is_dir()
    assert "in 3 images" in (out := capsys.readouterr().out) and "a second" in out
    for name, detections in rows.items():
        width, height = Image.open(tmp_path / "images" / name).size
        assert detections and all(row["category"] in CLASSES and 0 <= row["score"] <= 1 for row in detections)
        assert [row["score"] for row in detections] == sorted((row["score"] for row in detections), reverse=True)
        for x, y, wide, high in (row["bbox"] for row in detections):
            assert 0 <= x < x + wide <= width + 0.02 and 0 <= y < y + high <= height + 0.02
    drawn = {Image.open(path).size for path in jpegs(folder)}
    assert drawn == {(60, 80), (90, 50), (64, 64)}


def test_pycocotools_and_csv_readers_can_read_the_results(run, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        save_gradient(tmp_path / "images" / name)
    folder = predict_to_folder(run, tmp_path / "images")
    index = COCO()
    index.dataset = json.loads((folder / "images.json").read_text()) | {"annotations": [], "info": {}}
    index.createIndex()
    loaded = index.loadRes(str(folder / "detections.json"))
    rows = list(csv.DictReader(open(folder / "detections.csv", newline="")))
    assert len(loaded.anns) == len(rows) == sum(map(len, rows_by_image(folder).values())) > 2
    for row, annotation in zip(rows, loaded.anns.values()):
        assert (int(row["image_id"]), row["class"]) == (annotation["image_id"], CLASSES[annotation["category_id"] - 1])
        assert float(row["x2"]) - float(row["x1"]) == pytest.approx(annotation["bbox"][2], abs=0.02)


def test_images_that_differ_only_in_suffix_are_all_written(run, tmp_path):
    for name, height in (("one.png", 50), ("one.jpg", 60), ("one.bmp", 70)):
        save_gradient(tmp_path / "images" / name, height)
    folder = predict_to_folder(run, tmp_path / "images", out=tmp_path / "out")
    assert sorted(Image.open(path).height for path in jpegs(folder)) == [50, 60, 70]
    assert len(rows_by_image(folder)) == 3


def test_a_single_image_also_by_its_bare_name(run, tmp_path, monkeypatch):
    path = save_gradient(tmp_path / "images" / "one.png")
    folder = predict_to_folder(run, path, out=tmp_path / "out")
    assert list(rows_by_image(folder)) == ["one.png"] and len(jpegs(folder)) == 1
    monkeypatch.chdir(path.parent)
    assert rows_by_image(predict_to_folder(run, "one.png", out=tmp_path / "again")) == rows_by_image(folder)


def test_without_detections_the_image_and_empty_tables_are_written(run, tmp_path, capsys):
    path = save_gradient(tmp_path / "images" / "one.png")
    folder = predict_to_folder(run, path, 1.0, tmp_path / "out")
    assert rows_by_image(folder) == {"one.png": []} and (folder / "detections.csv").read_text().count("\n") == 1
    drawn = np.asarray(Image.open(jpegs(folder)[0])).astype(int)
    assert np.abs(drawn - np.asarray(Image.open(path)).astype(int)).mean() < 2
    assert "0 objects in 1 image," in capsys.readouterr().out


def test_only_detections_of_the_minimum_score_are_written(run, tmp_path):
    path = save_gradient(tmp_path / "images" / "one.png")
    everything = rows_by_image(predict_to_folder(run, path, out=tmp_path / "all"))["one.png"]
    middle = everything[len(everything) // 2]["score"] - 1e-5  # it was rounded
    upper = rows_by_image(predict_to_folder(run, path, middle, tmp_path / "some"))["one.png"]
    assert 0 < len(upper) < len(everything) and upper == everything[:len(upper)]


def test_an_unreadable_image_is_reported_and_skipped_and_the_exit_status_is_1(run, tmp_path, capsys):
    for name in ("a.png", "c.png"):
        save_gradient(tmp_path / "images" / name)
    (tmp_path / "images" / "b.png").write_text("no image")
    folder = predict_to_folder(run, tmp_path / "images", status=1)
    assert list(rows_by_image(folder)) == ["a.png", "c.png"] and len(jpegs(folder)) == 2
    output = capsys.readouterr()
    assert "left out" in output.out + output.err and "b.png" in output.out + output.err and "1 image could not" in output.out


def test_the_detections_of_an_image_do_not_depend_on_the_other_images(run, tmp_path):
    for number, size in enumerate(((80, 60), (60, 80), (80, 60), (64, 64), (60, 80), (80, 60))):
        save_gradient(tmp_path / "images" / f"{number}.png", *size)
    single = rows_by_image(predict_to_folder(run, tmp_path / "images", out=tmp_path / "single", batch_size=1))
    batched = rows_by_image(predict_to_folder(run, tmp_path / "images", out=tmp_path / "batched", batch_size=4))
    assert list(single) == list(batched)
    for name in single:
        for row, other in zip(single[name], batched[name], strict=True):
            assert row["bbox"] == pytest.approx(other["bbox"], abs=0.02)
            assert row["score"] == pytest.approx(other["score"], abs=1e-4)


def test_a_source_without_readable_images_is_bad_input(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_text("no image")
    for source, message in (("none", "no such image or folder"), ("empty", "no image in .*jpg, .jpeg, .png"),
                            ("broken", "no image below .* could be read"), ("none.mp4", "no such video")):
        with pytest.raises(BadInput, match=message):
            predict_to_folder(run, tmp_path / source, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"score": 1.5}, {"batch_size": 0}, {"limit": -1}])
def test_invalid_numbers_are_bad_input(run, tmp_path, options):
    with pytest.raises(BadInput, match="--score .* --batch .* --frames"):
        predict_to_folder(run, save_gradient(tmp_path / "one.png"), **options)


def test_the_original_images_are_never_overwritten(run, tmp_path):
    """Not even if the output folder is that of the images."""
    paths = [save_gradient(tmp_path / "images" / name) for name in ("one.jpg", "two.png")]
    before = [path.read_bytes() for path in paths]
    for source in (tmp_path / "images", paths[0]):
        with contextlib.suppress(BadInput):
            predict_to_folder(run, source, out=tmp_path / "images")
    assert [path.read_bytes() for path in paths] == before


def test_the_best_checkpoint_is_the_default(run, tmp_path):
    path, checkpoints = save_gradient(tmp_path / "images" / "one.png"), Path(run) / "checkpoints"
    newest = rows_by_image(predict_to_folder(run, path, out=tmp_path / "a"))
    assert newest == rows_by_image(predict_to_folder(run, path, out=tmp_path / "b", checkpoint="last"))
    content = torch.load(checkpoints / "step-00000007.pt", weights_only=True)
    content["classes"] = ["cow", "pig"]
    torch.save(content, checkpoints / "best.pt")
    assert classes_of(predict_to_folder(run, path, out=tmp_path / "c")) == ["cow", "pig"]
    assert classes_of(predict_to_folder(run, path, out=tmp_path / "d", checkpoint="last")) == ["cat", "dog"]
    assert classes_of(predict_to_folder(run, path, out=tmp_path / "e", checkpoint=str(checkpoints / "best.pt"))) == ["cow", "pig"]


def test_a_missing_or_untrained_run_is_bad_input(run, tmp_path):
    path = save_gradient(tmp_path / "images" / "one.png")
    (tmp_path / "fresh").mkdir()
    for folder, checkpoint, message in (("none", "best", "no such run folder"), ("fresh", "best", "no checkpoint in"),
                                        ("fresh", "last", "no checkpoint in"), ("run", "none.pt", "no such checkpoint")):
        with pytest.raises(BadInput, match=message):
            predict_to_folder(str(tmp_path / folder), path, 0.5, checkpoint=checkpoint)


def write_clip(path: Path, shades):
    cv2 = pytest.importorskip("cv2", reason="OpenCV, of the extra video, is not installed")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for shade in shades:
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    return cv2


def test_a_video_is_written_as_a_video_with_numbered_frames(run, tmp_path, capsys):
    cv2 = write_clip(tmp_path / "clip.avi", (0, 120, 240, 60, 180))
    folder = predict_to_folder(run, tmp_path / "clip.avi", out=tmp_path / "out", batch_size=2)
    images = json.loads((folder / "images.json").read_text())["images"]
    assert [image["id"] for image in images] == [1, 2, 3, 4, 5] and {image["file_name"] for image in images} == {"clip.avi"}
    assert {row["image_id"] for row in json.loads((folder / "detections.json").read_text())} == {1, 2, 3, 4, 5}
    assert "in 5 frames" in capsys.readouterr().out and sorted(path.name for path in folder.iterdir()) == [
        "clip.mp4", "detections.csv", "detections.json", "images.json"]
    again = cv2.VideoCapture(str(folder / "clip.mp4"))
    assert again.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    frames = [again.read()[1] for _ in range(5)]
    assert all(frame.shape == (48, 64, 3) for frame in frames) and not again.read()[0]
    assert all(frame.std() > 5 for frame in frames), "no box was drawn"

    first = predict_to_folder(run, tmp_path / "clip.avi", out=tmp_path / "some", limit=2)
    assert len(json.loads((first / "images.json").read_text())["images"]) == 2


@pytest.mark.parametrize("limit, status, line", [
    (0, 1, "the video states 40 frames, {} could be read"), (30, 1, "the video states 40 frames, {} could be read"), (3, 0, "")])
def test_a_video_without_its_end_is_predicted_in_part_and_the_exit_status_is_1(run, tmp_path, capsys, limit, status, line):
    write_clip(path := tmp_path / "clip.avi", range(0, 240, 6))
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    folder = predict_to_folder(run, path, 1.0, tmp_path / "out", limit=limit, status=status)
    num_frames = len(json.loads((folder / "images.json").read_text())["images"])
    assert line.format(num_frames) in (output := capsys.readouterr().out) and ("states" in output) == bool(line) and 3 <= num_frames < 30


@pytest.mark.parametrize("count, num_frames, is_noted", [
    (20, 20, False), (20, 19, False), (20, 18, True), (1000, 990, False), (1000, 989, True), (20, 25, False), (None, 3, False),
    (20, None, False)])
def test_one_frame_or_one_in_a_hundred_may_be_missing(count, num_frames, is_noted):
    video = FrameSource(iter(()), count, 25.0, "clip.avi", stated_count=count or 0)
    assert bool(describe_missing(video, 0, num_frames)) == is_noted
    assert describe_missing(FrameSource(iter(()), 20, 0.0, ""), 0, 3) == []


def test_coco_rows_by_hand():
    detections = ImageDetections(np.array([[1.234, 2, 3, 4]], np.float32), np.array([0.98764], np.float32), np.array([2]), ("dog",))
    assert coco_rows(3, "a.jpg", detections) == [{"image_id": 3, "category_id": 2, "bbox": [1.23, 2.0, 1.77, 2.0],
                                             "score": 0.98764, "file_name": "a.jpg", "category": "dog"}]
    none = ImageDetections(detections.boxes[:0], detections.scores[:0], detections.labels[:0], ())
    assert coco_rows(3, "a.jpg", none) == []


def test_each_source_has_a_folder_and_predicting_it_again_renews_that(run, tmp_path):
    for name in ("one/a.jpg", "one/deep/er/b.png", "two/c.jpg", "two.jpg"):
        save_gradient(tmp_path / name)
    folders = {predict_to_folder(run, tmp_path / source): source for source in ("one", "two")}
    assert predict(run, str(tmp_path / "two.jpg"), "cpu", 1.0) == 0  # two once more, but a file: another source
    one, two = folders
    assert {path.name for path in jpegs(one)} == {"a.jpg", "b.png.jpg"} and {path.name for path in jpegs(two)} == {"c.jpg"}
    assert {path.name for path in jpegs(two.with_name("two-2"))} == {"two.jpg"}
    (one / "notes.txt").write_text("of the user")
    (tmp_path / "one" / "deep" / "er" / "b.png").unlink()
    predict_to_folder(run, tmp_path / "one", report=True)
    assert sorted(path.name for path in one.iterdir()) == ["a.jpg", "detections.csv", "detections.json", "images.json", "notes.txt",
                                                          "report.html"]
    predict_to_folder(run, tmp_path / "one")
    assert not (one / "report.html").exists() and (one / "notes.txt").exists()


def test_two_sources_of_one_name_keep_their_results(run, tmp_path, monkeypatch, capsys):
    for name in ("day1/images/a.jpg", "day2/images/b.jpg", "day3/images/c.jpg"):
        save_gradient(tmp_path / name)
    first = Path(run) / "predictions" / "images"
    folders = {1: first, 2: first.with_name("images-2"), 3: first.with_name("images-3")}
    for day in (1, 2, 3, 2, 1):
        monkeypatch.chdir(tmp_path / f"day{day}")
        assert predict(run, "images", "cpu", 1.0) == 0 and f"detections.csv are in {folders[day]}\n" in capsys.readouterr().out
    assert [[path.name for path in jpegs(folder)] for folder in folders.values()] == [["a.jpg"], ["b.jpg"], ["c.jpg"]]
    assert sorted(first.parent.iterdir()) == list(folders.values())
    content = json.loads((first / "images.json").read_text())
    assert content.pop("source") == os.path.realpath(tmp_path / "day1" / "images")
    (first / "images.json").write_text(json.dumps(content))  # as of earlier versions: whose results they are is not known
    assert predict(run, str(tmp_path / "day3" / "images"), "cpu", 1.0) == 0 and [path.name for path in jpegs(first)] == ["c.jpg"]


def test_only_files_that_predict_has_written_are_removed(run, tmp_path):
    """Not images that are predicted now, nor what lies elsewhere, nor anything beside the images.json of another program."""
    out, first = tmp_path / "out", save_gradient(tmp_path / "images" / "a.png")
    predict_to_folder(run, first, out=out)
    for _ in range(2):  # refused: the picture would replace the image of this name
        with pytest.raises(BadInput, match="Name another folder"):
            predict_to_folder(run, out / "a.png.jpg", out=out)
    listed, mine = json.loads((out / "images.json").read_text()), save_gradient(out / "mine.png")
    assert listed["written"] == ["a.png.jpg"]
    (out / "images.json").write_text(json.dumps(listed | {"written": ["mine.png", "../images/a.png", "gone.jpg", "."]}))
    predict_to_folder(run, mine, out=out)
    assert first.is_file() and mine.is_file() and (out / "a.png.jpg").is_file() and (out / "mine.png.jpg").is_file()
    (out / "images.json").write_text("[1]")
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(BadInput, match="Name another folder"):
        predict_to_folder(run, first, out=out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


# Folders as people have them

def test_linked_folders_are_read_and_hidden_files_are_not(run, tmp_path):
    save_gradient(tmp_path / "store" / "b.png")
    for name in ("a.png", "._a.png", ".ipynb_checkpoints/a.png"):
        save_gradient(tmp_path / "images" / name)
    (tmp_path / "images" / "camera").symlink_to("../store")
    assert list(rows_by_image(predict_to_folder(run, tmp_path / "images", 1.0, tmp_path / "out"))) == ["a.png", "camera/b.png"]


def test_names_that_differ_in_an_appended_suffix_have_pictures_of_their_own(run, tmp_path):
    for name, height in (("a.png", 50), ("a.png.jpg", 60), ("b.JPG", 70), ("b.JPG.jpg", 80)):
        save_gradient(tmp_path / "images" / name, height)
    folder = predict_to_folder(run, tmp_path / "images", 1.0, tmp_path / "out")
    assert {path.name: Image.open(path).height for path in jpegs(folder)} == {"a.png.jpg.jpg": 50, "a.png.jpg": 60, "b.JPG.jpg.jpg": 70,
                                                                            "b.JPG.jpg": 80}


def test_results_below_the_source_are_no_input(run, tmp_path, capsys):
    save_gradient(tmp_path / "images" / "a.jpg")
    for out in ("found", "found", "again"):
        folder = predict_to_folder(run, tmp_path / "images", 1.0, tmp_path / "images" / out)
        assert list(rows_by_image(folder)) == ["a.jpg"]
    assert "which holds results of `predict`" in capsys.readouterr().out
    for name in ("detections.json", "detections.csv"):  # as after a run that was killed
        (tmp_path / "images" / "again" / name).unlink()
    assert list(rows_by_image(predict_to_folder(run, tmp_path / "images", 1.0, tmp_path / "images" / "again"))) == ["a.jpg"]


def test_a_folder_that_may_not_be_read_is_named_and_the_exit_status_is_1(run, tmp_path, monkeypatch, capsys):
    for name in ("a.jpg", "secret/b.jpg"):
        save_gradient(tmp_path / "images" / name)
    scandir = os.scandir

    def denied(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)
    monkeypatch.setattr(os, "scandir", denied)
    folder = predict_to_folder(run, tmp_path / "images", 1.0, tmp_path / "out", status=1)
    assert list(rows_by_image(folder)) == ["a.jpg"]
    assert "secret: Permission denied" in (output := capsys.readouterr().out) and "1 folder could not be read" in output


def test_names_that_are_not_utf_8_are_written_in_one_representation(run, tmp_path):
    name = os.fsdecode(b"Stra\xdfe.jpg")
    save_gradient(tmp_path / "images" / "Strasse.jpg").rename(tmp_path / "images" / name)
    folder = predict_to_folder(run, tmp_path / "images", out=tmp_path / "out", report=True)
    assert (folder / name).is_file() and list(rows_by_image(folder)) == [r"Stra\udcdfe.jpg"]
    with open(folder / "detections.csv", encoding="utf-8", newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {r"Stra\udcdfe.jpg"}
    assert "udcdfe.jpg" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("height, width", [(1, 1), (1, 400), (400, 1), (2, 66000), (3, 5)])
def test_tiny_and_elongated_images_are_predicted_drawn_and_reported(run, tmp_path, height, width):
    save_gradient(tmp_path / "images" / "a.png", height, width)
    folder = predict_to_folder(run, tmp_path / "images", out=tmp_path / "out", report=True)
    image, = json.loads((folder / "images.json").read_text())["images"]
    assert (image["height"], image["width"]) == (height, width) and max(Image.open(folder / "a.png.jpg").size) <= 65500
    assert "jpegs" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_name_as_long_as_file_systems_allow(run, tmp_path):
    save_gradient(tmp_path / "images" / ("a" * 251 + ".png"))
    folder = predict_to_folder(run, tmp_path / "images", 1.0, tmp_path / "out")
    assert [path.name for path in jpegs(folder)] == ["000001.jpg"] and list(rows_by_image(folder)) == ["a" * 251 + ".png"]


def test_the_error_about_an_image_gives_a_remedy_that_predict_has(run, tmp_path, capsys):
    save_gradient(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "b.png").write_text("no image")
    predict_to_folder(run, tmp_path / "images", 1.0, tmp_path / "out", status=1)
    output = capsys.readouterr()
    assert "Replace it" in output.out + output.err and "unreadable_images" not in output.out + output.err


@pytest.mark.parametrize("whole_batches", [0, 1])
def test_ctrl_c_writes_what_is_there_and_ends_with_130(run, tmp_path, monkeypatch, capsys, whole_batches):
    for number in range(3):
        save_gradient(tmp_path / "photos" / f"{number}.png")
    detect, batches = Predictor.detect, []

    def interrupted_detect(self, images, *args):
        batches.append(len(images))
        if len(batches) > whole_batches:
            raise KeyboardInterrupt
        return detect(self, images, *args)

    monkeypatch.setattr(Predictor, "detect", interrupted_detect)
    if not whole_batches:
        with pytest.raises(KeyboardInterrupt):
            predict(run, str(tmp_path / "photos"), score=0.0, out=str(tmp_path / "out"), batch_size=1)
        return
    assert predict(run, str(tmp_path / "photos"), score=0.0, out=str(tmp_path / "out"), batch_size=1) == 130
    assert "interrupted: the detections until here are written" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) == 1
