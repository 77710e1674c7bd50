"""Splits that are there but cannot be used: the cause is named, by training as by convert, and no split is passed over."""

import os

import pytest
from small_layouts import XML, coco, image, options, per_image_json, text, voc, yolo

from detector.data.convert import convert
from detector.data.formats.detect import detect_format
from detector.data.read import read_datasets
from detector.errors import BadInput


def refused_by_convert(root, splits=()) -> str:
    with pytest.raises(BadInput) as caught:
        convert(str(root), "yolo", str(root.parent / "out"), splits=splits)
    assert not (root.parent / "out").exists()
    return str(caught.value)


def refused_by_training(root, **more) -> str:
    with pytest.raises(BadInput) as caught:
        read_datasets(options(root, **more))
    return str(caught.value)


@pytest.mark.parametrize("broken", ["annotations/instances_val.json", "val.json", "val/_annotations.coco.json",
                                    "annotations/instances_test2017.json", "annotations/my_validation.json"])
@pytest.mark.parametrize("content, cause", [("{", "is no JSON"), ("", "It is empty"),
                                            ('{"images": [], "annotations": []}', "no list named categories")])
def test_convert_passes_over_no_annotation_file_that_is_broken(tmp_path, broken, content, cause):
    root = tmp_path / "d"
    coco(root, "annotations/instances_train.json", "train")
    text(root / broken, content)
    message = refused_by_convert(root)
    assert broken in message and cause in message and "--split" in message
    convert(str(root), "yolo", str(tmp_path / "out"), splits=("train",))


def test_json_files_of_other_kinds_are_no_broken_splits(tmp_path):
    root = tmp_path / "d"
    coco(root, "annotations/instances_train2017.json", "train2017")
    for name, content in (("annotations/captions_train2017.json", '{"images": [], "annotations": []}'),
                          ("annotations/image_info_test2017.json", '{"images": [], "categories": []}'),
                          ("val_results.json", '[{"image_id": 1, "score": 1}]'), ("train_config.json", '{"epochs": 3}'),
                          ("package.json", "[")):
        text(root / name, content)
    assert "1 images" not in convert(str(root), "yolo", str(tmp_path / "out"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    root = tmp_path / "d"
    coco(root, "annotations/instances_train.json", "train")
    os.mkfifo(root / "annotations/instances_val.json")
    for message in (refused_by_convert(root), refused_by_training(root)):
        assert "instances_val.json is no file that can be read: " in message
    os.mkfifo(root / "annotations/a.xml")
    os.mkfifo(root / "annotations/a.json")
    os.mkfifo(root / "train.txt")
    os.mkfifo(root / "data.yaml")
    (root / "annotations/instances_train.json").unlink()
    refused_by_training(root)


@pytest.mark.parametrize("entry", ["images/nix", "https://example.org/images.zip"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_folders_that_data_yaml_names_and_that_are_missing_are_errors(tmp_path, split, entry):
    root = tmp_path / "d"
    yolo(root)
    text(root / "data.yaml", (root / "data.yaml").read_text().replace(f"{split}: images/{split}", f"{split}: {entry}"))
    for message in (refused_by_convert(root), refused_by_training(root)):
        assert f"data.yaml: {split}: {entry} is " in message and "data.train=val" not in message


@pytest.mark.parametrize("content", ["", "{}", "[1"])
def test_json_files_of_images_that_are_all_broken_are_the_cause(tmp_path, content):
    root = tmp_path / "d"
    for split in ("train", "val"):
        image(root / "images" / split / "a.jpg", seed=split)
        text(root / "labels" / split / "a.json", content if split == "train" else '{"labels": ["a"], "boxes": [[1, 2, 3, 4]]}')
    for message in (refused_by_convert(root), refused_by_training(root)):
        assert "labels/train/a.json" in message and "data.train=val" not in message


@pytest.mark.parametrize("folder", ["labels/train", "train/labels", "train"])
def test_a_folder_of_a_split_that_may_not_be_listed_is_the_cause(tmp_path, folder, monkeypatch):
    root, listdir, scandir = tmp_path / "d", os.listdir, os.scandir
    for split in ("train", "val"):
        per_image_json(root / split) if folder != "labels/train" else None
        image(root / "images" / split / "a.jpg", seed=split) if folder == "labels/train" else None
        text(root / "labels" / split / "a.json", '{"labels": ["a"], "boxes": [[1, 2, 3, 4]]}') if folder == "labels/train" else None

    def denied(function):
        def call(path="."):
            if os.path.normpath(os.fsdecode(path)) == str(root / folder):
                raise PermissionError(13, "Permission denied", path)
            return function(path)
        return call
    monkeypatch.setattr(os, "listdir", denied(listdir))
    monkeypatch.setattr(os, "scandir", denied(scandir))
    for message in (refused_by_convert(root), refused_by_training(root)):
        assert f"{folder}: Permission denied" in message and "data.train=val" not in message


def test_no_other_split_is_advised_for_training(tmp_path):
    coco(tmp_path, "annotations/instances_val.json", "val")
    coco(tmp_path, "annotations/instances_test.json", "test")
    message = refused_by_training(tmp_path)
    assert "no split for data.train=train; its splits: test, val. Add the annotations of the training images" in message


@pytest.mark.parametrize("content", ["", "<a/>", "<annotation><"])
def test_one_bad_xml_file_makes_no_tree_unknown(tmp_path, content):
    voc(tmp_path, {"train": ["a", "b"], "val": ["c"]})
    text(tmp_path / "Annotations/a.xml", content)
    message = refused_by_training(tmp_path)
    assert "Annotations/a.xml" in message and "no annotations that can be used" not in message
    text(tmp_path / "ImageSets/Main/train.txt", "b")
    assert detect_format(options(tmp_path))[0].format == "voc"


def test_xml_files_that_are_all_bad_are_named_with_their_cause(tmp_path):
    voc(tmp_path, {"train": ["a"], "val": ["a"]})
    text(tmp_path / "Annotations/a.xml", "")
    assert f"It looks like voc, but: {tmp_path}/Annotations/a.xml is no XML: the file is empty" in refused_by_training(tmp_path)


@pytest.mark.parametrize("xml", [XML.replace("annotation>", "Annotation>"),
                                 XML.replace("<annotation>", '<annotation xmlns="http://a.org/b">'),
                                 XML.replace("<", "<v:").replace("<v:/", "</v:").replace("<v:annotation>", '<v:annotation xmlns:v="u">')])
def test_other_spellings_of_the_root_element_are_voc(tmp_path, xml):
    voc(tmp_path, {"train": ["a"], "val": ["b"]})
    for name in "ab":
        text(tmp_path / "Annotations" / f"{name}.xml", xml)
    assert read_datasets(options(tmp_path))[0].boxes.tolist() == [[1, 2, 30, 40]]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_json_in_utf_16_without_a_mark_is_detected(tmp_path, encoding):
    coco(tmp_path / "coco", "annotations/instances_train.json", "train")
    file = tmp_path / "coco/annotations/instances_train.json"
    text(file, file.read_text().encode(encoding))
    assert len(read_datasets(options(tmp_path / "coco", val=()))[0]) == 4
    per_image_json(tmp_path / "json")
    for file in (tmp_path / "json/labels").iterdir():
        text(file, file.read_text().encode(encoding))
    assert len(read_datasets(options(tmp_path / "json", train=("all",), val=()))[0]) == 2


def test_labelme_files_beside_the_images_of_splits_are_found(tmp_path):
    for split in ("train", "val"):
        image(tmp_path / "images" / split / "a.jpg", seed=split)
        text(tmp_path / "images" / split / "a.json",
             '{"shapes": [{"label": "cat", "points": [[1, 2], [30, 40]]}], "imagePath": "a.jpg"}')
    train, val = read_datasets(options(tmp_path))
    assert (train.name, val.name, len(train), len(val)) == ("per_image_json train", "per_image_json val", 1, 1)
