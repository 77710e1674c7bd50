"""YOLO with `data.images`: each split has its own images in that folder, and an unknown one is an error."""

import os

import pytest
from small_layouts import LINE, image, text

from detector.config.schema import Data
from detector.data.formats import yolo as reader
from detector.data.read import read_datasets
from detector.errors import BadInput


def images_of(root, split, images) -> list[str]:
    """Returns the images of a split that have a label file, below `images`; all of them must."""
    folder = os.path.join(root, images)
    dataset = reader.read(str(root), split, images)
    assert dataset.boxes_per_image().tolist() == [1] * len(dataset)
    return [os.path.relpath(dataset.path(index), folder) for index in range(len(dataset))]


@pytest.fixture
def labelled(tmp_path):
    """Returns a function that writes images of their own and label files at these paths; and the root of the data set."""
    def write(images, labels):
        root = tmp_path / "set"
        for name in images:
            image(tmp_path / "pictures" / name)
        for name in labels:
            text(root / name, LINE)
        text(root / "classes.txt", "cat\n")
        return root, str(tmp_path / "pictures")
    return write


@pytest.mark.parametrize("folder, lists", [
    ("", ("images/a.jpg\nb.jpg", "c.jpg")), ("", ("/old/images/a.jpg\nD:\\x\\b.jpg", "./images/c.jpg")),
    ("images/", ("images/a.jpg\nset/images/b.jpg", "/old/images/c.jpg"))])
@pytest.mark.parametrize("data", ["", "train: train.txt\nval: val.txt\n", "train: [train.txt]\nvalid: val.txt\n"])
def test_the_images_of_a_list_are_taken_from_the_folder(labelled, folder, lists, data):
    root, pictures = labelled([f"{folder}{name}.jpg" for name in "abcd"], [f"labels/{name}.txt" for name in "abcd"])
    for name, content in (("train.txt", lists[0]), ("val.txt", lists[1]), *([("data.yaml", data)] if data else [])):
        text(root / name, content)
    assert images_of(root, "train", pictures) == [f"{folder}a.jpg", f"{folder}b.jpg"]
    assert images_of(root, "val", pictures) == [f"{folder}c.jpg"]
    assert str(root / "train.txt") in reader.sources(str(root), "train", pictures)


def test_an_image_of_a_list_that_the_folder_lacks_is_named_also_where_it_is_elsewhere(labelled):
    root, pictures = labelled(["a.jpg"], ["labels/a.txt", "labels/b.txt"])
    text(root / "train.txt", f"a.jpg\n{image(root / 'images/b.jpg')}\n")
    with pytest.raises(BadInput, match=f"train.txt lists images that are neither there nor below {pictures}: .*b.jpg. Add them"):
        images_of(root, "train", pictures)


@pytest.mark.parametrize("images", [("train2017/a.jpg", "val2017/b.jpg"), ("a.jpg", "b.jpg"),
                                    ("coco/train2017/a.jpg", "coco/val2017/b.jpg")])
@pytest.mark.parametrize("labels", ["labels/{}/{}.txt", "{}/labels/{}.txt"])
@pytest.mark.parametrize("pattern", ["images/{}", "../{}/images", "/data/coco/images/{}", "{}/"])
def test_folders_that_data_yaml_names_are_those_of_the_splits(labelled, images, labels, pattern):
    root, pictures = labelled(images, [labels.format("train2017", "a"), labels.format("val2017", "b")])
    text(root / "data.yaml", f"train: {pattern.format('train2017')}\nval: {pattern.format('val2017')}\n")
    assert [images_of(root, split, pictures) for split in ("train", "val")] == [[images[0]], [images[1]]]


def test_a_folder_for_all_splits_and_a_split_without_a_name(labelled):
    root, pictures = labelled(["a.jpg", "b.jpg"], ["labels/a.txt", "labels/b.txt"])
    assert images_of(root, "all", pictures) == ["a.jpg", "b.jpg"]
    text(root / "data.yaml", "train: images\nval: ./\n")
    assert images_of(root, "train", pictures) == images_of(root, "val", pictures) == ["a.jpg", "b.jpg"]


def test_a_split_of_a_similar_name_and_an_unknown_one(labelled):
    root, pictures = labelled(["a.jpg", "valid/b.jpg", "c.jpg"], ["labels/train/a.txt", "labels/b.txt", "labels/c.txt"])
    text(root / "rest.txt", "c.jpg\n")
    assert images_of(root, "val", pictures) == ["valid/b.jpg"]
    with pytest.raises(BadInput, match=r"no YOLO split 'vall' in .*Splits: rest, valid, train$"):
        read_datasets(Data(root=str(root), format="yolo", images=pictures, cache="", val=("vall",)))
