"""Images in folders of their class: found by name, never those of other annotation files or of another split."""

import pytest
from file_indexes import index

from detector.data.formats.subfolder_images import image_in_subfolder
from detector.errors import BadInput


def test_an_image_in_a_folder_of_its_class(tmp_path):
    xml = {"endings": (".xml",)}
    annotations = index(tmp_path, "a.xml", folder="f/xml", **xml)
    index(tmp_path, "rust/a.jpg", "rust/b.png", "crack/c.jpg", ".trash/d.jpg", "deep/er/e.JPG")
    index(tmp_path, "d.jpg", "d.xml", folder="f/beside")                 # of another split
    index(tmp_path, "b.jpg", "g.jpg", folder="f/test/images")
    index(tmp_path, "b.xml", folder="f/test/xml", **xml)
    (tmp_path / "f" / "loop").symlink_to(tmp_path / "f")
    images = index(tmp_path)
    expected = {"a": "f/rust/a.jpg", "b": "f/rust/b.png", "c": "f/crack/c.jpg", "d": "", "deep/er/e": "f/deep/er/e.JPG", "g": ""}
    assert {stem: image_in_subfolder(images, annotations, stem, "") for stem in expected} == expected
    assert image_in_subfolder(images, annotations, "b", "b.jpg") == "", "a PNG in place of a JPEG may be its mask"
    assert image_in_subfolder(images, annotations, "a", "C:\\rust\\a.JPG") == "f/rust/a.jpg"


def test_the_folder_of_another_split_has_no_image_of_this_one(tmp_path):
    index(tmp_path, "a.jpg", "train/b.jpg", "images/train2017/c.jpg", "images/val/d.jpg", folder="f/test")
    index(tmp_path, "e.jpg", folder="f/photos")
    annotations = index(tmp_path, folder="f/training/xml", endings=(".xml",))
    images = index(tmp_path)
    expected = {"a": "", "b": "f/test/train/b.jpg", "c": "f/test/images/train2017/c.jpg", "d": "", "e": "f/photos/e.jpg"}
    assert {stem: image_in_subfolder(images, annotations, stem, "") for stem in expected} == expected


def test_of_images_of_one_name_in_several_folders_only_copies_count_as_one(tmp_path):
    images = index(tmp_path, "rust/a.jpg", "crack/a.jpg")
    annotations = index(tmp_path, "a.xml", folder="x", endings=(".xml",))
    assert image_in_subfolder(images, annotations, "a", "a.jpg") == "f/crack/a.jpg"
    (tmp_path / "f" / "rust" / "a.jpg").write_bytes(b"another")
    with pytest.raises(BadInput, match=r"several images are called a: f/crack/a.jpg, f/rust/a.jpg. Move all but one elsewhere$"):
        image_in_subfolder(index(tmp_path), annotations, "a", "a.jpg")
