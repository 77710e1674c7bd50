"""Every image is read; missing, forbidden and unusable ones are told apart, each with a remedy of its own."""

import builtins
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from detector.checks import images
from detector.checks.images import check_images, is_ambiguous
from detector.checks.problems import MAX_EXAMPLES, CheckReport
from detector.config.schema import Data
from detector.seeding import numpy_random_state
from detector.structures import build_dataset


@pytest.fixture
def data(tmp_path):
    """Three images of 40 x 30 random pixels."""
    for index in range(3):
        pixels = numpy_random_state(index).randint(0, 256, (30, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return build_dataset("coco train", str(tmp_path), ["cat"], [1], [(f"{i}.png", i, 30, 40) for i in range(3)],
                         np.zeros((0, 8)))


def checked(data, **options) -> CheckReport:
    report = CheckReport()
    check_images(data, Data(**options), report)
    return report


def test_good_images_are_no_problem_and_no_note(data):
    report = checked(data)
    assert report.problems == [] and report.notes == []
    assert report.facts["coco train"] and not any(report.facts["coco train"].values())


def test_no_image_is_no_problem(data):
    empty = build_dataset("coco train", data.root, ["cat"], [1], [], np.zeros((0, 8)))
    assert checked(empty).problems == []


def test_missing_images_are_all_facts_and_the_first_in_the_text(data, tmp_path):
    missing = build_dataset("coco train", data.root, ["cat"], [1],
                            [(f"no/{i}.png", i, 30, 40) for i in range(MAX_EXAMPLES + 4)], np.zeros((0, 8)))
    report = checked(missing)
    problem, = report.problems
    assert problem.subject == f"{MAX_EXAMPLES + 4} images of coco train are missing" and problem.cause.endswith("; and 4 more")
    assert "data.images" in problem.remedy
    assert len(report.facts["coco train"]["images that are missing"]) == MAX_EXAMPLES + 4


def test_an_image_that_may_not_be_read_is_not_corrupt(data, tmp_path, monkeypatch):
    real = builtins.open

    def denied(path, *args, **kwargs):
        if str(path).endswith("1.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)
    monkeypatch.setattr(builtins, "open", denied)
    problem, = checked(data).problems
    assert problem.subject == "1 image of coco train may not be read"
    assert problem.cause == f"cannot read {tmp_path / '1.png'}: Permission denied" and "chmod u+r" in problem.remedy


def test_one_remedy_is_stated_for_all_corrupt_images(data, tmp_path):
    for index in range(2):
        (tmp_path / f"{index}.png").write_text("no image")
    problem, = checked(data).problems
    assert str(problem).count("Fix or remove them") == 1 and "Replace" not in str(problem)
    assert str(tmp_path / "0.png") in problem.cause and str(tmp_path / "1.png") in problem.cause


def test_grey_images_instead_are_a_note_unless_no_image_can_be_used(data, tmp_path):
    (tmp_path / "0.png").unlink()
    report = checked(data, unreadable_images="grey")
    assert report.problems == [] and "1 image of coco train is missing and counts as grey" in report.notes[0]
    for index in (1, 2):
        (tmp_path / f"{index}.png").unlink()
    assert len(checked(data, unreadable_images="grey").problems) == 1


def test_an_error_of_any_kind_is_a_problem_of_its_image(data, monkeypatch):
    def fail(path, size):
        raise ZeroDivisionError("by zero")
    monkeypatch.setattr(images, "read_image", fail)
    problem, = checked(data).problems
    assert problem.subject.startswith("3 images") and "0.png: ZeroDivisionError: by zero" in problem.cause


@pytest.mark.parametrize("value", [0, 3, 200])
def test_blank_images_are_noted(value, data, tmp_path):
    Image.fromarray(np.full((30, 40, 3), value, np.uint8)).save(tmp_path / "1.png")
    report = checked(data)
    note, = report.notes
    assert report.problems == [] and note.startswith("1 image of coco train is blank") and str(tmp_path / "1.png") in note


def test_a_folder_in_place_of_an_image_is_a_problem(data, tmp_path):
    (tmp_path / "1.png").unlink()
    (tmp_path / "1.png").mkdir()
    problem, = checked(data).problems
    assert problem.subject == "1 image of coco train cannot be used" and "1.png" in problem.cause


def test_a_name_in_another_encoding_is_read(data, tmp_path):
    name = "stra\udcdfe.png"
    Image.fromarray(numpy_random_state(1).randint(0, 256, (30, 40, 3)).astype(np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / name)
    renamed = replace(data, paths=np.array([b"0.png", b"1.png", b"stra\xdfe.png"]))
    assert checked(renamed).problems == []
    (tmp_path / name).unlink()
    assert "stra\udcdfe.png" in checked(renamed).problems[0].cause


@pytest.mark.parametrize("orientation, is_square, ambiguous", [
    (1, True, False), (2, False, True), (4, True, True), (6, False, False), (6, True, True), (9, True, False)])
def test_orientations_that_the_size_does_not_show(orientation, is_square, ambiguous):
    assert is_ambiguous(orientation, is_square) is ambiguous
