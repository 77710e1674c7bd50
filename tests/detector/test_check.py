"""What is wrong with a config and its data is said before anything runs, all of it, with files and remedies."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.check import SHOWN, check
from detector.config.load import load_config
from detector.errors import BAD_INPUT, OK, BadInput


def image(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    """Eight images for training and two for validation, 40 x 30 pixels, with a box each; the last has none."""
    for split, count in (("train", 8), ("val", 2)):
        images = [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(1, count + 1)]
        boxes = [{"id": n, "image_id": n, "category_id": 1 + n % 2, "bbox": [5, 5, 10, 10], "iscrowd": 0, "area": 100}
                 for n in range(1, count)]
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        for entry in images:
            image(tmp_path / "data" / split / entry["file_name"])
        (tmp_path / "data" / f"{split}.json").write_text(
            json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return tmp_path / "data"


@pytest.fixture
def run_check(root, config_file, tmp_path, capsys):
    """check() with overrides -> (exit status, what was printed)."""
    def run(*overrides: str) -> tuple[int, str]:
        config = load_config(str(config_file), [f"data.root={root}", f"data.cache={tmp_path / 'cache'}",
                                                f"run.folder={tmp_path / 'runs'}", "batch.size=2", *overrides])
        return check(config), capsys.readouterr().out
    return run


def spoil(root: Path, split: str, **changes) -> None:
    """Lays `images`, `annotations` or `categories` over those of the annotation file."""
    path = root / f"{split}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_sound_data_is_counted_and_said_to_be_sound(run_check, tmp_path):
    status, said = run_check()
    assert status == OK and "no problem found" in said and "problem:" not in said
    assert "train: 8 images (1 without objects), 7 objects, 2 classes" in said
    assert "val: 2 images (1 without objects), 1 objects, 2 classes" in said
    assert "objects of each class: cat 3, dog 4" in said and "objects of each class: cat 0, dog 1" in said
    assert "a step is 2 images" in said and "4 steps an epoch" in said
    assert not (tmp_path / "runs").exists()


def test_a_missing_image_is_named(run_check, root):
    (root / "train" / "3.png").unlink()
    status, said = run_check()
    assert status == BAD_INPUT and "1 problems" in said
    line = next(line for line in said.splitlines() if line.startswith("problem:"))
    assert "1 images of coco train are missing" in line and str(root / "train" / "3.png") in line and "Bring them" in line


def test_an_image_that_cannot_be_opened_is_named(run_check, root):
    (root / "val" / "1.png").write_text("no image")
    status, said = run_check()
    assert status == BAD_INPUT and "1 images of coco val cannot be used" in said and str(root / "val" / "1.png") in said
    assert "data.broken_images=grey" in said


@pytest.mark.parametrize("width, height, wrong", [(40, 31, True), (80, 60, True), (30, 40, True), (40, 30, False)])
def test_another_size_than_annotated_is_named(width, height, wrong, run_check, root):
    image(root / "train" / "2.png", width, height)
    status, said = run_check()
    assert (status == BAD_INPUT) is wrong
    assert (f"2.png is {width}x{height} pixels (width x height), its annotations say 40x30" in said) is wrong


def test_a_photograph_that_was_turned_after_annotation_is_fine_and_a_truncated_one_is_not(run_check, root):
    path = root / "train" / "2.png"
    turned = Image.Exif()
    turned[0x0112] = 6  # shown as 30 x 40, stored and annotated as 40 x 30
    Image.new("RGB", (40, 30)).save(path, exif=turned)
    assert run_check()[0] == OK
    path.write_bytes(path.read_bytes()[:-20])  # its header can still be read
    status, said = run_check()
    assert status == BAD_INPUT and "1 images of coco train cannot be used" in said and str(path) in said


def test_all_kinds_of_problems_of_all_splits_are_told_at_once_and_long_lists_cut(run_check, root):
    for number in range(1, SHOWN + 3):
        (root / "train" / f"{number}.png").unlink()
    (root / "train" / "8.png").write_text("no image")
    image(root / "val" / "1.png", 7, 7)
    status, said = run_check()
    problems = [line for line in said.splitlines() if line.startswith("problem:")]
    assert status == BAD_INPUT and len(problems) == 3 and said.splitlines()[-1] == "3 problems"
    missing = next(line for line in problems if "missing" in line)
    assert f"{SHOWN + 2} images of coco train are missing" in missing and "; and 2 more" in missing
    assert missing.count(".png") == SHOWN


def test_what_was_mended_while_reading_is_told_and_no_problem(run_check, root):
    boxes = [[5, 5, 10, 10], [30, 20, 30, 5], [5, 5, 0, 0]]  # sound, out of the image, without area
    spoil(root, "train", annotations=[{"id": n, "image_id": 1, "category_id": 1, "bbox": box}
                                      for n, box in enumerate(boxes)])
    status, said = run_check()
    assert status == OK
    mended = [line for line in said.splitlines() if "mended while reading" in line]
    assert len(mended) == 2 and "cut to it" in mended[0] and "without area" in mended[1]
    with pytest.raises(BadInput, match="2 faulty boxes .*data.faulty_boxes=refuse"):
        run_check("data.faulty_boxes=refuse")


def test_without_validation_that_is_said(run_check):
    status, said = run_check("data.val=[]")
    assert status == OK and "no validation: data.val is empty" in said


def test_no_object_at_all_is_no_reason_to_fail(run_check, root):
    spoil(root, "val", annotations=[])
    status, said = run_check()
    assert status == OK and "val: 2 images (2 without objects), 0 objects" in said


def test_an_annotation_file_that_makes_no_sense_is_an_error(run_check, root):
    spoil(root, "train", annotations=[{"id": 1, "image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]}])
    with pytest.raises(BadInput, match="annotation 1 is of image 99"):
        run_check()
