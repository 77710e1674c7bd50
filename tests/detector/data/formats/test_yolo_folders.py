"""YOLO: which label file belongs to which image."""

import os

import pytest
from small_layouts import LINE, image, options, text

from detector.data.formats import yolo as reader
from detector.data.formats.yolo_folders import split_names
from detector.data.formats.yolo_label_files import LabelFiles
from detector.data.read import read_datasets
from detector.errors import BadInput


def counts(root, split="train", images="") -> dict[str, int]:
    """Returns the number of boxes by path of the image."""
    dataset = reader.read(str(root), split, images)
    paths = [os.fsdecode(bytes(path)) for path in dataset.paths]
    return dict(zip(paths, dataset.boxes_per_image().tolist()))


@pytest.mark.parametrize("images, labels", [("images/train", "labels/train"), ("train/images", "train/labels"), ("train", "train"),
                                            ("train", "labels/train"), ("train", "train/labels"), ("images/train", "labels")])
@pytest.mark.parametrize("other", ["background/1.jpg", "masks/1.png"])
def test_an_image_in_a_sub_folder_does_not_get_the_objects_of_another(tmp_path, images, labels, other):
    image(tmp_path / images / "1.jpg")
    text(tmp_path / labels / "1.txt", LINE)
    image(tmp_path / images / other)
    if labels == "labels":
        image(tmp_path / "images/1.jpg")
        assert counts(tmp_path, "all") == {"images/1.jpg": 1, "images/train/1.jpg": 0, f"images/train/{other}": 0}
    else:
        assert counts(tmp_path) == {f"{images}/1.jpg": 1, f"{images}/{other}": 0}
    new = LabelFiles(str(tmp_path), "train").new_path(str(tmp_path / images / other))
    assert new != str(tmp_path / labels / "1.txt")


@pytest.mark.parametrize("images, labels", [
    ("images/train", "labels"), ("images/train", "labels/train"), ("images/train/camera", "labels/train"), ("train", "labels"),
    ("train", "labels/train"), ("train/camera", "labels/train"), ("train/camera", "train/labels"), ("train/images/camera", "train/labels"),
    ("train/camera", "labels/train/camera"), ("train/camera", "train/labels/camera"), ("images/train/camera", "labels/train/camera")])
def test_label_files_with_and_without_the_sub_folders_of_the_images(tmp_path, images, labels):
    image(tmp_path / images / "1.jpg")
    text(tmp_path / labels / "1.txt", LINE)
    assert counts(tmp_path) == {f"{images}/1.jpg": 1}
    assert counts(f"{tmp_path}/") == {f"{images}/1.jpg": 1}


def test_images_of_a_folder_of_their_own_may_lie_in_sub_folders(tmp_path):
    image(tmp_path / "pictures/camera/1.jpg")
    text(tmp_path / "labels/train/1.txt", LINE)
    assert counts(tmp_path, images="pictures") == {"pictures/camera/1.jpg": 1}


@pytest.mark.parametrize("images, labels", [("images/train", "labels/train"), ("train", "train"), ("train", "labels/train"),
                                            ("images/train/camera", "labels/train")])
@pytest.mark.parametrize("name, label", [("DSC_1.JPG", "dsc_1.txt"), ("b.jpg", "b.TXT"), ("\u00fc.jpg", "u\u0308.txt"),
                                         ("u\u0308.jpg", "\u00fc.txt"), ("u\u0308.jpg", "\u00dc.Txt")])
def test_a_label_file_may_differ_in_case_or_in_the_unicode_form_of_its_name(tmp_path, images, labels, name, label):
    image(tmp_path / images / name)
    text(tmp_path / labels / label, LINE)
    assert counts(tmp_path) == {f"{images}/{name}": 1}
    assert str(tmp_path / labels / label) in reader.sources(str(tmp_path), "train")
    assert images != labels or split_names(str(tmp_path)) == ["train"]


def test_a_name_that_fits_exactly_counts_and_several_similar_ones_do_not(tmp_path):
    for name in ("a.jpg", "A.jpg", "c.jpg"):
        image(tmp_path / "images/train" / name)
    for name in ("a.txt", "C.txt", "c.TXT"):
        text(tmp_path / "labels/train" / name, LINE)
    assert counts(tmp_path) == {"images/train/A.jpg": 0, "images/train/a.jpg": 1, "images/train/c.jpg": 0}
    text(tmp_path / "labels/train/c.txt", "")
    text(tmp_path / "labels/train/A.TXT", "")
    assert counts(tmp_path) == {"images/train/A.jpg": 0, "images/train/a.jpg": 1, "images/train/c.jpg": 0}


def test_images_of_a_folder_of_their_own_may_differ_in_case_from_their_label_files(tmp_path):
    image(tmp_path / "pictures/DSC_1.JPG")
    text(tmp_path / "labels/train/dsc_1.txt", LINE)
    assert counts(tmp_path, images="pictures") == {"pictures/DSC_1.JPG": 1}


@pytest.mark.parametrize("layout", ["darknet", "images"])
def test_a_list_of_labelled_images_counts_and_not_the_folder_of_its_name(tmp_path, layout):
    folder = {"darknet": "train", "images": "train/images"}[layout]
    for name in "abc":
        image(tmp_path / folder / f"{name}.jpg")
        text(tmp_path / folder.replace("images", "labels") / f"{name}.txt", LINE)
    text(tmp_path / "train.txt", f"{folder}/a.jpg\n{folder}/b.jpg\n")
    text(tmp_path / "valid.txt", f"{folder}/c.jpg\n")
    train, val = read_datasets(options(tmp_path))
    assert [os.path.basename(train.path(index)) for index in range(len(train))] == ["a.jpg", "b.jpg"]
    assert os.path.basename(val.path(0)) == "c.jpg" and not [line for line in train.warnings if "no image" in line]
    text(tmp_path / "train.txt", "notes\n")
    assert len(counts(tmp_path)) == 3


@pytest.mark.parametrize("images, labels", [("images/train", "labels/train"), ("train/images", "train/labels"), ("train", "train"),
                                            ("train", "train/labels"), ("train", "labels/train")])
def test_label_files_without_an_image_are_warned_about(tmp_path, images, labels):
    image(tmp_path / images / "a.jpg")
    for name in "abcdef":
        text(tmp_path / labels / f"{name}.txt", LINE)
    for name, content in (("classes", "cat\n"), ("notes", b"\xff\n"), ("list", "a.jpg\nb.jpg\n"), ("empty", "")):
        text(tmp_path / labels / f"{name}.txt", content)
    warning, = [line for line in reader.read(str(tmp_path), "train").warnings if "no image" in line]
    listed = ", ".join(f"{labels}/{name}.txt" for name in "bcd")
    assert warning == f"5 label files have no image and are left out: {listed} and 2 more. Add the images, or remove these files"
    for name in ("c.HEIC", "other.heic"):
        (tmp_path / images / name).touch()
    warning, = [line for line in reader.read(str(tmp_path), "train").warnings if "no image" in line]
    assert warning.endswith(f" 2 more. 1 file is HEIC, which is not read; first: {tmp_path / images}/c.HEIC. Save as JPEG")


def test_label_files_of_the_images_of_other_splits_have_an_image(tmp_path):
    for split, name in (("train", "a"), ("val", "b")):
        image(tmp_path / "images" / split / f"{name}.jpg")
        text(tmp_path / "labels" / f"{name}.txt", LINE)
    text(tmp_path / "classes.txt", "cat\n")
    assert reader.read(str(tmp_path), "train").warnings == reader.read(str(tmp_path), "all").warnings == ()


MODEL = "nc: 80\nbackbone: []\n"


@pytest.mark.parametrize("files, classes", [
    ({"pothole.yaml": "train: images/train\nnames: [cat]\n", "yolov5s.yaml": MODEL}, ["cat"]),
    ({"pothole.yaml": "val: images/train\nnames: [cat]\n", "other.yaml": "train: images/train\n", "yolov5s.yaml": MODEL}, ["cat"]),
    ({"names.yml": "names: [cat]\n", "yolov5s.yaml": MODEL}, ["cat"]),
    ({"a.yaml": "train: images/train\nnames: [cat]\n", "b.yaml": "train: images/train\nnames: [dog]\n"}, ["class 0"]),
    ({"Data.YAML": "train: images/train\nnames: [cat]\n", "b.yaml": "train: images/train\nnames: [dog]\n"}, ["cat"]),
    ({"Data.yaml": "names: [dog]\n", "data.yaml": "names: [cat]\n"}, ["cat"]),
    ({"labels/train/classes.txt": "cat\n"}, ["cat"]),
    ({"train/labels/classes.txt": "cat\n", "train/labels/1.txt": LINE}, ["cat"]),
    ({"classes.txt": "cat\n", "labels/train/classes.txt": "dog\n"}, ["cat"]),
    ({"data.yaml": "train: images/train\nnc: 1\n", "classes.txt": "cat\n"}, ["cat"])])
def test_names_of_classes_are_found_in_all_their_places(tmp_path, files, classes):
    image(tmp_path / ("train/images" if "train/labels/1.txt" in files else "images/train") / "1.jpg")
    text(tmp_path / "labels/train/1.txt", LINE)
    for name, content in files.items():
        text(tmp_path / name, content)
    dataset = reader.read(str(tmp_path), "train")
    assert list(dataset.classes) == classes and (classes == ["class 0"]) == ("no class names" in " ".join(dataset.warnings))


@pytest.mark.parametrize("content, line", [("cat\n\ndog\n", 2), ("\ncat\ndog", 1), ("cat\r\ndog\r\n \t\r\n\r\nbird\r\n", 3)])
@pytest.mark.parametrize("data", ["", "train: images/train\nnames: classes.txt\n"])
def test_an_empty_line_among_the_names_of_classes_is_an_error(tmp_path, content, line, data):
    image(tmp_path / "images/train/1.jpg")
    text(tmp_path / "labels/train/1.txt", LINE)
    text(tmp_path / "classes.txt", content)
    if data:
        text(tmp_path / "data.yaml", data)
    with pytest.raises(BadInput, match=rf"classes\.txt, line {line} is empty: .* Write the name of class {line - 1}, or remove the line"):
        reader.read(str(tmp_path), "train")
    for content in ("cat\ndog\n\n \n", "cat\r\r\ndog\r\r\n", "\ufeffcat\ndog"):
        text(tmp_path / "classes.txt", content)
        assert reader.read(str(tmp_path), "train").classes == ("cat", "dog")
