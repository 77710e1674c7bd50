"""`data.format: auto`: which layout lies below a root, which splits are meant, and what is missing where none fits."""

import functools
import os
import shutil

import pytest
from small_layouts import LINE, XML, coco, image, imagenet_det, options, per_image_json, text, visual_genome, voc, yolo

from detector.data.formats.detect import detect_format, detect_splits
from detector.data.formats.layouts import LAYOUTS
from detector.data.formats.listing import list_folder
from detector.data.read import read_datasets, read_splits, resolve_format
from detector.errors import BadInput


def two_coco_files(root, train="annotations/instances_train.json", val="annotations/instances_val.json"):
    coco(root, train, "train")
    coco(root, val, "val")


TREES = {
    "coco": two_coco_files,
    "voc": lambda root: voc(root, {"train": ["a", "b"], "val": ["c"], "cat_train": ["a"]}),
    "yolo": yolo,
    "per_image_json": lambda root: [per_image_json(root / split, split) for split in ("train", "val")],
    "visual_genome": visual_genome,
    "imagenet_det": imagenet_det,
}


@pytest.mark.parametrize("name", TREES)
def test_each_layout_is_found_and_read(tmp_path, name):
    TREES[name](tmp_path)
    config, sentence = detect_format(options(tmp_path))
    assert config.format == name and sentence.startswith(f"data.format=auto: {tmp_path} is read as {name}")
    train, val = read_datasets(options(tmp_path, train=config.train, val=config.val))
    assert len(train) and len(val) and train.classes == val.classes
    assert resolve_format(options(tmp_path))[1] == sentence
    assert resolve_format(options(tmp_path, format=name)) == (options(tmp_path, format=name), "")


def test_annotations_of_all_images_are_not_those_of_one(tmp_path):
    two_coco_files(tmp_path)
    for file in (tmp_path / "annotations").iterdir():
        text(file, file.read_text().replace("{", '{"info": {"about": "shapes", "labels": [], "boxes": []}, ', 1))
    assert detect_format(options(tmp_path))[0].format == "coco"


def test_every_layout_is_covered_above():
    assert set(TREES) == set(LAYOUTS)


@pytest.mark.parametrize("train, val, names", [
    ("annotations/instances_train2017.json", "annotations/instances_val2017.json", ("train2017", "val2017")),
    ("train/_annotations.coco.json", "valid/_annotations.coco.json", ("train", "valid")),
    ("my_train.json", "my_validation.json", ("my_train", "my_validation")),
    ("annotations/instances_default.json", "annotations/instances_val.json", ("default", "val")),
])
def test_splits_of_usual_names_stand_for_train_and_val(tmp_path, train, val, names):
    two_coco_files(tmp_path, train, val)
    coco(tmp_path, "annotations/instances_test.json", "test")
    if "2017" in train:  # of other annotations of the same images, and of other years, these count
        for name in ("captions_train2017", "instances_train2014"):
            shutil.copy(tmp_path / train, tmp_path / "annotations" / f"{name}.json")
    config, sentence = detect_format(options(tmp_path))
    assert (config.train, config.val) == ((names[0],), (names[1],))
    assert all(f"data.{part}={name}" in sentence for part, name in zip(("train", "val"), names) if name != part)


def test_a_root_may_be_an_annotation_file_or_data_yaml(tmp_path):
    two_coco_files(tmp_path / "a")
    config, _ = detect_format(options(tmp_path / "a/annotations/instances_train.json"))
    assert (config.root, config.train) == (str(tmp_path / "a"), ("annotations/instances_train.json",))
    yolo(tmp_path / "b")
    assert detect_format(options(tmp_path / "b/data.yaml"))[0].root == str(tmp_path / "b")
    with pytest.raises(BadInput, match=r"is a file, and no annotation file of COCO: .*, unpacked"):
        detect_format(options(text(tmp_path / "c.zip", "PK")))


def test_no_validation_at_all_is_an_error_with_remedy_and_a_share_is_one(tmp_path):
    coco(tmp_path, "annotations/instances_default.json", "images")
    with pytest.raises(BadInput, match=r"no split for data.val=val; its splits: default\. Hold out a share .* data.val=0\.2"):
        read_datasets(options(tmp_path))
    train, val = read_datasets(options(tmp_path, val=("0.25",)))
    assert (len(train), len(val)) == (3, 1)
    assert read_datasets(options(tmp_path, val=()))[1] is None


def test_folders_of_classes_are_named_all_in_the_remedy_which_works(tmp_path):
    text(tmp_path / "classes.txt", "cat\ndog\nred panda\n")
    for number, name in enumerate(("cat", "dog", "red panda")):
        for place in range(2):
            text(tmp_path / name / f"{place}.txt", f"{number} .5 .5 .2 .2")
            image(tmp_path / name / f"{place}.png")
    with pytest.raises(BadInput, match=r"Name one, such as data.train=cat, or several: data.train=\[cat,dog,red panda\]$") as caught:
        detect_format(options(tmp_path, val=("0.5",)))
    value = str(caught.value).rpartition("=")[2]
    train, val = read_datasets(options(tmp_path, val=("0.5",), train=tuple(value.strip("[]").split(","))))
    assert (len(train) + len(val), train.classes) == (6, ("cat", "dog", "red panda"))


def test_a_data_file_whose_validation_images_are_not_there_may_hold_out_a_share(tmp_path):
    yolo(tmp_path)
    text(tmp_path / "data.yaml", "train: ../images/train\nval: ../valid/images\nnames: [cat]\n")
    with pytest.raises(BadInput, match=r"val: ../valid/images is neither there .* hold out a share .* with data.val=0.2$"):
        detect_format(options(tmp_path))
    assert detect_format(options(tmp_path, val=("0.2",)))[0].val == ("0.2",)


def test_training_images_alone_can_be_read_and_validation_images_alone(tmp_path):
    coco(tmp_path, "annotations/instances_train.json", "train")
    assert detect_splits(options(tmp_path), ("train",))[0].format == "coco"
    (tmp_path / "annotations/instances_train.json").rename(tmp_path / "annotations/instances_val2017.json")
    assert detect_splits(options(tmp_path), ("val",))[1] == ("val2017",)


def test_two_layouts_that_fit_are_both_named_and_one_with_the_asked_splits_is_taken(tmp_path):
    yolo(tmp_path)
    coco(tmp_path, "annotations/instances_train.json", "train")
    assert detect_format(options(tmp_path))[0].format == "yolo"
    coco(tmp_path, "annotations/instances_val.json", "val")
    with pytest.raises(BadInput, match=r"fits several formats: coco, yolo\. State which one is meant: data.format=coco"):
        detect_format(options(tmp_path))


def test_several_splits_of_one_meaning_are_listed(tmp_path):
    for year in ("2007", "2012"):
        voc(tmp_path / f"VOC{year}", {"trainval": ["a"], "test": ["b"]})
    with pytest.raises(BadInput, match="no split for data.train=train; its splits: VOC2007/test, .*data.train=VOC2007/trainval"):
        detect_format(options(tmp_path, val=("VOC2007/test",)))
    assert detect_format(options(tmp_path, train=("2007/trainval",), val=("2007/test",)))[0].format == "voc"


def test_without_a_layout_the_error_says_what_each_needs_and_what_is_there(tmp_path):
    text(tmp_path / "annotations/x.json", '{"images": []}')
    image(tmp_path / "images/a.jpg")
    with pytest.raises(BadInput) as caught:
        read_datasets(options(tmp_path))
    message = str(caught.value)
    assert "It holds annotations, images." in message and all(f"\n  - {name}: " in message for name in LAYOUTS)
    assert message.splitlines()[-1].startswith("Other annotations, such as CSV files and mask images, are not read: convert them")
    assert 'annotations/x.json is there, but lacks "annotations" and "categories"' in message
    assert "images/ is there, but no label files" in message


def test_a_layout_one_folder_deeper_or_above_is_pointed_to(tmp_path):
    two_coco_files(tmp_path / "outer/inner")
    for root in (tmp_path / "outer", tmp_path / "outer/inner/train"):
        with pytest.raises(BadInput, match=f"{tmp_path}/outer/inner can be read as coco: set data.root={tmp_path}/outer/inner"):
            detect_format(options(root))


@pytest.mark.parametrize("data, cause", [
    ("names: [cat, cat]", "data.yaml: each class needs a name of its own; empty or twice: 'cat'"),
    ("\tnames: [cat]", "broken YAML in "), ("names: [caf\udce9]", "data.yaml is not text in UTF-8: byte 0xe9")])
def test_a_mistake_in_data_yaml_comes_before_folders_that_can_be_read_without_it(tmp_path, data, cause):
    for split in ("train", "valid"):
        image(tmp_path / split / "images/a.jpg")
        text(tmp_path / split / "labels/a.txt", LINE)
    text(tmp_path / "data.yaml", f"val: valid/images\n{data}\n".encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput) as caught:
        detect_format(options(tmp_path))
    start = str(caught.value).split(" It holds ")[0]
    assert "It looks like yolo, but: " in start and cause in start and "can be read as" not in str(caught.value)
    two_coco_files(tmp_path / "other")
    with pytest.raises(BadInput, match=rf"It looks like yolo, but: .* {tmp_path}/other can be read as coco: set data\.root"):
        detect_format(options(tmp_path))


def test_a_folder_that_may_not_be_listed_is_no_missing_layout(tmp_path, monkeypatch):
    two_coco_files(tmp_path)
    def denied(path, list_folder):
        if str(path).endswith("annotations"):
            raise PermissionError(13, "Permission denied", path)
        return list_folder(path)
    monkeypatch.setattr(os, "listdir", functools.partial(denied, list_folder=os.listdir))
    monkeypatch.setattr(os, "scandir", functools.partial(denied, list_folder=os.scandir))
    with pytest.raises(BadInput, match="annotations: Permission denied"):
        detect_format(options(tmp_path))


@pytest.mark.parametrize("name", ["yolo", "coco", "voc", "per_image_json"])
def test_a_link_that_cannot_be_followed_hides_no_other_file(tmp_path, name):
    TREES[name](tmp_path)
    for folder in [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]:
        (folder / "itself").symlink_to("itself")
    assert detect_format(options(tmp_path))[0].format == name
    assert list_folder(str(tmp_path)).files[""] == ["itself"]


def test_a_missing_root_and_an_empty_one_are_errors(tmp_path):
    with pytest.raises(BadInput, match="data.root=.*: no such folder"):
        detect_format(options(tmp_path / "none"))
    with pytest.raises(BadInput, match="It holds nothing"):
        detect_format(options(tmp_path))


@pytest.mark.parametrize("json, image_folder", [("labels/train", "images/train"), ("train/labels", "train/images"),
                                                ("train", "train"), ("train/images", "train/images")])
def test_json_files_of_images_are_found_in_all_their_places(tmp_path, json, image_folder):
    shapes = '{"shapes": [{"label": "cat", "points": [[1, 2], [30, 40]]}], "imagePath": "a.jpg"}'
    for split in ("train", "val"):
        image(tmp_path / image_folder.replace("train", split) / "a.jpg", seed=split)
        text(tmp_path / json.replace("train", split) / "a.json", shapes)
    train, val = read_datasets(options(tmp_path))
    assert (train.name, val.name) == ("per_image_json train", "per_image_json val")
    assert train.boxes.tolist() == val.boxes.tolist() == [[1, 2, 30, 40]]


@pytest.mark.parametrize("xml, image_folder", [("train", "train"), ("Annotations/train", "JPEGImages"), ("train/Annotations", "train")])
def test_xml_files_without_lists_are_found_in_all_their_places(tmp_path, xml, image_folder):
    for split in ("train", "val"):
        image(tmp_path / image_folder.replace("train", split) / f"{split}.jpg")
        text(tmp_path / xml.replace("train", split) / f"{split}.xml", XML)
    train, val = read_datasets(options(tmp_path))
    assert (train.name, val.name) == ("voc train", "voc val") and os.path.isfile(train.path(0))


def test_a_root_that_is_another_data_file_is_that_file(tmp_path):
    yolo(tmp_path)
    image(tmp_path / "more/images/m.jpg")
    text(tmp_path / "more/labels/m.txt", LINE)
    other = text(tmp_path / "other.yaml", "train: more/images\nvalid: images/train\nnames: [dog]\n")
    for format in ("auto", "yolo"):
        train, val = read_datasets(options(other, format=format))
        assert (train.path(0), train.classes) == (str(tmp_path / "more/images/m.jpg"), ("dog",))
        assert val.path(0) == str(tmp_path / "images/train/train.jpg")
    assert detect_format(options(other))[1] == f"data.format=auto: {other} is read as yolo"
    assert len(read_splits(options(other), ("valid",))) == 1
    assert read_datasets(options(other, val=("0.5",), train=("train", "valid")))[0].classes == ("dog",)
    with pytest.raises(BadInput, match="is a data file of YOLO, but data.format=coco"):
        read_datasets(options(other, format="coco"))
    text(other, "train: more/images\nnames: [dog]\n")
    with pytest.raises(BadInput, match=r"no split for data.val=other.yaml/val; its splits: other.yaml/train\. Hold out"):
        (tmp_path / "images/val").rename(tmp_path / "images/rest")
        read_datasets(options(other))
    with pytest.raises(BadInput, match="is no data file of YOLO: it names no split"):
        read_datasets(options(text(tmp_path / "none.yaml", "a: b\n")))


def test_a_data_file_alone_decides_the_format(tmp_path):
    yolo(tmp_path)
    two_coco_files(tmp_path)
    with pytest.raises(BadInput, match="fits several formats"):
        detect_format(options(tmp_path))
    assert detect_format(options(tmp_path / "data.yaml"))[0].format == "yolo"


@pytest.mark.parametrize("broken", ["annotations/instances_train.json", "train.json", "annotations/instances_train2017.json",
                                    "train/_annotations.coco.json"])
@pytest.mark.parametrize("content, cause", [('{"images": [', "is no JSON: "),
                                            ('{"images": [], "annotations": []}', "no list named categories")])
def test_a_broken_file_of_a_split_is_no_missing_split(tmp_path, broken, content, cause):
    coco(tmp_path, "annotations/instances_val.json", "val")
    text(tmp_path / broken, content)
    text(tmp_path / "annotations/classes.json", "[")
    with pytest.raises(BadInput) as caught:
        read_datasets(options(tmp_path))
    assert broken in str(caught.value) and cause in str(caught.value) and "no split for" not in str(caught.value)


def test_lists_of_one_class_are_no_splits_and_others_are(tmp_path):
    voc(tmp_path, {"train": ["a"], "night_train": ["b 1", "c 2"], "cat_train": ["a"], "val": ["d"], "rain_val": ["d"]})
    for name, lines in (("helmet", "a  1\nb -1\n"), ("vest", "a 1\n\nphoto 2 0\r\n")):
        text(tmp_path / f"ImageSets/Main/{name}_train.txt", lines)
    assert LAYOUTS["voc"].splits(str(tmp_path)) == ["night_train", "rain_val", "train", "val"]
