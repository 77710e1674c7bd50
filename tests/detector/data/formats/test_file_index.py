"""Finding files by name: one image of several with the same stem, lists in all spellings, hidden and linked files."""

import unicodedata
from pathlib import Path

import pytest
from file_indexes import index

from detector.data.formats.file_index import FileIndex, find_image, find_named_image, is_there, read_listed_stems
from detector.data.image_walk import IMAGE_EXTENSIONS
from detector.errors import BadInput

# The image of an annotation file

@pytest.mark.parametrize("names, file_name, expected", [
    (["a.jpg"], "", "a.jpg"), (["a.JPG"], "", "a.JPG"), (["a.jpeg"], "", "a.jpeg"), (["a.png"], "", "a.png"), ([], "", ""),
    (["a.jpg", "a.png"], "", "a.jpg"), (["a.png", "a.JPG", "a.tif"], "", "a.JPG"), (["a.jpg", "a.JPG"], "", "a.jpg"),
    (["a.jpg", "a.png"], "a.png", "a.png"), (["a.bmp", "a.png"], "C:\\x\\a.png", "a.png"), (["a.bmp", "a.PNG"], "a.png", "a.PNG"),
    (["a.jpg", "a.png"], "b.png", "a.jpg"), (["a.jpg", "b.png"], "b.png", "a.jpg"), (["a.png", "._a.jpg"], "", "a.png"),
    (["a.jpg", "a.txt", "a.b.png"], "", "a.jpg")])
def test_the_image_of_an_annotation(tmp_path, names, file_name, expected):
    assert find_image(index(tmp_path, *names), "a", file_name) == (f"f/{expected}" if expected else "")


@pytest.mark.parametrize("names, file_name", [(["a.bmp", "a.png"], ""), (["a.jpeg", "a.png"], "a.tif")])
def test_several_images_without_a_rule_are_named(tmp_path, names, file_name):
    with pytest.raises(BadInput) as caught:
        find_image(index(tmp_path, *names), "a", file_name)
    assert all(name in str(caught.value) for name in names) and "Move all but one" in str(caught.value)


def test_an_image_that_only_its_annotation_names(tmp_path):
    images, annotations = index(tmp_path, "photo 1.JPG", "b.jpg"), index(tmp_path, "b.xml", endings=(".xml",), folder="x")
    for name in ("photo 1.jpg", "C:\\photos\\photo 1.JPG", "/home/me/photo 1.jpg", "./photo 1.JPG"):
        assert find_named_image(images, annotations, name) == "f/photo 1.JPG"
    for name in ("b.jpg", "none.jpg", "", "photo 1", "../f/b.jpg/"):
        assert find_named_image(images, annotations, name) == "", "has an annotation of its own, or is missing"


# Folders

def test_forms_of_unicode_and_letters_of_endings_do_not_matter(tmp_path):
    names = [unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD")]
    for mine, other in (names, names[::-1]):
        assert index(tmp_path / mine, f"{mine}/{mine}.JPEG").find(f"{other}/{other}") == [f"f/{mine}/{mine}.JPEG"]
    both = index(tmp_path / "both", *(f"{name}.png" for name in names))
    assert [both.find(name) for name in names] == [[f"f/{name}.png"] for name in names]


def test_hidden_files_are_left_out_and_links_followed(tmp_path):
    images = index(tmp_path, "a.jpg", "._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "camera1/b.png", "notes.txt")
    index(tmp_path / "elsewhere", "c.jpg")
    (tmp_path / "f" / "linked").symlink_to(tmp_path / "elsewhere" / "f")
    (tmp_path / "f" / "circle").symlink_to(tmp_path / "f")
    assert images.stems() == ["a", "camera1/b", "linked/c"] and images.stems(recursive=False) == ["a"]
    assert images.find("linked/c") == ["f/linked/c.jpg"] and images.find("._a") == []


def test_a_missing_folder_has_no_files(tmp_path):
    images = FileIndex(str(tmp_path), "none", IMAGE_EXTENSIONS)
    assert images.stems() == [] and images.find("a") == images.find("x/a") == images.find("a\0/b") == images.find("") == []


def test_a_forbidden_folder_is_an_error(tmp_path, monkeypatch):
    images = index(tmp_path, "a.jpg")

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))
    with monkeypatch.context() as patch, pytest.raises(BadInput, match="cannot read folder .*f: Permission denied"):
        patch.setattr("os.listdir", refuse)
        images.find("a")
    with monkeypatch.context() as patch:
        patch.setattr("os.stat", refuse)
        with pytest.raises(BadInput, match="cannot read folder /: Permission denied"):
            is_there("/x")


# Lists

FOLDERS = ("JPEGImages", "Annotations")


def stems(tmp_path: Path, lines: str | bytes, *names: str, listing: str = "train.txt", numbered: bool = False) -> list[str]:
    annotations = index(tmp_path, *(f"{name}.xml" for name in names), endings=(".xml",))
    (tmp_path / listing).write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    return read_listed_stems(str(tmp_path / listing), annotations, FOLDERS, numbered)


@pytest.mark.parametrize("line", [
    "a", " a ", '"a"', "'a'", "a.jpg", "a.JPG", "a.xml", "./a.png", "JPEGImages/a.jpg", "jpegimages/a.jpg", "JPEGImages\\a.jpg",
    "VOC2007/JPEGImages/a.jpg", "/data/VOC/JPEGImages/a.jpg", "/data/photos/a.jpg", "C:\\photos\\a.jpg",
    "JPEGImages/a.jpg Annotations/a.xml",
    "./JPEGImages/a.jpg\t./Annotations/a.xml", '"JPEGImages/a.jpg"', "a 1", "a  0", "a\t7", '"a" 1', "\ufeffa"])
def test_a_line_may_be_spelled_in_many_ways(tmp_path, line):
    assert stems(tmp_path, line, "a") == ["a"]


@pytest.mark.parametrize("line, stem", [
    ("photo 1", "photo 1"), ('"photo 1"', "photo 1"), ("photo 1.jpg", "photo 1"), ("JPEGImages/photo 1.jpg", "photo 1"),
    ("photo -1", "photo -1"),
    ("camera1/a", "camera1/a"), ("camera1\\a.png", "camera1/a"), ("JPEGImages/camera1/a.png", "camera1/a"), ("a.rf.1f", "a.rf.1f"),
    ("a.rf.1f.jpg", "a.rf.1f"), ("b.jpg", "b.jpg"), ('"say \\"hi\\""', 'say "hi"')])
def test_a_name_may_have_spaces_folders_dots_and_quotes(tmp_path, line, stem):
    names = ["photo 1", "photo -1", "photo", "camera1/a", "a.rf.1f", "a", "b.jpg", "b", 'say "hi"']
    assert stems(tmp_path, line, *names) == [stem]


def test_a_class_list_and_names_with_spaces_work_together(tmp_path):
    lines = "photo 1  1\nphoto 2 -1\nphoto 3 0\n\"photo 4\" -1\n\"photo 5\"  1\nmissing 6  1\n"
    names = [f"photo {number}" for number in range(1, 6)]
    assert stems(tmp_path, lines, *names, listing="cat_train.txt") == ["photo 1", "photo 3", "photo 5", "missing 6"]
    assert stems(tmp_path, "photo 1\nphoto 2\nphoto 3\n", *names, listing="my_train.txt") == names[:3]
    assert stems(tmp_path, "missing 1\n") == ["missing 1"], "no class list by its name, and nothing is called `missing`"


def test_lines_with_numbers_whose_files_are_missing(tmp_path):
    assert stems(tmp_path, "negative/n1 1\nn2 -1\nn3 3\n", numbered=True) == ["negative/n1", "n3"]


def test_a_list_may_be_in_utf16_and_have_windows_lines(tmp_path):
    assert stems(tmp_path, "Straße\r\na b\r\n".encode("utf-16"), "Straße", "a b") == ["Straße", "a b"]


def test_lines_that_repeat_a_name_stay_for_the_option_that_counts_them(tmp_path):
    assert stems(tmp_path, "a\nb\na.jpg\nJPEGImages/a\n", "a", "b") == ["a", "b", "a", "a"]


@pytest.mark.parametrize("content, sentence", [
    (b"Stra\xdfe\n", "train.txt is not text in UTF-8: byte 0xdf at position 4. Save it as UTF-8"), (b"\n \n", "train.txt lists no image")])
def test_a_list_that_cannot_be_used_is_named(tmp_path, content, sentence):
    with pytest.raises(BadInput, match=sentence):
        stems(tmp_path, content)


def test_a_list_whose_lines_are_all_marked_as_without_the_class_is_not_called_empty(tmp_path):
    annotations = index(tmp_path, "a.xml", "b.xml", endings=(".xml",))
    path = tmp_path / "cat_train.txt"
    path.write_text("a -1\nb -1\n")
    with pytest.raises(BadInput, match=r"marks all of its 2 images with -1, .* Remove the numbers, or name another split"):
        read_listed_stems(str(path), annotations, ())


def test_commas_behind_the_names_of_a_list_are_ignored(tmp_path):
    annotations = index(tmp_path, "a.xml", "b.xml", "c,.xml", endings=(".xml",))
    path = tmp_path / "train.txt"
    path.write_text("a,\nb.jpg ;\nc,\n")
    assert read_listed_stems(str(path), annotations, ()) == ["a", "b", "c,"]
