"""The check reports all problems of a config, its data set and the machine, with remedies, before anything runs."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from detector.checks.check import check, run_checks
from detector.checks.dataset import invalid_annotations
from detector.checks.problems import MAX_EXAMPLES
from detector.config.load import load_config
from detector.config.schema import Data
from detector.errors import BAD_INPUT, OK
from detector.seeding import numpy_random_state


def image(path: Path, width: int = 40, height: int = 30) -> None:
    """Writes an image whose pixels depend on its path, so that no two are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = numpy_random_state(sum(str(path.relative_to(path.parent.parent)).encode())).randint(0, 256, (height, width, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


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
            "run.name=checked", "batch.size=2", "schedule.epochs=12", "evaluate.every_epochs=1"]


@pytest.fixture
def run_check(overrides, config_file, capsys):
    """Returns a function that calls check() with overrides and returns (exit status, printed text)."""
    def run(*extra: str, **options) -> tuple[int, str]:
        return check(str(config_file), [*overrides, *extra], **options), capsys.readouterr().out
    return run


def spoil(root: Path, split: str, **changes) -> None:
    """Replaces `images`, `annotations` or `categories` of an annotation file."""
    path = root / f"{split}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def problems(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("problem:")]


def test_data_without_problems_are_counted_and_tried(run_check, tmp_path):
    status, text = run_check()
    assert status == OK and "no problem found" in text and not problems(text), text
    assert "train: 8 images (1 without objects), 7 objects, 2 classes" in text
    assert "val: 2 images (1 without objects), 1 object, 2 classes" in text
    assert "objects of each class: cat 3, dog 4" in text and "objects of each class: cat 0, dog 1" in text
    assert "note: coco val: no object of class cat" in text
    assert "a step is 2 images" in text and "4 steps an epoch" in text and "48 steps (12 epochs)" in text
    assert "largest padded batch: 2 images of 96x64 pixels" in text and "GiB at their peak" in text  # 40 x 30 at short side 64
    assert " hours on 1 process, if all are as fast as this one" in text and "12 evaluations" in text
    assert not (tmp_path / "runs").exists()


def test_repeats_of_rare_classes_are_told_and_counted_as_steps(run_check):
    """Eight images of 4:3, of which cat is in three and dog in four: 3 x sqrt(0.9 / 0.375) + 4 x sqrt(0.9 / 0.5) + 1."""
    status, text = run_check("batch.repeat_threshold=0.9", quick=True)
    assert status == OK and "6 steps an epoch" in text, text
    assert ("batch.repeat_threshold=0.9: 7 of 8 images have rare classes and are drawn more often in each epoch: cat 1.55 times "
            "(in 37.5% of the images), dog 1.34 times (in 50% of the images)") in text


def test_with_json_the_same_report_is_printed_as_json(run_check, root):
    (root / "train" / "3.png").unlink()
    status, text = run_check(as_json=True)
    report = json.loads(text)
    assert status == BAD_INPUT and set(report) == {"problems", "notes", "facts"}
    problem, = report["problems"]
    assert set(problem) == {"what", "why", "remedy"} and str(root / "train" / "3.png") in problem["why"]
    assert report["facts"]["coco train"]["images that are missing"] == [str(root / "train" / "3.png")]
    assert report["facts"]["plan"]["steps"] == 48
    assert json.loads(run_check("optim.rat=1", as_json=True)[1])["problems"][0]["why"].startswith("optim.rat")


def test_all_problems_of_cheap_checks_are_reported_at_once_in_under_ten_seconds(run_check, root):
    spoil(root, "val", categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "wolf"}],
          annotations=[{"id": 7, "image_id": 1, "category_id": 2, "bbox": [1, 1, 9, 9]}])
    cpu_s = time.process_time()  # a clock would measure what else this machine does
    status, text = run_check("run.folder=/proc/nowhere", "model.weights=/nowhere.pth", "model.norm=frozen")
    assert status == BAD_INPUT and time.process_time() - cpu_s < 10
    lines = problems(text)
    assert len(lines) == 3 and text.splitlines()[-1] == "3 problems", text
    for parts in (("run.folder=/proc/nowhere", "cannot create a file in /proc"), ("/nowhere.pth", "no such file"),
                  ("unknown class wolf in coco val", "the training classes are cat, dog", "data.classes")):
        assert any(all(part in line for part in parts) for line in lines), parts
    assert "not checked yet: every image, and a trial step; fix the problems first" in text


def test_an_unknown_format_is_a_problem_with_the_closest_name(run_check):
    status, text = run_check("data.format=cocoo")
    assert status == BAD_INPUT and "data.format='cocoo': one of auto, coco, voc" in text and "(did you mean coco?)" in text


def test_mistakes_of_both_splits_are_reported_with_annotation_and_remedy(run_check, root):
    spoil(root, "train", annotations=[{"id": 1, "image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]},
                                      {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}])
    spoil(root, "val", annotations=[{"id": 5, "image_id": 1, "category_id": 8, "bbox": [1, 2, 3, 4]}])
    status, text = run_check()
    lines = problems(text)
    assert status == BAD_INPUT and len(lines) == 3, text
    for parts in (("train.json", "annotation 1 is of image 99", "Add it, or remove"),
                  ("train.json", "annotation 2", "bbox = [x, y, width, height]"),
                  ("val.json", "annotation 5 is of category 8")):
        assert any(all(part in line for part in parts) for line in lines), parts


def test_quick_reads_no_image_and_skips_the_trial_step(run_check, root):
    (root / "train" / "3.png").write_bytes(b"no image")
    status, text = run_check(quick=True)
    assert status == OK and "not checked yet: every image, and a trial step" in text and "padded batch" not in text


@pytest.mark.parametrize("quick", [False, True])
def test_a_missing_image_is_named(quick, run_check, root):
    (root / "train" / "3.png").unlink()
    status, text = run_check(quick=quick)
    line, = problems(text)
    assert status == BAD_INPUT and "1 image of coco train is missing" in line
    assert str(root / "train" / "3.png") in line and "Add them" in line


def test_an_image_that_cannot_be_opened_is_named(run_check, root):
    (root / "val" / "1.png").write_text("no image")
    status, text = run_check()
    assert status == BAD_INPUT and "1 image of coco val cannot be used" in text and str(root / "val" / "1.png") in text
    assert "data.unreadable_images=grey" in text


@pytest.mark.parametrize("width, height, differs", [(40, 31, True), (80, 60, True), (30, 40, True), (40, 30, False)])
def test_another_size_than_annotated_is_named(width, height, differs, run_check, root):
    image(root / "train" / "2.png", width, height)
    status, text = run_check()
    assert (status == BAD_INPUT) is differs
    assert (f"2.png is {width}x{height} pixels (width x height), its annotations say 40x30" in text) is differs


@pytest.mark.parametrize("orientation, noted", [(1, False), (3, True), (6, False)])
def test_exif_orientation_is_noted_only_where_the_image_size_does_not_reveal_it(orientation, noted, run_check, root):
    exif = Image.Exif()
    exif[0x0112] = orientation  # 6: shown as 30 x 40, stored and annotated as 40 x 30; 3: upside down
    Image.new("RGB", (40, 30)).save(root / "train" / "2.png", exif=exif)
    status, text = run_check()
    assert status == OK and ("1 image of coco train is turned by its EXIF orientation" in text) is noted


def test_a_truncated_image_is_named(run_check, root):
    path = root / "train" / "2.png"
    path.write_bytes(path.read_bytes()[:-20])  # its header can still be read
    status, text = run_check()
    assert status == BAD_INPUT and "1 image of coco train cannot be used" in text and str(path) in text


def test_all_kinds_of_problems_of_both_splits_are_reported_at_once_and_long_lists_are_cut(run_check, root):
    images = [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(1, MAX_EXAMPLES + 8)]
    spoil(root, "train", images=images)  # 1 to 7 exist
    (root / "train" / "8.png").write_text("no image")
    (root / "train" / "1.png").unlink()
    (root / "train" / "2.png").unlink()
    (root / "train" / "3.png").unlink()
    image(root / "val" / "1.png", 7, 7)
    status, text = run_check()
    assert status == BAD_INPUT and len(problems(text)) == 3 and text.splitlines()[-1] == "3 problems"
    missing = next(line for line in problems(text) if "missing" in line)
    assert f"{MAX_EXAMPLES + 2} images of coco train are missing" in missing and "; and 2 more" in missing
    assert missing.count(".png") == MAX_EXAMPLES


def test_boxes_fixed_while_reading_are_noted_by_annotation_id_and_are_no_problem(run_check, root):
    boxes = [[5, 5, 10, 10], [30, 20, 30, 5], [5, 5, 0, 0]]  # valid, outside the image, without area
    spoil(root, "train", annotations=[{"id": 10 + n, "image_id": 1, "category_id": 1, "bbox": box}
                                      for n, box in enumerate(boxes)])
    status, text = run_check(quick=True)
    assert status == OK
    notes = [line for line in text.splitlines() if line.startswith("note: coco train: 1 box ")]
    assert len(notes) == 2 and "cut to it" in notes[0] and "without area" in notes[1]
    assert f"{root / 'train.json'}: boxes outside their image, without area or with swapped corners: annotations 11, " \
        "12. Fix their bbox" in text
    status, text = run_check("data.invalid_boxes=refuse", quick=True)
    assert status == BAD_INPUT and "2 invalid boxes in coco train" in text and "clip or drop" in text


def test_a_run_without_validation_is_noted(run_check):
    status, text = run_check("data.val=[]", quick=True)
    assert status == OK and "no validation: data.val is empty" in text


def test_a_split_without_any_object_is_no_problem(run_check, root):
    spoil(root, "val", annotations=[])
    status, text = run_check(quick=True)
    assert status == OK and "val: 2 images (2 without objects), 0 objects" in text


def test_a_batch_that_cannot_be_split_over_all_processes_is_a_problem(run_check):
    status, text = run_check(quick=True, processes=3)
    assert status == BAD_INPUT and "batch.size=2 cannot be shared by 3 processes" in text


def test_run_checks_returns_problems_and_facts_and_writes_no_file(overrides, config_file, tmp_path):
    report = run_checks(load_config(str(config_file), overrides), quick=True, processes=2)
    assert report.problems == [] and "2 processes x 1" in report.facts["plan"]["sentence"]
    assert report.facts["disk"]["needed_gib"] > 0 and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flags, options, problem", [
    ({"iscrowd": 1}, [], "7 crowd regions. Set data.train_on_crowd=true"), ({"iscrowd": 1}, ["data.train_on_crowd=true"], "")])
def test_annotations_that_no_loss_sees_are_a_problem(flags, options, problem, run_check, root):
    content = json.loads((root / "train.json").read_text())
    spoil(root, "train", annotations=[{**annotation, **flags} for annotation in content["annotations"]])
    status, text = run_check(*options, quick=True)
    assert status == (BAD_INPUT if problem else OK) and problem in text
    assert ("7 objects, 2 classes, of which 7 crowd regions are not trained on" in text) is bool(problem)


def test_no_annotation_at_all_is_a_problem(run_check, root):
    spoil(root, "train", annotations=[])
    status, text = run_check(quick=True)
    assert status == BAD_INPUT and "nothing to learn: coco train" in text and len(problems(text)) == 1


def test_where_reading_train_fails_val_is_still_checked(run_check, root):
    (root / "train.json").write_text("{")
    spoil(root, "val", annotations=[{"id": 5, "image_id": 1, "category_id": 8, "bbox": [1, 2, 3, 4]}])
    status, text = run_check("data.format=coco")
    assert status == BAD_INPUT and "train.json is no JSON" in text and "annotation 5 is of category 8" in text


@pytest.mark.parametrize("value", ["2", "-1", "[0.2,val]", "0.999"])
def test_an_impossible_share_is_one_problem(value, run_check):
    status, text = run_check(f"data.val={value}", quick=True)
    assert (status == OK) is (value == "0.999") and len(problems(text)) == (status == BAD_INPUT), text


def test_a_share_of_the_training_images_is_described(run_check):
    status, text = run_check("data.val=0.25")
    assert status == OK and "coco train without data.val=0.25: 6 images" in text and "coco train, data.val=0.25: 2 images" in text


def test_images_of_val_that_are_trained_on_are_noted_quick_or_not(run_check, root):
    (root / "val" / "1.png").write_bytes((root / "train" / "3.png").read_bytes())
    note = f"1 of 2 images of coco val are also in coco train (by content): {root / 'val' / '1.png'} = {root / 'train' / '3.png'}"
    assert note in run_check(quick=True)[1]
    report = json.loads(run_check(as_json=True)[1])
    assert any(note in text for text in report["notes"]) and len(report["facts"]["images_in_both"]) == 1
    assert "2 of 2 images of coco val are also in coco val (by path)" not in run_check()[1]
    assert "8 of 8 images of coco train are also in coco train (by path)" in run_check("data.val=[train]", quick=True)[1]


@pytest.mark.parametrize("spoiled", [{"bbox": None}, {"bbox": "1 2 3 4"}, {"image_id": "x"}, {"bbox": [1, 2, float("nan"), 4]}])
def test_annotation_ids_of_invalid_boxes_need_no_valid_annotations(spoiled, root):
    spoil(root, "train", annotations=[{"id": "a", "image_id": 1, "category_id": 1, "bbox": ["39", 5, 9, 9], **spoiled},
                                      {"id": "b", "image_id": 1, "category_id": 1, "bbox": [5, 5, 0, 9]}, None])
    notes = invalid_annotations(Data(format="coco", root=str(root)), ("train",))
    assert notes == [] or "b. Fix" in notes[0]


def test_sizes_and_ids_as_texts_are_checked_as_they_are_read(run_check, root):
    content = json.loads((root / "train.json").read_text())
    spoil(root, "train", images=[{**image, "id": f"{image['id']:03}", "width": "40", "height": "30.0"} for image in content["images"]],
          annotations=[{**entry, "image_id": f"{entry['image_id']:03}", "bbox": [30, 5, 20, 10]} for entry in content["annotations"]])
    status, text = run_check()
    assert status == OK and "7 boxes exceed their image and were cut to it" in text and "annotations 1, 2" in text


def test_one_image_of_one_class_is_enough(run_check, root):
    spoil(root, "train", images=[{"id": 1, "file_name": "1.png", "width": 40, "height": 30}],
          annotations=[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 9, 9]}], categories=[{"id": 1, "name": "cat"}])
    status, text = run_check("data.val=[]", "batch.size=auto", "schedule.epochs=auto", "augment.min_size=auto",
                             "evaluate.min_size=auto", "augment.max_size=64", "evaluate.max_size=64", processes=1)
    assert status == OK and "1 image (0 without objects), 1 object, 1 class" in text


def test_options_that_the_backbone_contradicts_are_a_problem(overrides, config_file):
    report = run_checks(load_config(str(config_file), [*overrides, "model.anchor_sizes=[[8],[16]]"]))
    problem, = report.problems
    assert problem.subject == "model.backbone=resnet18_fpn" and "model.anchor_sizes=[[8.0], [16.0]]" in problem.cause
