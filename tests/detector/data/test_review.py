"""Facts about annotations: nothing to learn, missing images, classes without objects, images in both splits."""

import os

import numpy as np
import pytest
from PIL import Image

from detector.config.schema import Config, Data, Evaluate
from detector.data.review import (
    describe_ignored,
    equal_images,
    missing_images,
    note_shared,
    nothing_readable,
    nothing_to_learn,
    review_classes,
    shared_paths,
    similar_classes,
)
from detector.structures import CROWD, DIFFICULT, build_dataset

CLASSES = ["cat", "dog", "owl"]


def dataset(labels=(), flags=(), name="coco train", root="root", paths=("a.png", "b.png"), warnings=()):
    """Returns images with one object of each label, all in the first one."""
    rows = [[0, label, flag, 16, 0, 0, 4, 4] for label, flag in zip(labels, flags or [0] * len(labels))]
    return build_dataset(name, str(root), CLASSES, [1, 2, 3], [(path, index, 64, 64) for index, path in enumerate(paths)],
                         np.array(rows, float).reshape(-1, 8), warnings)


@pytest.mark.parametrize("flags, options, remedy", [
    ([CROWD, CROWD], {}, "2 crowd regions. Set data.train_on_crowd=true"),
    ([DIFFICULT] * 2, {}, "2 difficult objects. Set data.train_on_difficult=true"),
    ([CROWD, DIFFICULT], {}, "Set data.train_on_crowd=true and data.train_on_difficult=true"),
    ([CROWD, CROWD], {"train_on_crowd": True}, ""), ([DIFFICULT] * 2, {"train_on_difficult": True}, ""),
    ([DIFFICULT] * 2, {"train_on_crowd": True}, "data.train_on_difficult=true"), ([0, CROWD], {}, "")])
def test_objects_that_are_all_left_out_of_training_are_a_problem_with_a_remedy_that_works(flags, options, remedy):
    problems = nothing_to_learn(dataset([1, 2], flags), Data(**options))
    assert len(problems) == bool(remedy) and remedy in "".join(problems)


@pytest.mark.parametrize("warnings, text", [
    ((), "2 images and no object. Add annotations"),
    (("4 boxes without area inside their image were left out; first: [0, 0, 0, 0]",), "no object: 4 boxes without area"),
    (("3 objects of other classes were left out: wolf",), "wolf. Fix the annotations, or data.classes")])
def test_no_object_at_all_is_a_problem_with_what_the_reader_left_out(warnings, text):
    problem, = nothing_to_learn(dataset(warnings=warnings), Data())
    assert text in problem and problem.startswith("nothing to learn: coco train below root")


def test_no_image_has_nothing_to_learn():
    assert "0 images" in nothing_to_learn(dataset(paths=()), Data())[0]


def test_ignored_objects_are_counted_by_kind():
    some = dataset([1, 1, 2, 2], [CROWD, DIFFICULT, DIFFICULT, 0])
    assert describe_ignored(some, Data()) == ", of which 1 crowd regions and 2 difficult objects are not trained on"
    assert describe_ignored(some, Data(train_on_crowd=True, train_on_difficult=True)) == ""


def test_classes_that_only_one_of_the_two_has_are_named():
    notes = review_classes(dataset([1, 1, 2]), dataset([1, 3], name="coco val"), Config())
    assert notes == ["coco val: no object of class dog; AP is the mean of the others",
                     "coco train: no object to train on of class owl; coco val has some"]


def test_classes_without_any_object_are_named_once():
    notes = review_classes(dataset([1]), dataset([1], name="coco val"), Config())
    assert notes == ["coco train: no object to train on of classes dog, owl; the detector cannot learn such classes"]
    assert review_classes(dataset([1]), None, Config()) == notes
    assert review_classes(dataset([1, 2, 3]), dataset([3, 2, 1]), Config()) == []


def test_objects_that_do_not_count_are_none():
    notes = review_classes(dataset([1, 2, 3], [0, CROWD, 0]), dataset([1, 2, 3], [0, 0, DIFFICULT], name="val"), Config())
    assert [note.partition(";")[0] for note in notes] == ["val: no object of class owl",
                                                           "coco train: no object to train on of class dog"]


def test_a_validation_without_objects_says_that_ap_cannot_be_computed():
    notes = review_classes(dataset([1, 2, 3]), dataset([], name="coco val"), Config())
    assert notes == ["coco val: no object that counts in an evaluation; AP cannot be computed"]


def test_the_metric_of_visual_genome_counts_absent_classes_as_0():
    config = Config(evaluate=Evaluate(metric="visual_genome"))
    assert review_classes(dataset([1, 2, 3]), dataset([1, 2]), config)[0].endswith("owl; such classes count as 0")


def test_images_in_both_data_sets_are_listed_by_path_and_by_content(tmp_path):
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"one"), ("d", b"2"), ("e", b"")):
        (tmp_path / name).write_bytes(content)
    train = dataset(root=tmp_path, paths=("a", "b", "missing"))
    val = dataset(root=tmp_path / ".", paths=("c", "b", "d", "missing too"), name="coco val")
    assert shared_paths(train, val) == [str(tmp_path / "b")]
    assert equal_images(train, val) == [f"{tmp_path / 'c'} = {tmp_path / 'a'}"]
    note, = note_shared(train, val, shared_paths(train, val), "by path")
    assert note.startswith("1 of 4 images of coco val are also in coco train (by path): ") and note_shared(
        train, val, [], "by path") == []


def test_a_link_to_a_training_image_is_equal_to_it(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert len(equal_images(dataset(root=tmp_path, paths=("a",)), dataset(root=tmp_path, paths=("b",)))) == 1
    assert equal_images(dataset(root=tmp_path, paths=("a",)), dataset(root=tmp_path, paths=())) == []


def test_images_of_which_none_can_be_read_teach_nothing(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg")
    (tmp_path / "a.jpg").write_bytes(b"no image")
    rows = [("a.jpg", 1, 8, 8), ("b.jpg", 2, 8, 8)]
    assert nothing_readable(build_dataset("drawn", str(tmp_path), ["cat"], [1], rows, np.zeros((0, 8)))) == []
    problem, = nothing_readable(build_dataset("drawn", str(tmp_path), ["cat"], [1], rows[:1], np.zeros((0, 8))))
    assert problem.startswith("nothing to learn: none of the 1 images of drawn can be read; first: corrupt image")


def test_missing_images_are_listed_in_their_order(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "link.png").symlink_to(tmp_path / "b" / "2.png")
    data = dataset(root=tmp_path, paths=("no/3.png", "a/1.png", "a/2.png", "a/link.png", "b/2.png", "a/1.png/4.png"))
    assert missing_images(data) == [str(tmp_path / name) for name in ("no/3.png", "a/2.png", "a/1.png/4.png")]


def test_an_image_in_a_folder_that_may_not_be_searched_is_not_missing(tmp_path, monkeypatch):
    def denied(path, *_args, **_options):
        raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr(os, "listdir", denied)
    monkeypatch.setattr(os, "stat", denied)
    assert missing_images(dataset(root="/data")) == []


def test_class_names_that_differ_only_in_case_or_accents_are_noted():
    assert similar_classes(("cat", "dog", "cats")) == []
    note, = similar_classes(("Cat", "dog", "cat"))
    assert note.startswith("the classes 'Cat', 'cat' differ only in case")
    assert len(similar_classes(("caf\u00e9", "cafe\u0301"))) == 1
