"""The classes of a data set: matched by name, chosen by data.classes, joined from several splits."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_read import boxes_in_image, names, settings, write_coco, write_voc

from detector import read_dataset
from detector.data.classes import concat_datasets, relabel
from detector.data.formats import voc
from detector.data.read import read_datasets, read_splits, read_val
from detector.errors import BadInput
from detector.structures import DIFFICULT

ANY = [1, 1, 9, 9]  # a box where boxes do not matter


def test_classes_are_matched_by_name_whatever_their_ids_and_order(tmp_path):
    write_coco(tmp_path / "data", "train", {1: "cat", 2: "dog", 9: "emu"}, 1, [(0, key, ANY) for key in (1, 2, 9)])
    write_coco(tmp_path / "data", "val", {1: "emu", 4: "cat", 5: "dog"}, 2, [(1, key, ANY) for key in (5, 1, 4)])
    train, val = read_datasets(settings(tmp_path))
    assert train.classes == val.classes == ("cat", "dog", "emu")
    assert names(train) == ["cat", "dog", "emu"] and names(val) == ["dog", "emu", "cat"]
    assert train.category_ids.tolist() == [1, 2, 9]
    assert val.category_ids.tolist() == [4, 5, 1], "the ids of the file that is scored"
    assert val.warnings == ()


@pytest.mark.parametrize("classes, key", [({7: "dog"}, 7), ({1: "dog", 2: "fox"}, 1)])
def test_validation_may_lack_a_class_and_may_list_one_that_no_object_has(tmp_path, classes, key):
    write_coco(tmp_path / "data", "train", {1: "cat", 2: "dog"}, 1, [(0, 2, ANY)])
    write_coco(tmp_path / "data", "val", classes, 1, [(0, key, ANY)])
    _, val = read_datasets(settings(tmp_path))
    assert val.classes == ("cat", "dog") and names(val) == ["dog"]
    assert len(set(val.category_ids.tolist())) == 2


def test_an_unknown_class_is_an_error_that_lists_those_that_are_known(tmp_path):
    write_coco(tmp_path / "data", "train", {1: "cat", 2: "dog"}, 1, [(0, 1, ANY)])
    write_coco(tmp_path / "data", "val", {1: "cat", 2: "Dog"}, 1, [(0, 2, ANY)])
    with pytest.raises(BadInput, match="unknown class Dog in coco val: the training classes are cat, dog"):
        read_datasets(settings(tmp_path))
    with pytest.raises(BadInput, match="data.classes: unknown class horse, emu: coco train has cat, dog"):
        read_datasets(settings(tmp_path, classes=("cat", "horse", "emu")))


def test_a_class_that_only_validation_has_may_be_chosen(tmp_path):
    write_voc(tmp_path / "data", "train", {"a": [("cat", 0, *ANY)]})
    write_voc(tmp_path / "data", "val", {"b": [("dog", 0, *ANY), ("fox", 0, *ANY)]})
    data = settings(tmp_path, format="voc", classes=("dog", "cat"))
    train, val = read_datasets(data)
    assert train.classes == val.classes == ("dog", "cat") and (names(train), names(val)) == (["cat"], ["dog"])
    assert read_dataset(data, "train").classes == read_dataset(data, "val").classes == ("dog", "cat")
    with pytest.raises(BadInput, match="data.classes: unknown class emu: voc train has cat; voc val has dog, fox"):
        read_datasets(replace(data, classes=("dog", "emu")))


def test_a_class_that_is_chosen_twice_is_an_error(tmp_path):
    write_coco(tmp_path / "data", "train", {1: "cat", 2: "dog"}, 1, [(0, 1, ANY)])
    with pytest.raises(BadInput, match=r"^data\.classes names cat twice, dog twice\. Name each class once$"):
        read_datasets(settings(tmp_path, val=(), classes=("cat", "dog", "cat", "dog")))


def test_chosen_classes_are_in_the_order_of_the_choice_and_others_are_counted(tmp_path):
    objects = [(0, key, ANY) for key in (1, 2, 3, 3)]
    write_coco(tmp_path / "data", "train", {1: "cat", 2: "dog", 3: "emu"}, 2, objects)
    write_coco(tmp_path / "data", "val", {1: "emu", 2: "fox", 3: "cat"}, 1, objects)
    train, val = read_datasets(settings(tmp_path, duplicates="keep", classes=("emu", "cat")))
    assert train.classes == val.classes == ("emu", "cat")
    assert names(train) == ["cat", "emu", "emu"] and names(val) == ["emu", "cat", "cat"]
    assert len(train) == 2 and train.category_ids.tolist() == [3, 1] and val.category_ids.tolist() == [1, 3]
    assert train.warnings == ("1 object of another class was left out: dog",)
    assert val.warnings == ("1 object of another class was left out: fox",)


def test_voc_stands_for_its_twenty_classes(tmp_path):
    write_voc(tmp_path / "data", "train", {"a": [("dog", 0, *ANY), ("wolf", 0, *ANY)]})
    write_voc(tmp_path / "data", "val", {"b": [("cat", 0, *ANY)]})
    train, val = read_datasets(settings(tmp_path, format="voc", classes=("voc",)))
    assert train.classes == val.classes == voc.CLASSES
    assert names(train) == ["dog"] and names(val) == ["cat"]
    assert train.warnings == ("1 object of another class was left out: wolf",)


def test_a_model_is_evaluated_with_the_classes_that_it_knows(tmp_path):
    write_coco(tmp_path / "data", "val", {1: "dog", 2: "cat"}, 1, [(0, 1, ANY)])
    val = read_val(settings(tmp_path), ("cat", "dog"))
    assert val.classes == ("cat", "dog") and val.labels.tolist() == [2]
    assert relabel(val, ("cat", "dog"), strict=True) is val
    with pytest.raises(BadInput, match=r"data\.val=\[\]: there is nothing to evaluate on"):
        read_val(settings(tmp_path, val=()), ("cat",))


# Several splits

def test_splits_are_joined_in_their_order(tmp_path):
    write_voc(tmp_path / "data" / "VOC2007", "trainval", {"a": [("cat", 0, 1, 1, 9, 9)], "b": []})
    write_voc(tmp_path / "data" / "VOC2012", "trainval", {"c": [("dog", 0, 1, 1, 5, 5), ("cat", 1, 1, 1, 3, 3)]})
    joined = read_splits(settings(tmp_path, format="voc"), ("2007/trainval", "2012/trainval"))
    assert [Path(joined.path(i)).relative_to(tmp_path / "data").as_posix() for i in range(3)] == [
        "VOC2007/JPEGImages/a.jpg", "VOC2007/JPEGImages/b.jpg", "VOC2012/JPEGImages/c.jpg"]
    assert joined.offsets.tolist() == [0, 1, 1, 3] and joined.boxes[:, 2].tolist() == [9, 5, 3]
    assert names(joined) == ["cat", "dog", "cat"] and joined.flags.tolist() == [0, 0, DIFFICULT]
    assert joined.name == "voc 2007/trainval + voc 2012/trainval"


def test_image_ids_are_kept_unless_splits_share_them():
    first, second = boxes_in_image([ANY], image_id=7), boxes_in_image([], image_id=9)
    assert concat_datasets([first, second]).image_ids.tolist() == [7, 9]
    assert concat_datasets([first, second, first]).image_ids.tolist() == [1, 2, 3]
    assert concat_datasets([first]) is first


def test_joined_splits_match_their_classes_by_name_and_one_may_be_empty(tmp_path):
    write_coco(tmp_path / "data", "a", {1: "cat", 2: "dog"}, 1, [(0, 1, ANY), (0, 2, ANY)])
    write_coco(tmp_path / "data", "b", {1: "dog", 2: "emu"}, 1, [(0, 1, ANY), (0, 2, ANY)])
    write_coco(tmp_path / "data", "none", {1: "cat"}, 0, [])
    for splits in (("a", "b"), ("a", "none", "b"), ("a", "b", "none")):
        joined = read_splits(settings(tmp_path), splits)
        assert joined.classes == ("cat", "dog", "emu") and names(joined) == ["cat", "dog", "dog", "emu"]
        assert len(set(joined.category_ids.tolist())) == 3
    with pytest.raises(BadInput, match="empty data set: coco none"):
        read_splits(settings(tmp_path), ("none", "none"))
