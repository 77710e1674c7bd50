"""ImageNet DET: a small tree in its layout, its lists of one class, its names, and what is said of mistakes."""

from pathlib import Path

import pytest
from PIL import Image

from detector.config.schema import Data
from detector.data.formats.imagenet_det import read, sources
from detector.data.read import read_datasets
from detector.errors import BadInput

NAMES = "n02672831 1 accordion\nn02691156 2 airplane\nn02219486 3 ant\nn07739125 4 Granny Smith apple\n"
# stem below train or val -> (width, height), objects: wnid and inclusive corners from 0
PICTURES = {
    "train/ILSVRC2013_train/n02672831/n02672831_1": ((50, 40), [("n02672831", 0, 0, 49, 39)]),
    "train/ILSVRC2014_train_0000/ILSVRC2014_train_00000001": ((40, 50), [("n02219486", 1, 2, 10, 20),
                                                                         ("n07739125", 5, 5, 5, 5)]),
    "train/ILSVRC2013_train_extra0/ILSVRC2013_train_00000001": ((30, 30), None),
    "val/ILSVRC2012_val_00000001": ((60, 40), [("n02219486", 3, 3, 60, 30)]),
    "val/ILSVRC2012_val_00000002": ((60, 40), [])}


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "ILSVRC"
    for stem, ((width, height), objects) in PICTURES.items():
        picture, note = root / "Data" / "DET" / f"{stem}.JPEG", root / "Annotations" / "DET" / f"{stem}.xml"
        picture.parent.mkdir(parents=True, exist_ok=True)
        note.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height)).save(picture)
        if objects is not None:
            note.write_text(f"<annotation><size><width>{width}</width><height>{height}</height></size>" + "".join(
                f"<object><name>{wnid}</name><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax><ymin>{y1}</ymin>"
                f"<ymax>{y2}</ymax></bndbox></object>" for wnid, x1, y1, x2, y2 in objects) + "</annotation>")
    lists = root / "ImageSets" / "DET"
    lists.mkdir(parents=True)
    stems = [stem.split("/", 1)[1] for stem in PICTURES]
    (lists / "train.txt").write_text("".join(f"{stem} {n}\n" for n, stem in enumerate(stems[:3], start=1)))
    (lists / "val.txt").write_text("".join(f"{stem} {n}\n" for n, stem in enumerate(stems[3:], start=1)))
    (lists / "train_1.txt").write_text(f"{stems[0]} 1\n{stems[1]} 0\n{stems[2]} -1\n")
    (root / "devkit" / "data").mkdir(parents=True)
    (root / "devkit" / "data" / "map_det.txt").write_text(NAMES)
    return root


def test_a_split_is_read(root):
    dataset = read(str(root), "train")
    assert dataset.classes == ("accordion", "airplane", "ant", "Granny Smith apple")
    assert dataset.boxes.tolist() == [[0, 0, 50, 40], [1, 2, 11, 21], [5, 5, 6, 6]]
    assert dataset.labels.tolist() == [1, 3, 4] and dataset.areas.tolist() == [2000, 190, 1]
    assert dataset.sizes.tolist() == [[40, 50], [50, 40], [30, 30]] and dataset.boxes_per_image().tolist() == [1, 2, 0]
    assert all(Path(dataset.path(n)).is_file() for n in range(3))
    assert dataset.warnings == ("1 image has no annotation file; it counts as an image without objects",)
    val = read(str(root), "val")
    assert len(val) == 2 and val.classes == dataset.classes and val.labels.tolist() == [3]


def test_the_list_of_one_class_leaves_out_the_images_without_it(root):
    assert len(read(str(root), "train_1")) == 2


def test_training_and_validation_have_the_same_classes(root, tmp_path):
    train, val = read_datasets(Data(format="imagenet_det", root=str(root), train=("train",), val=("val",),
                                    cache=str(tmp_path / "cache")))
    assert train.classes == val.classes and len(train.classes) == 4
    assert val.boxes.tolist() == [[3, 3, 61, 31]], "a pixel of rounding is no mistake"


def test_without_the_development_kit_the_classes_are_the_ids(root):
    (root / "devkit" / "data" / "map_det.txt").rename(root.parent / "elsewhere.txt")
    assert read(str(root), "train").classes == ("n02219486", "n02672831", "n07739125")
    (root.parent / "devkit" / "data").mkdir(parents=True)
    (root.parent / "devkit" / "data" / "map_det.txt").write_text(NAMES)  # beside, as the archive has it
    assert read(str(root), "train").classes[0] == "accordion"


def test_an_id_that_the_kit_does_not_know(root):
    (root / "devkit" / "data" / "map_det.txt").write_text(NAMES.split("\n", 1)[1])
    with pytest.raises(BadInput, match="map_det.txt does not list: n02672831"):
        read(str(root), "train")


def test_a_split_that_is_not_there(root, tmp_path):
    with pytest.raises(BadInput, match="no ImageNet DET split 'test'.*Splits: train, train_1, val"):
        read(str(root), "test")
    with pytest.raises(BadInput, match="data get imagenet_det"):
        read(str(tmp_path / "nowhere"), "train")


def test_the_sources_are_all_that_a_change_would_show_in(root):
    assert [Path(path).name for path in sources(str(root), "train")] == [
        "train.txt", "map_det.txt", "n02672831_1.xml", "ILSVRC2014_train_00000001.xml"]


def test_a_broken_annotation_and_a_missing_image_are_named_together(root):
    (root / "Annotations/DET/train/ILSVRC2013_train/n02672831/n02672831_1.xml").write_text("<annotation")
    (root / "Data/DET/train/ILSVRC2013_train_extra0/ILSVRC2013_train_00000001.JPEG").unlink()
    with pytest.raises(BadInput, match=r"2 mistakes[\s\S]*n02672831_1.xml is no XML[\s\S]*no such image file"):
        read(str(root), "train")


def test_an_empty_list_is_named(root):
    (root / "ImageSets" / "DET" / "val.txt").write_text("\n")
    with pytest.raises(BadInput, match=r"val\.txt lists no image"):
        read(str(root), "val")


def test_a_list_of_classes_that_is_not_utf8_or_repeats_a_name_is_named(root):
    path = root / "devkit" / "data" / "map_det.txt"
    path.write_bytes(NAMES.encode() + b"n1 5 Stra\xdfe\n")
    with pytest.raises(BadInput, match=r"map_det.txt is not text in UTF-8: byte 0xdf"):
        read(str(root), "train")
    path.write_bytes(NAMES.encode("utf-16"))
    assert read(str(root), "train").classes[3] == "Granny Smith apple"
    path.write_text(NAMES + "n1 5 ant\n")
    with pytest.raises(BadInput, match="map_det.txt gives the same name to several ids: ant"):
        read(str(root), "train")


def test_images_by_the_rule_of_all_readers(root):
    folder = root / "Data/DET/val"
    Image.new("RGB", (60, 40)).save(folder / "ILSVRC2012_val_00000001.png")
    with pytest.raises(BadInput, match="several images are called ILSVRC2012_val_00000001: .*JPEG, .*png"):
        read(str(root), "val")
    (folder / "ILSVRC2012_val_00000001.JPEG").rename(folder / "ILSVRC2012_val_00000001.jpg")
    assert Path(read(str(root), "val").path(0)).name == "ILSVRC2012_val_00000001.jpg"
    folder.rename(root / "photos")
    for images in ("photos", str(root / "photos")):
        assert Path(read(str(root), "val", images).path(1)) == root / "photos" / "ILSVRC2012_val_00000002.JPEG"


def test_a_line_given_twice_and_swapped_corners(root):
    (root / "ImageSets/DET/val.txt").write_text("ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000001.JPEG 2\n")
    path = root / "Annotations/DET/val/ILSVRC2012_val_00000001.xml"
    path.write_text(path.read_text().replace("<xmin>3</xmin><xmax>60</xmax>", "<xmin>59</xmin><xmax>3</xmax>"))
    dataset = read(str(root), "val")
    assert len(dataset) == 2 and not dataset.warnings, "repeated for the option that counts them"
    assert dataset.boxes.tolist() == [[60, 3, 3, 31]] * 2, "swapped as they stand, for the policy that counts them"
