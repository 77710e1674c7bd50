"""The index cache: what it depends on, and that nothing that happens to it is an error."""

import os
import shutil
import time
from dataclasses import fields, replace

import numpy as np
import pytest
from small_layouts import LINE, coco, image, options, text, voc, yolo

from detector.data import cache
from detector.data.cache import read_cached
from detector.data.formats import FORMATS, Format
from detector.data.read import read_splits


@pytest.fixture
def readings(monkeypatch):
    """Returns a list to which every run of a reader adds its split."""
    splits = []
    for name, entry in FORMATS.items():
        def read(root, split, images="", parse=entry.read):
            splits.append(split)
            return parse(root, split, images)
        monkeypatch.setitem(FORMATS, name, replace(entry, read=read))
    return splits


def settings(tmp_path, **more):
    return options(tmp_path / "data", cache=str(tmp_path / "cache"), **{"format": "yolo", **more})


def read(config, split="train"):
    return read_cached(config, config.root, split)


def change(path):
    """Sets another time of change; the clock of a file system may be coarse."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def test_an_image_that_got_another_size_is_measured_again(tmp_path, readings):
    yolo(tmp_path / "data")
    config = settings(tmp_path)
    assert read(config).sizes.tolist() == read(config).sizes.tolist() == [[50, 100]] and len(readings) == 1
    change(image(tmp_path / "data/images/train/train.jpg", (30, 20)))
    assert read(config).sizes.tolist() == [[20, 30]] and read(config).boxes.tolist() == [[12, 6, 18, 14]]
    assert len(readings) == 2


def test_an_image_whose_size_is_annotated_may_change(tmp_path, readings):
    coco(tmp_path / "data", "train.json", "train")
    config = settings(tmp_path, format="coco")
    read(config)
    change(tmp_path / "data/train/train_0.png")
    read(config)
    assert len(readings) == 1


def test_files_that_appear_or_are_renamed_are_noticed(tmp_path, readings):
    yolo(tmp_path / "data")
    config = settings(tmp_path)
    read(config)
    image(tmp_path / "data/images/train/new.jpg")
    change(tmp_path / "data/images/train")
    assert len(read(config)) == 2
    text(tmp_path / "data/labels/train/new.txt", LINE)
    assert read(config).boxes_per_image().tolist() == [1, 1] and len(readings) == 3


def test_images_that_moved_are_found_at_their_new_place(tmp_path):
    coco(tmp_path / "data", "train.json", "train")
    config = settings(tmp_path, format="coco")
    read(config)
    (tmp_path / "data/train").rename(tmp_path / "data/images")
    assert os.path.isfile(read(config).path(3))


def test_half_moved_images_are_noticed(tmp_path, readings):
    coco(tmp_path / "data", "train.json", "train")
    config = settings(tmp_path, format="coco")
    read(config)
    (tmp_path / "data/train/train_3.png").unlink()
    change(tmp_path / "data/train")
    read(config)
    assert len(readings) == 2


def test_the_folder_of_images_is_part_of_the_key(tmp_path):
    coco(tmp_path / "data", "train.json", "train")
    shutil.copytree(tmp_path / "data/train", tmp_path / "elsewhere")
    paths = [read(settings(tmp_path, format="coco", images=images)).path(0) for images in ("", str(tmp_path / "elsewhere"))]
    assert paths == [str(tmp_path / "data/train/train_0.png"), str(tmp_path / "elsewhere/train_0.png")]


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:100], lambda content: content[:-30], lambda content: b"\0" * len(content),
    lambda content: content.replace(b"NUMPY", b"NUMBY"), lambda content: content.replace(b"'descr': '", b"'descr': [["),
    lambda content: content.replace(b"boxes.npy", b"foxes.npy"), lambda content: content[:400] + b"\xff" + content[401:],
    lambda content: b"\x80\x04N."])
def test_whatever_is_in_the_file_it_is_no_error(tmp_path, readings, damage):
    coco(tmp_path / "data", "train.json", "train")
    config = settings(tmp_path, format="coco")
    first = read(config)
    stored, = (tmp_path / "cache").iterdir()
    stored.write_bytes(damage(stored.read_bytes()))
    for _ in range(2):
        assert np.array_equal(read(config).boxes, first.boxes)
    assert len(readings) <= 2


def test_no_flipped_bit_in_the_file_changes_a_data_set(tmp_path):
    coco(tmp_path / "data", "train.json", "train")
    config = settings(tmp_path, format="coco")
    first = read(config)
    stored, = (tmp_path / "cache").iterdir()
    content = stored.read_bytes()
    for at in range(0, len(content), 7):
        stored.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1:])
        again = read(config)
        assert all(np.array_equal(getattr(first, field.name), getattr(again, field.name)) for field in fields(first)), at


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system"),
                                   OSError(28, "No space left on device")])
def test_a_folder_that_cannot_be_written_or_a_full_disk_is_no_error(tmp_path, readings, monkeypatch, error):
    def fail(*_args, **_options):
        raise error
    yolo(tmp_path / "data")
    for module, name in ((cache.tempfile, "mkstemp"), (cache.np, "savez"), (cache.os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            assert len(read(settings(tmp_path))) == 1
    assert list((tmp_path / "cache").iterdir()) == [] and len(readings) == 3


def test_without_a_home_or_a_folder_nothing_is_written(tmp_path, monkeypatch):
    yolo(tmp_path / "data")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where neither HOME nor an account names one
    monkeypatch.chdir(tmp_path)
    for folder in ("", "~/.cache/fleet-rcnn"):
        assert len(read_splits(replace(settings(tmp_path), cache=folder), ("train",))) == 1
    assert sorted(os.listdir(tmp_path)) == ["data"]


def test_a_reader_without_a_folder_of_images_works_with_and_without_the_option(tmp_path, monkeypatch):
    yolo(tmp_path / "data")
    entry = FORMATS["yolo"]
    monkeypatch.setitem(FORMATS, "mine", Format(lambda root, split: entry.read(root, split),
                                                lambda root, split: entry.sources(root, split)))
    for images in ("", "images"):
        assert len(read(settings(tmp_path, format="mine", images=images))) == 1


def test_an_image_that_changes_while_it_is_read_is_measured_again(tmp_path, monkeypatch):
    yolo(tmp_path / "data")
    entry = FORMATS["yolo"]

    def read_and_change(root, split, images=""):
        dataset = entry.read(root, split, images)
        time.sleep(0.05)  # the clock of a file system is coarse
        image(tmp_path / "data/images/train/train.jpg", (30, 20))
        return dataset
    with monkeypatch.context() as patch:
        patch.setitem(FORMATS, "yolo", replace(entry, read=read_and_change))
        assert read(settings(tmp_path)).sizes.tolist() == [[50, 100]]
    assert read(settings(tmp_path)).sizes.tolist() == [[20, 30]]


def test_a_list_of_names_that_changes_is_noticed(tmp_path):
    yolo(tmp_path / "data", names="names.list")
    text(tmp_path / "data/names.list", "cat\n")
    assert read(settings(tmp_path)).classes == ("cat",)
    change(text(tmp_path / "data/names.list", "dog\n"))
    assert read(settings(tmp_path)).classes == ("dog",)


@pytest.mark.parametrize("format, write", [("yolo", yolo), ("coco", lambda root: coco(root, "train.json", "images/train")),
                                           ("voc", lambda root: voc(root, {"train": ["a"]}))])
def test_a_home_in_the_folder_of_images_is_expanded(tmp_path, monkeypatch, format, write):
    write(tmp_path / "data")
    (tmp_path / "data" / ("JPEGImages" if format == "voc" else "images")).rename(tmp_path / "pictures")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read(settings(tmp_path, format=format, images="~/pictures")).path(0).startswith(f"{tmp_path}/pictures/")
