"""A trained detector on images of one's own: any folder, broken images among them, nothing overwritten."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector import checkpoint
from detector.checkpoint import TrainState
from detector.config.load import load_config
from detector.errors import BadInput
from detector.model.build import build_model
from detector.optim import build_optimizer
from detector.predict import image_files, predict, rows

CLASSES, CPU = ("cat", "dog"), torch.device("cpu")


@pytest.fixture
def run(tiny, config_file, tmp_path) -> str:
    """The folder of a run whose detector knows nothing: a third for each class, so that it finds much above 0.3."""
    config = load_config(str(config_file), tiny)
    torch.manual_seed(0)
    model = build_model(config.model, config.evaluate, len(CLASSES))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = TrainState(model, build_optimizer(model, config.optim), scaler, None, step=7)
    checkpoint.save(tmp_path / "run", state, config, CLASSES, 4)
    return str(tmp_path / "run")


def picture(path: Path, height: int = 80, width: int = 60) -> Path:
    """Smooth, so that a JPEG of it is almost the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    down, right = np.linspace(0, 255, height)[:, None], np.linspace(0, 255, width)[None]
    pixels = np.stack([down + 0 * right, right + 0 * down, (down + right) / 2], axis=2)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def written(folder: Path) -> dict:
    return json.loads((folder / "detections.json").read_text())


def pictures(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix == ".jpg"]


def test_a_folder_with_all_below_it(run, tmp_path, capsys):
    for name, size in (("b.png", (80, 60)), ("a.jpg", (50, 90)), ("deep/er/c.bmp", (64, 64))):
        picture(tmp_path / "images" / name, *size)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    folder = predict(run, str(tmp_path / "images"), CPU, 0.0, "")
    assert folder == Path(run) / "predictions"
    said = written(folder)
    assert said["classes"] == ["cat", "dog"] and list(said["images"]) == ["a.jpg", "b.png", "deep/er/c.bmp"]
    assert len(pictures(folder)) == 3 and (folder / "deep" / "er").is_dir()
    assert "in 3 images" in capsys.readouterr().out
    for name, found in said["images"].items():
        width, height = Image.open(tmp_path / "images" / name).size
        assert found and all(one["class"] in CLASSES and 0 <= one["score"] <= 1 for one in found)
        assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
        for one in found:
            x1, y1, x2, y2 = one["box"]
            assert 0 <= x1 < x2 <= width + 0.01 and 0 <= y1 < y2 <= height + 0.01
    drawn = {Image.open(path).size for path in pictures(folder)}
    assert drawn == {(60, 80), (90, 50), (64, 64)}


def test_pictures_of_equal_names_do_not_take_each_others_place(run, tmp_path):
    for name, height in (("one.png", 50), ("one.jpg", 60), ("one.bmp", 70)):
        picture(tmp_path / "images" / name, height)
    folder = predict(run, str(tmp_path / "images"), CPU, 0.0, str(tmp_path / "out"))
    assert sorted(Image.open(path).height for path in pictures(folder)) == [50, 60, 70]
    assert len(written(folder)["images"]) == 3


def test_a_single_image_also_by_its_bare_name(run, tmp_path, monkeypatch):
    path = picture(tmp_path / "images" / "one.png")
    folder = predict(run, str(path), CPU, 0.0, str(tmp_path / "out"))
    assert list(written(folder)["images"]) == ["one.png"] and len(pictures(folder)) == 1
    monkeypatch.chdir(path.parent)
    again = predict(run, "one.png", CPU, 0.0, str(tmp_path / "again"))
    assert written(again) == written(folder)


def test_nothing_found_is_the_picture_and_an_empty_list(run, tmp_path, capsys):
    path = picture(tmp_path / "images" / "one.png")
    folder = predict(run, str(path), CPU, 1.0, str(tmp_path / "out"))
    assert written(folder)["images"] == {"one.png": []} and written(folder)["score"] == 1.0
    drawn = np.asarray(Image.open(pictures(folder)[0])).astype(int)
    assert np.abs(drawn - np.asarray(Image.open(path)).astype(int)).mean() < 2
    assert "0 objects in 1 images" in capsys.readouterr().out


def test_the_score_decides_what_is_written(run, tmp_path):
    path = picture(tmp_path / "images" / "one.png")
    everything = written(predict(run, str(path), CPU, 0.0, str(tmp_path / "all")))["images"]["one.png"]
    middle = everything[len(everything) // 2]["score"]
    some = written(predict(run, str(path), CPU, middle, str(tmp_path / "some")))["images"]["one.png"]
    assert 0 < len(some) < len(everything) and some == everything[:len(some)]


def test_a_broken_image_is_reported_and_the_rest_goes_on(run, tmp_path, capsys):
    for name in ("a.png", "c.png"):
        picture(tmp_path / "images" / name)
    (tmp_path / "images" / "b.png").write_text("no image")
    folder = predict(run, str(tmp_path / "images"), CPU, 0.0, "")
    assert list(written(folder)["images"]) == ["a.png", "c.png"] and len(pictures(folder)) == 2
    said = capsys.readouterr()
    assert "left out" in said.out + said.err and "b.png" in said.out + said.err


def test_no_image_is_bad_input_with_its_reason(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_text("no image")
    for source, message in (("none", "no such image or folder"), ("empty", "no image in .*jpg, .jpeg, .png"),
                            ("broken", "no image below .* could be read")):
        with pytest.raises(BadInput, match=message):
            predict(run, str(tmp_path / source), CPU, 0.5, str(tmp_path / "out"))


def test_images_of_ones_own_are_never_overwritten(run, tmp_path):
    """Also where the pictures shall lie in the folder of the images."""
    paths = [picture(tmp_path / "images" / name) for name in ("one.jpg", "two.png")]
    before = [path.read_bytes() for path in paths]
    with contextlib.suppress(BadInput):
        predict(run, str(tmp_path / "images"), CPU, 0.0, str(tmp_path / "images"))
    assert [path.read_bytes() for path in paths] == before


def test_the_best_is_taken_unless_another_checkpoint_is_named(run, tmp_path):
    path, checkpoints = str(picture(tmp_path / "images" / "one.png")), Path(run) / "checkpoints"
    newest = written(predict(run, path, CPU, 0.0, str(tmp_path / "a")))
    assert newest == written(predict(run, path, CPU, 0.0, str(tmp_path / "b"), "last"))
    content = torch.load(checkpoints / "step-00000007.pt", weights_only=True)
    content["classes"] = ["cow", "pig"]
    torch.save(content, checkpoints / "best.pt")
    assert written(predict(run, path, CPU, 0.0, str(tmp_path / "c")))["classes"] == ["cow", "pig"]
    assert written(predict(run, path, CPU, 0.0, str(tmp_path / "d"), "last"))["classes"] == ["cat", "dog"]
    named = predict(run, path, CPU, 0.0, str(tmp_path / "e"), str(checkpoints / "best.pt"))
    assert written(named)["classes"] == ["cow", "pig"]


def test_a_run_that_is_not_there_or_not_trained_is_bad_input(run, tmp_path):
    path = str(picture(tmp_path / "images" / "one.png"))
    (tmp_path / "fresh").mkdir()
    for folder, which, message in (("none", "best", "no such run folder"), ("fresh", "best", "no checkpoint in"),
                                   ("fresh", "last", "no checkpoint in"), ("run", "none.pt", "no such checkpoint")):
        with pytest.raises(BadInput, match=message):
            predict(str(tmp_path / folder), path, CPU, 0.5, "", which)


def test_image_files_come_in_the_order_of_their_names(tmp_path):
    for name in ("10.png", "2.JPG", "deep/1.jpeg", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(Path(path).relative_to(tmp_path)) for path in image_files(str(tmp_path))] == [
        "10.png", "2.JPG", "deep/1.jpeg"]
    assert image_files(str(tmp_path / "x.txt")) == [str(tmp_path / "x.txt")]  # named by hand: tried


def test_rows_by_hand():
    detections = {"boxes": np.array([[1.234, 2, 3, 4]], np.float32), "scores": np.array([0.98764], np.float32),
                  "labels": np.array([2])}
    assert rows(detections, CLASSES) == [{"class": "dog", "score": 0.9876, "box": [1.23, 2.0, 3.0, 4.0]}]
    assert rows({key: value[:0] for key, value in detections.items()}, CLASSES) == []
