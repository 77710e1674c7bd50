"""Where the images of an annotation file are: folders, and names that are not quite those of the files."""

import os
import unicodedata
from pathlib import Path

import pytest

from detector.data.formats import coco, image_folders
from detector.data.formats.image_folders import find_images, folders_below
from detector.errors import BadInput

NAMES = ["a.jpg", "b.jpg", "c.jpg"]


def no_others() -> list[str]:
    return []


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_the_folder_with_most_of_the_images_is_taken(tmp_path):
    touch(tmp_path, "train/a.jpg", "images/train/b.jpg", "images/train/c.jpg")
    files = find_images(str(tmp_path), NAMES, ["train", "images/train"], no_others)
    assert files.paths == ["images/train/a.jpg", "images/train/b.jpg", "images/train/c.jpg"] and files.missing == [0]
    assert files.missing_text == files.warnings[0]
    assert f"1 of 3 images does not exist in {tmp_path}/images/train; first: a.jpg. Add them, or set data.images" in files.missing_text


def test_of_equal_folders_the_first_is_taken(tmp_path):
    touch(tmp_path, *(f"{folder}/{name}" for folder in ("images", "train") for name in NAMES))
    assert find_images(str(tmp_path), NAMES, ["train", "images"], no_others).paths[0] == "train/a.jpg"


@pytest.mark.parametrize("name, path", [
    ("images\\a.jpg", "images/a.jpg"), ("/images/a.jpg", "images/a.jpg"), ("./images/a.jpg", "./images/a.jpg"),
    ("C:\\Users\\me\\images\\a.jpg", "images/a.jpg"), ("../../images/a.jpg", "images/a.jpg"),
    ("/home/me/data/images/a.jpg", "images/a.jpg"), ("http://host.org/images/a.jpg?size=1", "images/a.jpg"),
    ("https://host.org/2017/a.jpg", "images/a.jpg"), ("file:///data/images/a.jpg", "images/a.jpg"), ("images/A.JPG", "images/a.jpg"),
    ("Images/a.jpg", "images/a.jpg"), ("images/a.jpg ", "images/a.jpg"), ("IMAGES\\A.jpg", "images/a.jpg")])
def test_a_name_from_elsewhere_is_found(tmp_path, name, path):
    touch(tmp_path, "images/a.jpg", "images/b.jpg")
    files = find_images(str(tmp_path), [name], ["val", "", "images"], no_others)
    assert os.path.normpath(files.paths[0]) == os.path.normpath(path) and not files.missing
    if path != name:
        assert "1 image has another name than in the annotation file" in files.warnings[-1] and repr(name) in files.warnings[-1]


@pytest.mark.parametrize("name", ["my%20images/caf%C3%A9.jpg", "/data/local-files/?d=my%20images/caf%C3%A9.jpg",
                                  "/data/local-files/?d=other/my images/caf\u00e9.jpg"])
def test_a_name_with_escapes_of_a_url_is_found(tmp_path, name):
    touch(tmp_path, "my images/caf\u00e9.jpg", "my images/100%25.jpg")
    assert find_images(str(tmp_path), [name], [""], no_others).paths == ["my images/caf\u00e9.jpg"]
    assert find_images(str(tmp_path), ["my images/100%25.jpg"], [""], no_others).paths == ["my images/100%25.jpg"]


def test_a_name_stands_for_itself_before_it_is_changed(tmp_path):
    touch(tmp_path, "images\\a.jpg", "images/a.jpg")
    assert find_images(str(tmp_path), ["images\\a.jpg"], [""], no_others).paths == ["images\\a.jpg"]
    absolute = tmp_path / "elsewhere" / "x.jpg"
    touch(tmp_path, "elsewhere/x.jpg")
    assert find_images(str(tmp_path), [str(absolute)], ["val"], no_others).paths == [str(absolute)]


def test_folders_of_a_name_are_not_dropped_where_images_would_become_equal(tmp_path):
    touch(tmp_path, "images/001.jpg")
    files = find_images(str(tmp_path), ["camera1/001.jpg", "camera2/001.jpg"], ["images"], no_others)
    assert len(files.missing) == 2


def test_accents_may_be_encoded_in_either_way(tmp_path):
    name = "m\u00fcll.jpg"
    touch(tmp_path, f"val/{unicodedata.normalize('NFD', name)}")
    assert find_images(str(tmp_path), [name], ["val"], no_others).paths == [f"val/{unicodedata.normalize('NFD', name)}"]


def test_two_files_that_differ_in_case_are_not_guessed_between(tmp_path):
    touch(tmp_path, "val/A.jpg", "val/a.JPG", "val/b.jpg")
    files = find_images(str(tmp_path), ["a.jpg", "b.jpg"], ["val"], no_others)
    assert files.missing == [0] and files.paths[1] == "val/b.jpg"


def test_a_near_file_is_named(tmp_path):
    touch(tmp_path, "val/a.png", "val/b.jpg")
    assert "first: a.jpg (there is a.png)" in find_images(str(tmp_path), ["a.jpg", "b.jpg"], ["val"], no_others).missing_text


def test_folders_below_are_searched_without_hidden_ones(tmp_path):
    touch(tmp_path, *(f".cache/{name}" for name in NAMES), *(f"raw/all_images/{name}" for name in NAMES))
    others = folders_below(str(tmp_path), [""])
    assert others == ["raw", "raw/all_images"]
    files = find_images(str(tmp_path), NAMES, ["val", "images"], lambda: others)
    assert files.paths[0] == "raw/all_images/a.jpg" and "found in" in files.warnings[0] and "data.images" in files.warnings[0]


def test_of_two_other_folders_with_the_images_none_is_guessed(tmp_path):
    touch(tmp_path, *(f"{folder}/{name}" for folder in ("images_low", "images_high") for name in NAMES))
    files = find_images(str(tmp_path), NAMES, ["val"], lambda: ["images_high", "images_low"])
    assert len(files.missing) == 3 and "set data.images=images_high or data.images=images_low:" in files.missing_text
    os.rename(tmp_path / "images_low", tmp_path / "low")
    (tmp_path / "images_low").symlink_to("images_high")
    assert not find_images(str(tmp_path), NAMES, ["val"], lambda: ["images_high", "images_low"]).missing, "one and the same"


def test_a_folder_whose_name_says_nothing_is_named_but_not_taken(tmp_path):
    touch(tmp_path, *(f"elsewhere/{name}" for name in NAMES))
    files = find_images(str(tmp_path), NAMES, ["val"], lambda: ["elsewhere"])
    assert len(files.missing) == 3 and "set data.images=elsewhere: images with these names are there" in files.missing_text


def test_another_folder_with_few_of_the_images_is_not_taken(tmp_path):
    touch(tmp_path, "images/a.jpg")
    assert len(find_images(str(tmp_path), NAMES, ["val"], lambda: ["images"]).missing) == 3


def test_without_any_image_all_searched_folders_are_named(tmp_path):
    touch(tmp_path, "images/x.jpg", "other/y.jpg")
    files = find_images(str(tmp_path), NAMES, ["val", "images"], lambda: ["other"])
    assert files.paths == ["val/a.jpg", "val/b.jpg", "val/c.jpg"] and files.missing == [0, 1, 2]
    assert f"3 of 3 images do not exist in {tmp_path}/val, {tmp_path}/images, {tmp_path}/other;" in files.missing_text


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    touch(tmp_path, *(f"val/{name}" for name in NAMES))
    listdir = os.listdir

    def forbidden(path):
        if str(path).endswith("val"):
            raise PermissionError(13, "Permission denied", path)
        return listdir(path)
    monkeypatch.setattr(image_folders.os, "listdir", forbidden)
    assert find_images(str(tmp_path), NAMES, ["val"], no_others).missing == [], "its files may still be read"
    monkeypatch.setattr(image_folders.os.path, "exists", lambda path: False)
    with pytest.raises(BadInput, match="cannot read folder of images .*/val: Permission denied. Let this user read it"):
        find_images(str(tmp_path), NAMES, ["val"], no_others)


def test_no_images_are_no_mistake(tmp_path):
    files = find_images(str(tmp_path), [], ["val"], no_others)
    assert (files.paths, files.missing, files.warnings) == ([], [], ())


@pytest.mark.parametrize("annotations, split, image", [
    ("train/labels.json", "train/labels.json", "train/data/a.jpg"), ("train/labels.json", "train", "train/data/a.jpg"),
    ("annotations/person_keypoints_train2017.json", "annotations/person_keypoints_train2017.json", "train2017/a.jpg"),
    ("annotations/person_keypoints_train2017.json", "train2017", "train2017/a.jpg"),
    ("annotations/train.json", "train", "train/images/a.jpg"), ("annotations/train.json", "train", "all_images/a.jpg"),
    ("bolts/annotations/train.json", "bolts/annotations/train.json", "bolts/images/a.jpg"),
    ("bolts/annotations/train.json", "bolts/annotations/train.json", "bolts/train/a.jpg"),
    ("result.json", "result.json", "images/a.jpg")])
def test_layouts_of_coco_files(tmp_path, annotations, split, image):
    touch(tmp_path, image, annotations)
    (tmp_path / annotations).write_text('{"images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 4}], '
                                        '"annotations": [], "categories": []}')
    assert Path(coco.read(str(tmp_path), split).path(0)) == tmp_path / image


@pytest.mark.parametrize("split, folder, is_taken", [
    ("val", "train_images", False), ("val", "train/pictures", False), ("val", "images/train2017", False),
    ("val", "images/valid", True), ("val", "pictures", True), ("fold1", "images/fold2", False), ("fold1", "images/train", True)])
def test_a_folder_of_another_split_is_not_searched(tmp_path, split, folder, is_taken):
    """Many data sets number the images of each split from 1."""
    touch(tmp_path, f"{folder}/a.jpg", "annotations/fold2.json")
    (tmp_path / "annotations" / f"{split}.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 4}], "annotations": [], "categories": []}')
    assert Path(coco.read(str(tmp_path), split).path(0)).exists() == is_taken


def test_data_images_names_the_folder(tmp_path):
    write = '{"images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 4}], "annotations": [], "categories": []}'
    (tmp_path / "train.json").write_text(write)
    touch(tmp_path, "train/a.jpg", "other/a.jpg", "third/train/a.jpg")
    for images, expected in (("other", "other/a.jpg"), (str(tmp_path / "other"), "other/a.jpg"), ("third", "third/train/a.jpg")):
        assert Path(coco.read(str(tmp_path), "train", images).path(0)) == tmp_path / expected
    with pytest.raises(BadInput, match="no such folder: data.images=nowhere"):
        coco.read(str(tmp_path), "train", "nowhere")
