"""YOLO: data.yaml as programs and people write it, label files, and what is wrong in them."""

import os

import pytest
from small_layouts import LINE, image, text, yolo

from detector.data.formats import yolo as reader
from detector.data.formats.yolo_folders import split_names
from detector.errors import BadInput


def read(root, split="train", images=""):
    reader.sources(str(root), split, images)
    return reader.read(str(root), split, images)


def paths(dataset):
    return [os.fsdecode(bytes(path)) for path in dataset.paths]


def labelled(root, content, names="cat\ndog\n"):
    """Writes one image of 100x50 pixels with a label file beside it, and classes.txt."""
    image(root / "a.jpg")
    if names:
        text(root / "classes.txt", names)
    return text(root / "a.txt", content)


def test_a_data_set_as_ultralytics_describes_it(tmp_path):
    yolo(tmp_path, names="{0: cat, 1: dog}")
    image(tmp_path / "images/train/unlabelled.png")
    image(tmp_path / "images/train/._train.jpg")
    dataset = read(tmp_path)
    assert paths(dataset) == ["images/train/train.jpg", "images/train/unlabelled.png"]
    assert dataset.classes == ("cat", "dog") and dataset.category_ids.tolist() == [0, 1]
    assert dataset.boxes.tolist() == [[40, 15, 60, 35]] and dataset.areas.tolist() == [400]
    assert dataset.boxes_per_image().tolist() == [1, 0] and dataset.sizes.tolist() == [[50, 100]] * 2
    assert dataset.warnings == ("1 image has no label file; it counts as an image without objects; first: images/train/unlabelled.png",)
    assert split_names(str(tmp_path)) == ["train", "val"]


@pytest.mark.parametrize("data", [
    "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['cat', 'dog']\n",  # Roboflow
    "\ufefftrain: train/images\r\nval: valid/images\r\nnames: [cat, dog]\r\n",
    "path: .\ntrain: [train/images]\nvalid: ./valid/images\nnames:\n- cat\n- dog\n",
    "path: /content/drive/parts\ntrain: /content/drive/parts/train/images\nval: valid/images\nnames: cat, dog\n",
    "path: ../datasets/parts\ntrain: train\nval: valid\nnames:\n  0: cat\n  1: dog\ndownload: |\n  print(1)\n",
    "train: D:\\parts\\train\\images\nval: D:\\parts\\valid\\images\nnames: {1: dog, 0: cat}\n",
    "train: list.txt\nval: valid/images\nnames: [cat, dog]\n",
])
def test_paths_and_names_of_data_yaml_in_all_their_forms(tmp_path, data):
    text(tmp_path / "data.yaml", data)
    text(tmp_path / "list.txt", "\ufeff./train/images/a b.jpg\r\n")
    for split in ("train", "valid"):
        image(tmp_path / split / "images" / "a b.jpg")
        text(tmp_path / split / "labels" / "a b.txt", "1\t0.5  0.5 0.2 0.4\r\n\r\n")
    for split, folder in (("train", "train"), ("val", "valid"), ("valid", "valid")):
        dataset = read(tmp_path, split)
        assert paths(dataset) == [f"{folder}/images/a b.jpg"] and dataset.classes == ("cat", "dog")
        assert dataset.labels.tolist() == [2] and dataset.boxes.tolist() == [[40, 15, 60, 35]]
    assert split_names(str(tmp_path))[0] == "train"


def test_an_export_with_a_list_of_images_and_a_list_of_names(tmp_path):
    image(tmp_path / "obj_train_data" / "a.jpg")
    text(tmp_path / "obj_train_data" / "a.txt", LINE)
    text(tmp_path / "obj.names", "cat\n")
    text(tmp_path / "train.txt", "data/obj_train_data/a.jpg\n")
    assert split_names(str(tmp_path)) == ["train"] and paths(read(tmp_path)) == ["obj_train_data/a.jpg"]
    text(tmp_path / "train.txt", "data/obj_train_data/a.jpg\nnone.jpg\n")
    with pytest.raises(BadInput, match=r"train.txt lists images that are neither there .*: none.jpg\. Add them"):
        read(tmp_path)


@pytest.mark.parametrize("line, box", [
    ("0 0.1 0.2 0.3 0.2 0.3 0.6", [10, 10, 30, 30]),                # a polygon
    ("0 0.1 0.2 0.3 0.2 0.3 0.6 0.1 0.6", [10, 10, 30, 30]),
    ("0 0.5 0.5 0.2 0.4 0.987", [40, 15, 60, 35]),                  # with a score
    ("0.0 .5 5e-1 0.2 0.4", [40, 15, 60, 35]),
    ("cat 0.5 0.5 0.2 0.4", [40, 15, 60, 35]),
    ("0 0.5 0.5 1.0000001 1", [0, 0, 100, 50]),                     # rounded
])
def test_lines_of_all_kinds(tmp_path, line, box):
    labelled(tmp_path, line)
    assert read(tmp_path, "all").boxes.tolist() == [pytest.approx(box, abs=1e-4)]


def test_keypoints_behind_the_box_are_left_out(tmp_path):
    yolo(tmp_path)
    text(tmp_path / "data.yaml", "train: images/train\nnames: [cat]\nkpt_shape: [3, 2]\n")
    text(tmp_path / "labels/train/train.txt", "0 0.5 0.5 0.2 0.4 0 0 1 1 1 1\n")
    assert read(tmp_path).boxes.tolist() == [[40, 15, 60, 35]]


@pytest.mark.parametrize("line, mistake", [
    ("0 50 25 20 20", r"50 lies outside 0 \.\.\. 1: coordinates are fractions of width and height\. .* divide pixels by"),
    ("0 0.5 0.5 -0.2 0.4", r"-0\.2 lies outside"), ("0 0.5 nan 0.2 0.4", "nan lies outside"),
    ("0 0.1 0.1 0.2 0.2 0.3 1.5", r"1\.5 lies outside"),
    ("2 0.5 0.5 0.2 0.4", "class 2: the classes are numbered 0 to 1"), ("-1 0.5 0.5 0.2 0.4", "class -1"),
    ("bird 0.5 0.5 0.2 0.4", "'bird' is no number of a class"), ("0.5 0.5 0.5 0.2 0.4", r"class 0\.5"),
    ("0 0.5 0.5 0.2", "4 columns; a line is `class x y width height`"), ("0", "1 columns"),
    ("0 0.5 0.5 0.2 0.4 0.1 0.1 0.1", "8 columns"), ("0 0.5 0,5 0.2 0.4", "'0,5' is no number"),
])
def test_a_line_that_cannot_be_used_is_named_by_file_and_number(tmp_path, line, mistake):
    file = labelled(tmp_path, f"{LINE}\n{line}\n")
    with pytest.raises(BadInput, match=f"yolo all: {file}, line 3: {mistake}"):
        read(tmp_path, "all")


def test_all_such_lines_are_in_one_error(tmp_path):
    labelled(tmp_path, "9 0.5 0.5 0.2 0.4\n" * 30)
    with pytest.raises(BadInput, match=r"30 mistakes\n.*line 1: class 9(.|\n)*and 20 more"):
        read(tmp_path, "all")


def test_label_files_may_be_empty_in_utf_16_or_have_a_byte_order_mark(tmp_path):
    for stem, content in (("a", b""), ("b", LINE.encode("utf-16")), ("c", LINE.encode("utf-8-sig")), ("d", b"\r\n\r\n")):
        image(tmp_path / f"{stem}.jpg")
        text(tmp_path / f"{stem}.txt", content)
    text(tmp_path / "classes.txt", "cat\n")
    assert read(tmp_path, "all").boxes_per_image().tolist() == [0, 1, 1, 0]


def test_without_names_classes_are_numbered_with_a_word_about_it(tmp_path):
    labelled(tmp_path, LINE.replace("0 ", "2 ", 1), names="")
    dataset = read(tmp_path, "all")
    assert dataset.classes == ("class 0", "class 1", "class 2") and dataset.labels.tolist() == [3]
    assert "no class names" in dataset.warnings[0] and dataset.warnings[0].endswith("Write a classes.txt with one name a line")


def test_of_images_with_one_label_file_the_jpeg_counts_and_others_are_an_error(tmp_path):
    labelled(tmp_path, LINE)
    image(tmp_path / "a.png")
    assert paths(read(tmp_path, "all")) == ["a.jpg"]
    (tmp_path / "a.jpg").rename(tmp_path / "a.pgm")
    assert paths(read(tmp_path, "all")) == ["a.png"]
    (tmp_path / "a.pgm").rename(tmp_path / "a.bmp")
    with pytest.raises(BadInput, match=r"a\.bmp and .*a\.png share one label file"):
        read(tmp_path, "all")


def test_images_in_a_folder_of_their_own_are_those_with_labels_of_the_split(tmp_path):
    for stem, split in (("a", "train"), ("b", "val")):
        image(tmp_path / "pictures" / f"{stem}.jpg")
        text(tmp_path / "labels" / split / f"{stem}.txt", LINE)
    assert paths(read(tmp_path, "train", "pictures")) == ["pictures/a.jpg"]
    assert paths(read(tmp_path, "val", str(tmp_path / "pictures"))) == ["pictures/b.jpg"]


@pytest.mark.parametrize("data, mistake", [
    ("names: [[[", "broken YAML"), ("- a", "keys such as train:"), ("a: " + "[" * 5000, "broken YAML"),
    ("train: {a: b}", "train: is the folder of the images"), ("train: nowhere/images\nnames: [a]", "nowhere/images is neither"),
    ("train: images/train\nnames: [cat, cat]", "a name of its own; empty or twice: 'cat'"),
    ("train: images/train\nnames: {x: cat}", "numbers of the classes"), ("train: images/train\nnames: [[a]]", "a list of texts"),
    ("train: images/train\nnames: [a]\nnames: [b]", "stated twice"),
])
def test_what_is_wrong_in_data_yaml_is_said_with_its_path(tmp_path, data, mistake):
    yolo(tmp_path)
    text(tmp_path / "data.yaml", data)
    with pytest.raises(BadInput, match=mistake) as caught:
        read(tmp_path)
    assert "data.yaml" in str(caught.value)


def test_an_unknown_split_and_images_without_any_label_file_are_errors(tmp_path):
    yolo(tmp_path)
    with pytest.raises(BadInput, match=r"no YOLO split 'dev' in .*Splits: train, val"):
        read(tmp_path, "dev")
    (tmp_path / "labels/train/train.txt").unlink()
    with pytest.raises(BadInput, match=r"none of 1 images has a label file, such as train\.txt"):
        read(tmp_path)


@pytest.mark.parametrize("names, line, label", [
    ("1\n2\n3\n", "0", 1), ("1\n2\n3\n", "1", 2), ("2\n0\n1\n", "2.0", 3), ("cat\nnan\n", "nan", 2), ("cat\n01x\n", "01x", 2)])
def test_a_number_is_that_of_a_class_also_where_classes_are_called_by_numbers(tmp_path, names, line, label):
    labelled(tmp_path, LINE.replace("0", line, 1), names)
    assert read(tmp_path, "all").labels.tolist() == [label]


@pytest.mark.parametrize("blank", ["\xa0", "\u3000", "\ufeff", "\x00 \x1a", "\ufeff\xa0 "])
def test_lines_of_white_space_of_any_kind_are_empty(tmp_path, blank):
    labelled(tmp_path, f"{LINE}{blank}\n{blank}")
    assert len(read(tmp_path, "all").boxes) == 1


def test_a_sixth_value_that_is_no_score_is_noted_once(tmp_path):
    file = labelled(tmp_path, LINE.replace("\n", " 0.9\n") + LINE.replace("\n", " 1.57\n") + LINE.replace("\n", " -30\n"))
    warning, = read(tmp_path, "all").warnings
    assert warning.startswith("2 lines have a sixth value outside 0 ... 1") and warning.endswith(f"first: {file}, line 2")


def test_without_an_image_there_is_an_error(tmp_path):
    yolo(tmp_path)
    text(tmp_path / "data.yaml", "train: train.txt\nnames: [cat]\n")
    text(tmp_path / "train.txt", "\n")
    with pytest.raises(BadInput, match=r"train\.txt lists no image\. Write"):
        read(tmp_path)
    image(tmp_path / "pictures/other.jpg")
    with pytest.raises(BadInput, match=r"train\.txt lists no image\. Write"):
        read(tmp_path, "train", "pictures")
    text(tmp_path / "data.yaml", "train: images/train\nnames: [cat]\n")
    with pytest.raises(BadInput, match=r"no image in .*pictures has the name of a label file in .*labels/train\. Set data\.images"):
        read(tmp_path, "train", "pictures")


def test_images_beside_data_yaml_are_the_folder_with_a_dot(tmp_path):
    labelled(tmp_path, LINE, names="")
    text(tmp_path / "data.yaml", "train: .\nval: ./\nnames: [cat]\n")
    assert paths(read(tmp_path)) == paths(read(tmp_path, "val")) == ["a.jpg"]


@pytest.mark.parametrize("key", ["²", "-1", "9999999", "9" * 50, "1.5", "yes"])
def test_keys_of_names_are_small_whole_numbers(tmp_path, key):
    yolo(tmp_path, names=f'{{"{key}": cat}}')
    with pytest.raises(BadInput, match="the keys of names: are the numbers of the classes"):
        read(tmp_path)
    text(tmp_path / "data.yaml", f'train: images/train\nnc: "{key}"\nkpt_shape: ["{key}", 2]\n')
    assert read(tmp_path).classes == ("class 0",)


def test_a_list_of_names_that_data_yaml_refers_to_is_a_source(tmp_path):
    yolo(tmp_path, names="names.list")
    text(tmp_path / "names.list", "cat\ndog\n")
    assert read(tmp_path).classes == ("cat", "dog")
    assert str(tmp_path / "names.list") in reader.sources(str(tmp_path), "train")


def test_a_split_of_another_data_file(tmp_path):
    yolo(tmp_path)
    text(tmp_path / "other.yaml", "train: images/val\nnames: [dog]\n")
    dataset = read(tmp_path, "other.yaml/train")
    assert paths(dataset) == ["images/val/val.jpg"] and dataset.classes == ("dog",)
    assert str(tmp_path / "other.yaml") in reader.sources(str(tmp_path), "other.yaml/train")


def test_numbers_of_classes_that_data_yaml_does_not_name_are_warned_about(tmp_path):
    yolo(tmp_path, names="{0: bolt, 5: nut}")
    assert "has no name" not in " ".join(read(tmp_path).warnings)
    text(tmp_path / "labels/train/train.txt", LINE + LINE.replace("0 ", "1 ", 1) * 2)
    dataset = read(tmp_path)
    assert dataset.classes[1] == "class 1"
    assert f"{tmp_path}/data.yaml has no name for class 1 (2 objects)" in dataset.warnings[0]


@pytest.mark.parametrize("names, warning", [
    ("[bolt, nut]\nnc: 80", "states nc: 80, but names: has 2: names: counts"), ("\nnc: 2", "no class names: "), ("[bolt]\nnc: 1", None)])
def test_nc_that_contradicts_the_names_or_stands_alone_is_warned_about(tmp_path, names, warning):
    yolo(tmp_path, names=names)
    warnings = read(tmp_path).warnings
    assert warning in warnings[0] if warning else not warnings


@pytest.mark.parametrize("line", ["0,0.5,0.5,0.2,0.4", "0, 0.5, 0.5, 0.2, 0.4", "0 0,5 0,5 0,2 0,4", "0;0.5;0.5;0.2;0.4"])
def test_commas_in_a_label_file_are_an_error_with_its_remedy(tmp_path, line):
    labelled(tmp_path, line)
    with pytest.raises(BadInput, match="Separate the values by spaces, not commas, and write decimals with a point"):
        read(tmp_path, "all")
