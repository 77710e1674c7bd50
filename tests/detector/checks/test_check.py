"""What is wrong with a config, its data and the machine is said before anything runs, all of it, with remedies."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from detector.checks.check import check, examine
from detector.checks.dataset import SHOWN
from detector.config.load import load_config
from detector.errors import BAD_INPUT, OK


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
def overrides(root, tmp_path) -> list[str]:
    return [*TINY, f"data.root={root}", f"data.cache={tmp_path / 'cache'}", f"run.folder={tmp_path / 'runs'}",
            "run.name=checked", "batch.size=2"]


@pytest.fixture
def run_check(overrides, config_file, capsys):
    """check() with overrides -> (exit status, what was printed)."""
    def run(*more: str, **options) -> tuple[int, str]:
        return check(str(config_file), [*overrides, *more], **options), capsys.readouterr().out
    return run


def spoil(root: Path, split: str, **changes) -> None:
    """Lays `images`, `annotations` or `categories` over those of the annotation file."""
    path = root / f"{split}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def problems(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("problem:")]


def test_sound_data_is_counted_tried_and_said_to_be_sound(run_check, tmp_path):
    status, said = run_check()
    assert status == OK and "no problem found" in said and not problems(said), said
    assert "train: 8 images (1 without objects), 7 objects, 2 classes" in said
    assert "val: 2 images (1 without objects), 1 objects, 2 classes" in said
    assert "objects of each class: cat 3, dog 4" in said and "objects of each class: cat 0, dog 1" in said
    assert "note: coco val: no object of class cat" in said
    assert "a step is 2 images" in said and "4 steps an epoch" in said and "48 steps (12 epochs)" in said
    assert "largest canvas: 2 images on 96x64 pixels" in said and "GiB at its peak" in said  # 40 x 30 at short side 64
    assert " hours on 1 such process" in said and "12 evaluations" in said
    assert not (tmp_path / "runs").exists()


def test_for_a_script_the_same_is_json(run_check, root):
    (root / "train" / "3.png").unlink()
    status, said = run_check(as_json=True)
    found = json.loads(said)
    assert status == BAD_INPUT and set(found) == {"problems", "notes", "facts"}
    problem, = found["problems"]
    assert set(problem) == {"what", "why", "remedy"} and str(root / "train" / "3.png") in problem["why"]
    assert found["facts"]["coco train"]["images that are missing"] == [str(root / "train" / "3.png")]
    assert found["facts"]["plan"]["steps"] == 48
    assert json.loads(run_check("optim.rat=1", as_json=True)[1])["problems"][0]["why"].startswith("optim.rat")


def test_all_that_is_cheap_is_told_at_once_in_under_ten_seconds(run_check, root):
    spoil(root, "val", categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "wolf"}],
          annotations=[{"id": 7, "image_id": 1, "category_id": 2, "bbox": [1, 1, 9, 9]}])
    cpu_s = time.process_time()  # a clock would measure what else this machine does
    status, said = run_check("run.folder=/proc/nowhere", "model.weights=/nowhere.pth", "model.norm=frozen")
    assert status == BAD_INPUT and time.process_time() - cpu_s < 10
    told = problems(said)
    assert len(told) == 3 and said.splitlines()[-1] == "3 problems", said
    for words in (("run.folder=/proc/nowhere", "no file can be made in /proc"), ("/nowhere.pth", "no such file"),
                  ("unknown class wolf in coco val", "training knows cat, dog", "data.classes")):
        assert any(all(word in line for word in words) for line in told), words
    assert "not looked at yet: every image, and a trial step; mend what is wrong first" in said


def test_mistakes_of_both_splits_are_told_with_annotation_and_remedy(run_check, root):
    spoil(root, "train", annotations=[{"id": 1, "image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]},
                                      {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}])
    spoil(root, "val", annotations=[{"id": 5, "image_id": 1, "category_id": 8, "bbox": [1, 2, 3, 4]}])
    status, said = run_check()
    told = problems(said)
    assert status == BAD_INPUT and len(told) == 3, said
    for words in (("train.json", "annotation 1 is of image 99", "add it, or remove"),
                  ("train.json", "annotation 2", "bbox = [x, y, width, height]"),
                  ("val.json", "annotation 5 is of category 8")):
        assert any(all(word in line for word in words) for line in told), words


def test_quick_leaves_out_the_images_and_the_trial(run_check, root):
    (root / "train" / "3.png").unlink()
    status, said = run_check(quick=True)
    assert status == OK and "not looked at yet: every image, and a trial step" in said and "canvas" not in said


def test_a_missing_image_is_named(run_check, root):
    (root / "train" / "3.png").unlink()
    status, said = run_check()
    line, = problems(said)
    assert status == BAD_INPUT and "1 images of coco train are missing" in line
    assert str(root / "train" / "3.png") in line and "Bring them" in line


def test_an_image_that_cannot_be_opened_is_named(run_check, root):
    (root / "val" / "1.png").write_text("no image")
    status, said = run_check()
    assert status == BAD_INPUT and "1 images of coco val cannot be used" in said and str(root / "val" / "1.png") in said
    assert "data.unreadable_images=grey" in said


@pytest.mark.parametrize("width, height, wrong", [(40, 31, True), (80, 60, True), (30, 40, True), (40, 30, False)])
def test_another_size_than_annotated_is_named(width, height, wrong, run_check, root):
    image(root / "train" / "2.png", width, height)
    status, said = run_check()
    assert (status == BAD_INPUT) is wrong
    assert (f"2.png is {width}x{height} pixels (width x height), its annotations say 40x30" in said) is wrong


@pytest.mark.parametrize("orientation, noted", [(1, False), (3, True), (6, False)])
def test_a_photograph_turned_by_exif_is_fine_and_noted_where_its_size_does_not_tell(orientation, noted, run_check, root):
    turned = Image.Exif()
    turned[0x0112] = orientation  # 6: shown as 30 x 40, stored and annotated as 40 x 30; 3: upside down
    Image.new("RGB", (40, 30)).save(root / "train" / "2.png", exif=turned)
    status, said = run_check()
    assert status == OK and ("1 images of coco train are turned by their EXIF orientation" in said) is noted


def test_a_truncated_image_is_named(run_check, root):
    path = root / "train" / "2.png"
    path.write_bytes(path.read_bytes()[:-20])  # its header can still be read
    status, said = run_check()
    assert status == BAD_INPUT and "1 images of coco train cannot be used" in said and str(path) in said


def test_all_kinds_of_problems_of_all_splits_are_told_at_once_and_long_lists_cut(run_check, root):
    for number in range(1, SHOWN + 3):
        (root / "train" / f"{number}.png").unlink()
    (root / "train" / "8.png").write_text("no image")
    image(root / "val" / "1.png", 7, 7)
    status, said = run_check()
    assert status == BAD_INPUT and len(problems(said)) == 3 and said.splitlines()[-1] == "3 problems"
    missing = next(line for line in problems(said) if "missing" in line)
    assert f"{SHOWN + 2} images of coco train are missing" in missing and "; and 2 more" in missing
    assert missing.count(".png") == SHOWN


def test_what_was_mended_while_reading_is_told_by_annotation_and_no_problem(run_check, root):
    boxes = [[5, 5, 10, 10], [30, 20, 30, 5], [5, 5, 0, 0]]  # sound, out of the image, without area
    spoil(root, "train", annotations=[{"id": 10 + n, "image_id": 1, "category_id": 1, "bbox": box}
                                      for n, box in enumerate(boxes)])
    status, said = run_check(quick=True)
    assert status == OK
    mended = [line for line in said.splitlines() if "mended while reading" in line]
    assert len(mended) == 2 and "cut to it" in mended[0] and "without area" in mended[1]
    assert f"{root / 'train.json'}: boxes out of their image or without area: annotations 11, 12. Mend bbox" in said
    status, said = run_check("data.invalid_boxes=refuse", quick=True)
    assert status == BAD_INPUT and "2 faulty boxes in coco train" in said and "clip or drop" in said


def test_without_validation_that_is_said(run_check):
    status, said = run_check("data.val=[]", quick=True)
    assert status == OK and "no validation: data.val is empty" in said


def test_no_object_at_all_is_no_reason_to_fail(run_check, root):
    spoil(root, "val", annotations=[])
    status, said = run_check(quick=True)
    assert status == OK and "val: 2 images (2 without objects), 0 objects" in said


def test_what_cannot_be_shared_by_so_many_processes_is_told(run_check):
    status, said = run_check(quick=True, processes=3)
    assert status == BAD_INPUT and "batch.size=2 cannot be shared by 3 processes" in said


def test_the_function_behind_it_gives_problems_and_facts_and_writes_nothing(overrides, config_file, tmp_path):
    found = examine(load_config(str(config_file), overrides), quick=True, processes=2)
    assert found.problems == [] and "2 processes x 1" in found.facts["plan"]["sentence"]
    assert found.facts["disk"]["needed_gib"] > 0 and not (tmp_path / "runs").exists()
