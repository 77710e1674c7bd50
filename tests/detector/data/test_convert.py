"""`convert`: every layout to every other and back, names that lists cannot hold, what is lost, and nothing half-written."""

import itertools
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_layouts import coco, image, imagenet_det, options, per_image_json, text, visual_genome, voc, yolo

from detector import cli, load_config
from detector.arguments.verbs import parse
from detector.data import convert as module
from detector.data.convert import convert
from detector.data.formats.detect import detect_format
from detector.data.layout_writers import WRITERS
from detector.data.read import read_datasets, read_splits
from detector.errors import BadInput

NAMES = ("plain {}.jpg", "camera 1/a b {}.png", "camera 2/a b {}.png", "ä ö {}.JPG", "it's \"{}\".bmp", ".hidden {}.png",
         "no ending {}", "same{}.jpg", "same{}.png", "UPPER{}.jpg", "upper{}.jpg", "-1 {}.jpg")
CLASSES = ("zebra & <x>", "cat", "bär: [1]")


def random_coco(root: Path, seed: int, splits=("train", "val")) -> Path:
    """Writes images of all NAMES with random boxes, of which some reach a pixel outside, or are thinner than a pixel."""
    random = np.random.RandomState(seed)
    for split in splits:
        images, annotations = [], []
        for number, pattern in enumerate(NAMES, start=1):
            name, (width, height) = pattern.format(f"{split}{number % 2}"), random.randint(8, 300, 2).tolist()
            image(root / split / name, (width, height))
            images.append({"id": 10 * number, "file_name": name, "width": width, "height": height})
            for _ in range(random.randint(4)):
                x, y = random.uniform(-1, width), random.uniform(-1, height)
                box = [x, y, random.uniform(0.2, width + 0.9 - x), random.uniform(0.2, height + 0.9 - y)]
                annotations.append({"id": len(annotations), "image_id": 10 * number, "category_id": int(random.choice([3, 7, 11])),
                                    "bbox": box, "area": box[2] * box[3] / 2, "iscrowd": int(random.rand() < 0.2)})
        text(root / "annotations" / f"instances_{split}.json", json.dumps({
            "images": images, "annotations": annotations,
            "categories": [{"id": key, "name": name} for key, name in zip((3, 7, 11), CLASSES)]}))
    return root


def read(root, split):
    return read_splits(options(root), (split,))


def objects_by_image(dataset) -> dict[bytes, tuple]:
    """Returns for the content of each image its size, and its objects sorted: class and box."""
    result = {}
    for index in range(len(dataset)):
        rows = dataset.rows(index)
        objects = sorted((dataset.classes[label - 1], *box) for label, box in
                         zip(dataset.labels[rows].tolist(), dataset.boxes[rows].tolist()))
        result[Path(dataset.path(index)).read_bytes()] = (dataset.sizes[index].tolist(), objects)
    return result


def assert_same(first, second):
    first, second = objects_by_image(first), objects_by_image(second)
    assert set(first) == set(second)
    for content, (size, objects) in first.items():
        assert size == second[content][0] and len(objects) == len(second[content][1])
        for (name, *box), (other_name, *other_box) in zip(objects, second[content][1]):
            assert name == other_name and other_box == pytest.approx(box, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("first, second", [*itertools.product(WRITERS, repeat=2)])
def test_boxes_are_equal_to_a_hundredth_of_a_pixel_there_and_back(tmp_path, first, second, seed):
    source = random_coco(tmp_path / "source", seed)
    convert(str(source), first, str(tmp_path / "there"))
    convert(str(tmp_path / "there"), second, str(tmp_path / "back"))
    for split in ("train", "val"):
        assert_same(read(source, split), read(tmp_path / "there", split))
        assert_same(read(source, split), read(tmp_path / "back", split))
    assert detect_format(options(tmp_path / "back"))[0].format == second
    if WRITERS[first].has_classes:
        assert read(tmp_path / "there", "train").classes == CLASSES, "in their order"


@pytest.mark.parametrize("write, splits", [
    (lambda root: voc(root, {"train": ["a", "b"], "val": ["c"]}), ["train", "val"]),
    (yolo, ["train", "val"]), (per_image_json, ["all"]),
    (visual_genome, ["100/train", "100/val", "100/test"]), (imagenet_det, ["train", "val"])])
@pytest.mark.parametrize("target", WRITERS)
def test_every_readable_layout_is_converted(tmp_path, write, splits, target):
    write(tmp_path / "source")
    message = convert(str(tmp_path / "source"), target, str(tmp_path / "out"))
    for split in splits:
        name = {"all": "all_split"}.get(split, split.replace("/", "_"))
        assert_same(read(tmp_path / "source", split), read(tmp_path / "out", name))
        assert f"{name}: 1 image (" in message or f"{name}: 2 images" in message


def test_the_printed_config_reads_what_was_written(tmp_path):
    coco(tmp_path / "source", "annotations/instances_default.json", "images", classes=("dog", "cat"),
         objects=[(0, 1, [1, 2, 30, 40]), (1, 2, [1, 2, 30, 40])])
    for target in WRITERS:
        *_, first, data, model, _, command = convert(str(tmp_path / "source"), target, str(tmp_path / f"to: {target}")).splitlines()
        assert (first, command) == ("Train on it: write mine.yaml with", "  fleet-rcnn train mine.yaml")
        config = load_config(str(text(tmp_path / "mine.yaml", f"{data}\n{model}\n")), ["data.cache="])
        train, val = read_datasets(config.data)
        assert (len(train), len(val), train.classes) == (3, 1, ("dog", "cat")) and config.model.weights == "coco"


@pytest.mark.parametrize("target", WRITERS)
@pytest.mark.parametrize("learned, held_out", [("cat", "dog"), ("dog", "cat"), ("null", "~"), ("dog", "dog"), ("cat", "cat")])
def test_the_printed_config_names_classes_that_only_validation_has(tmp_path, target, learned, held_out):
    for split, name in (("train", learned), ("val", held_out)):
        classes = ("dog", "null", "~", "cat")
        coco(tmp_path / "source", f"annotations/instances_{split}.json", split, 1, [(0, classes.index(name) + 1, [1, 2, 30, 40])], classes)
    *_, data, _, _, _ = convert(str(tmp_path / "source"), target, str(tmp_path / "out")).splitlines()
    config = load_config(str(text(tmp_path / "mine.yaml", data)), ["data.cache="])
    train, val = read_datasets(config.data)
    used = [name for name in classes if name in (learned, held_out)]
    assert list(train.classes) == list(val.classes) == (list(classes) if WRITERS[target].has_classes else used)
    assert (train.classes[train.labels[0] - 1], val.classes[val.labels[0] - 1]) == (learned, held_out)


def test_names_of_splits_are_quoted_where_yaml_reads_something_else(tmp_path):
    for split in ("2012", "no"):
        coco(tmp_path / "source", f"annotations/instances_{split}.json", split)
    assert 'format: voc, train: "2012", val: "no"}' in convert(str(tmp_path / "source"), "voc", str(tmp_path / "out"))


@pytest.mark.parametrize("classes", [("1", "2", "3"), ("3", "1", "0"), ("nan", "1e3", "inf"), ("a\x7fb", "c\x85d", "\u2028 e")])
def test_classes_of_any_name_there_and_back(tmp_path, classes):
    boxes = [[1, 2, 30, 40], [3, 4, 20, 20], [5, 6, 10, 10]]
    coco(tmp_path / "source", "annotations/instances_train.json", "train", 1, [(0, label, box) for label, box in enumerate(boxes, 1)],
         [name.strip() for name in classes])
    convert(str(tmp_path / "source"), "yolo", str(tmp_path / "there"))
    convert(str(tmp_path / "there"), "coco", str(tmp_path / "back"))
    for place in ("there", "back"):
        assert_same(read(tmp_path / "source", "train"), read(tmp_path / place, "train"))


def test_class_names_that_xml_cannot_hold_are_refused_by_name(tmp_path):
    coco(tmp_path / "source", "annotations/instances_train.json", "train", classes=("a\x01b", "cat", "c\rd"))
    with pytest.raises(BadInput, match=r"class names that XML cannot hold: 'a\\x01b', 'c\\rd'\. Rename them, or convert --to coco"):
        convert(str(tmp_path / "source"), "voc", str(tmp_path / "out"))
    assert os.listdir(tmp_path) == ["source"]


def test_another_data_file_is_converted_with_all_of_its_splits(tmp_path):
    yolo(tmp_path / "source")
    other = text(tmp_path / "source/other.yaml", "train: images/val\ntest: images/train\nnames: [dog]\n")
    convert(str(other), "coco", str(tmp_path / "all"))
    convert(str(other), "coco", str(tmp_path / "one"), splits=["test"])
    assert sorted(os.listdir(tmp_path / "all")) == ["annotations", "test", "train"] and os.listdir(tmp_path / "all/train") == ["val.jpg"]
    assert sorted(os.listdir(tmp_path / "one")) == ["annotations", "test"]


@pytest.mark.parametrize("splits", [[], ["train"]])
def test_an_unknown_format_is_named(tmp_path, splits):
    yolo(tmp_path / "source")
    with pytest.raises(BadInput, match=r"unknown data.format=yolov8 \(did you mean yolo\?\)"):
        convert(str(tmp_path / "source"), "coco", str(tmp_path / "out"), "yolov8", splits)


def test_images_of_any_size_without_an_ending_are_converted_without_a_warning(tmp_path, monkeypatch):
    coco(tmp_path / "source", "train.json", "train", 1)
    (tmp_path / "source/train/train_0.png").rename(tmp_path / "source/train/train_0")
    text(tmp_path / "source/train.json", (tmp_path / "source/train.json").read_text().replace("train_0.png", "train_0"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # of 5000: Pillow warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(str(tmp_path / "source"), "coco", str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out/train") == ["train_0.png"]


def test_flags_are_kept_where_they_can_be_and_said_where_not(tmp_path):
    crowd = [(0, 1, [1, 2, 30, 40], {"iscrowd": 1}), (0, 1, [5, 6, 10, 10])]
    coco(tmp_path / "source", "train.json", "train", objects=crowd)
    messages = {target: convert(str(tmp_path / "source"), target, str(tmp_path / target)) for target in WRITERS}
    assert {target: read(tmp_path / target, "train").flags.tolist() for target in WRITERS} == \
        {"coco": [1, 0], "voc": [2, 0], "yolo": [0, 0], "per_image_json": [0, 0]}
    assert "1 crowd regions became ordinary objects: the layout yolo cannot mark them" in messages["yolo"]
    assert "1 crowd regions became difficult objects" in messages["voc"] and "crowd" not in messages["coco"]
    assert "1 difficult objects became ordinary objects" in convert(str(tmp_path / "voc"), "coco", str(tmp_path / "again"))


def test_images_are_links_or_copies_and_an_image_of_two_splits_is_there_once(tmp_path):
    voc(tmp_path / "source", {"train": ["a"], "trainval": ["a", "b"]})
    convert(str(tmp_path / "source"), "voc", str(tmp_path / "links"))
    convert(str(tmp_path / "source"), "coco", str(tmp_path / "copies"), copy=True)
    source = tmp_path / "source/JPEGImages/a.jpg"
    assert os.path.samefile(tmp_path / "links/JPEGImages/a.jpg", source)
    assert sorted(os.listdir(tmp_path / "links/JPEGImages")) == ["a.jpg", "b.jpg"]
    copied = tmp_path / "copies/train/a.jpg"
    assert not os.path.samefile(copied, source) and copied.read_bytes() == source.read_bytes()


def test_a_symbolic_link_stands_in_where_a_disk_takes_no_hard_link(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError(18, "Invalid cross-device link")
    monkeypatch.setattr(os, "link", fail)
    yolo(tmp_path / "source")
    convert(str(tmp_path / "source"), "coco", str(tmp_path / "out"))
    assert (tmp_path / "out/train/train.jpg").is_symlink() and len(read(tmp_path / "out", "train")) == 1


def test_splits_that_annotate_an_image_differently_are_kept_apart(tmp_path):
    root = tmp_path / "source"
    coco(root, "annotations/instances_train.json", "images", 1, [(0, 1, [1, 2, 30, 40])])
    coco(root, "annotations/instances_val.json", "images", 1, [(0, 1, [5, 6, 30, 40])])
    convert(str(root), "voc", str(tmp_path / "out"))
    for split in ("train", "val"):
        assert_same(read(root, split), read(tmp_path / "out", split))


def test_chosen_splits_an_annotation_file_and_a_stated_format(tmp_path):
    random_coco(tmp_path / "source", 0)
    convert(str(tmp_path / "source/annotations/instances_val.json"), "yolo", str(tmp_path / "a"))
    convert(str(tmp_path / "source"), "yolo", str(tmp_path / "b"), "coco", ["val"])
    assert os.listdir(tmp_path / "a/images") == os.listdir(tmp_path / "b/images") == ["val"]


@pytest.mark.parametrize("existing", ["file", "folder"])
def test_an_out_that_has_files_is_refused(tmp_path, existing):
    yolo(tmp_path / "source")
    text(tmp_path / "out" if existing == "file" else tmp_path / "out/file", "")
    with pytest.raises(BadInput, match="exists already: name a folder that does not exist yet, or is empty"):
        convert(str(tmp_path / "source"), "coco", str(tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    convert(str(tmp_path / "source"), "coco", str(tmp_path / "empty"))


def test_mistakes_leave_nothing_behind(tmp_path, monkeypatch):
    yolo(tmp_path / "source")
    out = tmp_path / "out"
    with pytest.raises(BadInput, match=r"--to yolov8 \(did you mean yolo\?\): one of coco, voc, yolo, per_image_json"):
        convert(str(tmp_path / "source"), "yolov8", str(out))
    with pytest.raises(BadInput, match="no YOLO split 'dev'"):
        convert(str(tmp_path / "source"), "coco", str(out), splits=["dev"])

    def fail(*_args, **_options):
        raise OSError(28, "No space left on device", "x")
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "copyfile", fail)
        with pytest.raises(BadInput, match="cannot write .*out: No space left on device"):
            convert(str(tmp_path / "source"), "coco", str(out), copy=True)
    coco(tmp_path / "lost", "train.json", "train", 30)
    shutil.rmtree(tmp_path / "lost/train")
    with pytest.raises(BadInput, match=r"images that cannot be converted: 30 mistakes\n.*no such image file(.|\n)*and 20 more"):
        convert(str(tmp_path / "lost"), "coco", str(out))
    assert sorted(os.listdir(tmp_path)) == ["lost", "source"]


def test_a_size_that_no_layout_without_sizes_can_tell_is_refused(tmp_path):
    coco(tmp_path / "source", "train.json", "train", 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned: viewers show 50x100
    with Image.open(tmp_path / "source/train/train_0.png") as opened:
        opened.save(tmp_path / "source/train/train_0.png", exif=exif)
    with pytest.raises(BadInput, match=r"is 50x100 pixels as viewers show it, but annotated as 100x50.*convert --to coco"):
        convert(str(tmp_path / "source"), "yolo", str(tmp_path / "out"))
    convert(str(tmp_path / "source"), "voc", str(tmp_path / "out"))


def test_the_command_line(tmp_path, capsys):
    yolo(tmp_path / "source")
    args = parse(["convert", str(tmp_path / "source"), "--to", "coco", str(tmp_path / "out"), "--split", "train", "--copy"])
    assert cli.run_single(args) == 0
    assert "out: coco from yolo, train: 1 image " in capsys.readouterr().out
