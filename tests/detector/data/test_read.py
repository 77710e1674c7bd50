"""Reading a data set of any format: formats, index cache, invalid boxes, training selection."""

import contextlib
import json
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.config.load import load_config
from detector.config.schema import Data
from detector.data.cache import read_cached
from detector.data.formats import FORMATS, Format, shapes
from detector.data.read import (
    describe,
    read_datasets,
    read_splits,
    select_for_training,
)
from detector.errors import BadInput
from detector.structures import CROWD, DIFFICULT, Dataset, build_dataset

ANY = [1, 1, 9, 9]  # a box where boxes do not matter


def write_coco(root: Path, split: str, classes: dict[int, str], images: int, objects: list[tuple]) -> Path:
    """Images 100 wide and 50 high, with ids 10, 11, ...; objects: (image from 0, class id, xywh) and maybe iscrowd."""
    path = root / "annotations" / f"instances_{split}.json"
    for folder in (path.parent, root / split):
        folder.mkdir(parents=True, exist_ok=True)
    for i in range(images):
        (root / split / f"{i}.png").touch()
    path.write_text(json.dumps({
        "categories": [{"id": key, "name": name} for key, name in classes.items()],
        "images": [{"id": 10 + i, "file_name": f"{i}.png", "height": 50, "width": 100} for i in range(images)],
        "annotations": [{"id": n, "image_id": 10 + image, "category_id": key, "bbox": box, "iscrowd": sum(crowd)}
                        for n, (image, key, box, *crowd) in enumerate(objects)]}))
    return path


def write_voc(root: Path, split: str, notes: dict[str, list[tuple]]) -> None:
    """notes: for each stem its objects, (name, difficult, xmin, ymin, xmax, ymax)."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(notes))
    for stem, objects in notes.items():
        (root / "JPEGImages" / f"{stem}.jpg").touch()
        elements = "".join(f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin>"
                       f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
                       for name, difficult, x1, y1, x2, y2 in objects)
        (root / "Annotations" / f"{stem}.xml").write_text(
            f"<annotation><size><width>100</width><height>50</height></size>{elements}</annotation>")


def settings(tmp_path: Path, **more) -> Data:
    return Data(**{"format": "coco", "root": str(tmp_path / "data"), "cache": str(tmp_path / "cache"), **more})


def boxes_in_image(boxes: list, image_id: int = 1) -> Dataset:
    """One image, 100 wide and 50 high, with these boxes; the area of box n is n."""
    objects = [(0, 1 + n % 2, 0, n, *box) for n, box in enumerate(boxes)]
    return build_dataset("some", "/data", ["cat", "dog"], [1, 2], [("a.jpg", image_id, 50, 100)], np.array(objects))


def same(a: Dataset, b: Dataset) -> bool:
    """Equal in every field, and of the same kind."""
    return all(type(x) is type(y) and np.array_equal(x, y) and np.asarray(x).dtype == np.asarray(y).dtype
               for x, y in ((getattr(a, field.name), getattr(b, field.name)) for field in fields(Dataset)))


def names(dataset: Dataset) -> list[str]:
    return [dataset.classes[label - 1] for label in dataset.labels]


@pytest.fixture
def parsed(monkeypatch) -> list[str]:
    """The splits that were parsed, in order, of every format."""
    splits: list[str] = []
    for name, entry in FORMATS.items():
        def read(root: str, split: str, parse=entry.read) -> Dataset:
            splits.append(split)
            return parse(root, split)
        monkeypatch.setitem(FORMATS, name, replace(entry, read=read))
    return splits


# The cache. Each tree is a split `train`; the file that is returned holds a 9 or a 4 to change.

def coco_tree(root: Path) -> Path:
    return write_coco(root, "train", {3: "cat", 7: "dög"}, 3, [(2, 7, [1, 2, 3, 4]), (0, 3, [5, 5, 5, 5], 1)])


def voc_tree(root: Path) -> Path:
    write_voc(root, "train", {"b": [("dog", 1, 1, 1, 9, 9)], "a": []})
    return root / "Annotations" / "b.xml"


def json_tree(root: Path) -> Path:
    for folder in ("input", "target"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem, boxes in (("a", []), ("b", [[1, 2, 4, 3]])):
        Image.new("RGB", (6, 4)).save(root / "input" / f"{stem}.png")
        (root / "target" / f"{stem}.json").write_text(json.dumps({"labels": ["cat"] * len(boxes), "boxes": boxes}))
    (root / "train.txt").write_text("b\na")
    return root / "target" / "b.json"


@pytest.mark.parametrize("format, tree", [("coco", coco_tree), ("voc", voc_tree), ("per_image_json", json_tree)])
def test_a_second_reading_does_not_parse_again_and_a_changed_file_is_read_anew(tmp_path, parsed, format, tree):
    changing = tree(tmp_path / "data")
    config = settings(tmp_path, format=format)
    first, second = (read_cached(config, config.root, "train") for _ in range(2))
    assert parsed == ["train"] and same(first, second)
    assert len(list((tmp_path / "cache").iterdir())) == 1, "one file, and no part of one beside it"
    status, text = changing.stat(), changing.read_text()
    changing.write_text(text.replace("9", "8").replace("4", "5"))  # of the same length: the time must tell
    os.utime(changing, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    third = read_cached(config, config.root, "train")
    assert parsed == ["train", "train"] and not np.array_equal(first.boxes, third.boxes)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not an archive", "half"])
def test_a_damaged_cache_is_read_anew_and_fixed(tmp_path, parsed, content):
    coco_tree(tmp_path / "data")
    config = settings(tmp_path)
    first = read_cached(config, config.root, "train")
    stored, = (tmp_path / "cache").iterdir()
    stored.write_bytes(stored.read_bytes()[:stored.stat().st_size // 2] if content == "half" else content)
    assert all(same(first, read_cached(config, config.root, "train")) for _ in range(2))
    assert len(parsed) == 2


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, parsed):
    file = coco_tree(tmp_path / "data")
    config = settings(tmp_path, cache=str(file / "cache"))  # below a file there can be no folder
    assert same(*(read_cached(config, config.root, "train") for _ in range(2))) and len(parsed) == 2


def test_splits_and_roots_do_not_share_a_cache(tmp_path, parsed):
    places = [(str(tmp_path / root), split) for root in ("data", "other") for split in ("a", "b")]
    for count, (root, split) in enumerate(places, start=1):
        os.utime(write_coco(Path(root), split, {}, count, []), ns=(0, 0))  # of the same time
    config = settings(tmp_path)
    assert [len(read_cached(config, *place)) for _ in range(2) for place in places] == [1, 2, 3, 4] * 2
    assert len(parsed) == 4, "without objects, too"


def test_images_that_arrive_after_the_annotations_were_read_are_found(tmp_path):
    coco_tree(tmp_path / "data")
    config = settings(tmp_path)
    (tmp_path / "data" / "train").rename(tmp_path / "elsewhere")
    read_cached(config, config.root, "train")
    (tmp_path / "elsewhere").rename(tmp_path / "data" / "images")
    assert Path(read_cached(config, config.root, "train").path(0)).is_file()


def test_a_size_that_came_from_an_image_follows_the_image(tmp_path):
    path = write_coco(tmp_path / "data", "train", {1: "cat"}, 1, [])
    path.write_text(path.read_text().replace('"height": 50, ', ""))
    config = settings(tmp_path)
    for height in (4, 5):
        Image.new("RGB", (6, height)).save(tmp_path / "data" / "train" / "0.png")
        assert read_cached(config, config.root, "train").sizes.tolist() == [[height, 6]]


# Missing files

def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BadInput, match=f"data.root={tmp_path}/data: no such folder"):
        read_splits(settings(tmp_path, root="~/data"), ("train",))
    write_coco(tmp_path / "data", "train", {1: "cat"}, 0, [])
    with pytest.raises(BadInput, match="empty data set: coco train"):
        read_datasets(settings(tmp_path, val=()))
    write_voc(tmp_path / "data", "train", {"a": []})
    of_voc = settings(tmp_path, format="voc", val=())
    with pytest.raises(BadInput, match="voc train .*no object of any class"):
        read_datasets(of_voc)
    voc_tree(tmp_path / "data").unlink()
    with pytest.raises(BadInput, match=r"no such annotation file: .*Annotations/b\.xml"):
        read_datasets(of_voc)


def test_no_remedy_is_offered_that_is_taken_already(tmp_path):
    """An image whose header cannot be read, where sizes come from headers: grey must help, or not be advised."""
    json_tree(tmp_path / "data")
    (tmp_path / "data" / "input" / "a.png").write_bytes(b"")
    try:
        read_splits(settings(tmp_path, format="per_image_json", unreadable_images="grey"), ("train",))
    except BadInput as error:
        assert "data.unreadable_images=grey" not in str(error)


# Formats

def test_the_option_lists_every_format():
    metadata = next(field for field in fields(Data) if field.name == "format").metadata
    assert metadata["choices"] == ("auto", *FORMATS)


@pytest.mark.parametrize("name, hint", [("cocoo", r" \(did you mean coco\?\)"), ("x", "")])
def test_an_unknown_format_is_an_error_that_lists_all_formats(tmp_path, name, hint):
    with pytest.raises(BadInput, match=rf"unknown data.format={name}{hint}\. Set it to one of: auto, {', '.join(FORMATS)}$"):
        read_datasets(settings(tmp_path, format=name))
    with pytest.raises(BadInput, match=f"unknown data.format={name}"):
        read_cached(settings(tmp_path, format=name), str(tmp_path), "train")


def test_a_format_is_added_by_one_entry(tmp_path, monkeypatch, config_file):
    """A CSV file a split with lines `file,height,width,class,x1,y1,x2,y2`."""
    def read_csv(root: str, split: str) -> Dataset:
        rows = [line.split(",") for line in Path(root, f"{split}.csv").read_text().splitlines()]
        objects = np.array([(index, 1, 0, 1, *map(float, row[4:])) for index, row in enumerate(rows)])
        return build_dataset(f"csv {split}", root, ["cat"], [1],
                             [(row[0], index + 1, int(row[1]), int(row[2])) for index, row in enumerate(rows)], objects)
    monkeypatch.setitem(FORMATS, "csv", Format(read_csv, lambda root, split: [os.path.join(root, f"{split}.csv")]))
    (tmp_path / "train.csv").write_text("a.jpg,50,100,cat,1,2,30,40\n")
    config = load_config(str(config_file), ["data.format=csv", f"data.root={tmp_path}", f"data.cache={tmp_path / 'cache'}"])
    dataset = read_splits(config.data, ("train",))
    assert dataset.boxes.tolist() == [[1, 2, 30, 40]] and dataset.sizes.tolist() == [[50, 100]]
    (tmp_path / "train.csv").write_text("a.jpg,50,100,cat,1,2,30,44\n")
    os.utime(tmp_path / "train.csv", ns=(1, 1))
    assert read_splits(config.data, ("train",)).boxes.tolist() == [[1, 2, 30, 44]], "the cache notices the change"


def test_shapes_are_drawn_when_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "IMAGES", {"train": 3, "val": 2})
    train, val = read_datasets(settings(tmp_path, format="shapes"))
    assert (len(train), len(val)) == (3, 2) and train.classes == val.classes == shapes.CLASSES


def test_the_policy_of_the_config_is_followed_and_the_cache_serves_every_policy(tmp_path, parsed):
    boxes = ([1, 1, 5, 5], [90, 1, 50, 5], [1, 1, 0, 0])
    write_coco(tmp_path / "data", "train", {1: "cat"}, 1, [(0, 1, box) for box in boxes])
    for policy, left in (("drop", 1), ("clip", 2)):
        for dataset in read_datasets(settings(tmp_path, val=("train",), invalid_boxes=policy)):
            assert len(dataset.boxes) == left and len(dataset.warnings) == 2
    assert read_datasets(settings(tmp_path, val=()))[1] is None
    with pytest.raises(BadInput, match="2 invalid boxes in coco train"):
        read_datasets(settings(tmp_path, val=(), invalid_boxes="refuse"))
    assert parsed == ["train"]


# Selection for training

def test_crowds_are_kept_for_scoring_and_left_out_of_training(tmp_path):
    write_coco(tmp_path / "data", "train", {1: "cat"}, 2, [(0, 1, [1, 1, 5, 5]), (0, 1, ANY, 1), (1, 1, ANY, 1)])
    config = settings(tmp_path, val=("train",))
    train, val = read_datasets(config)
    assert train.flags.tolist() == val.flags.tolist() == [0, CROWD, CROWD]
    learned = select_for_training(train, config)
    assert learned.boxes.tolist() == [[1, 1, 6, 6]] and learned.boxes_per_image().tolist() == [1, 0]


@pytest.mark.parametrize("crowd, difficult, flags", [
    (False, False, [0]), (True, False, [0, CROWD]), (False, True, [0, DIFFICULT]),
    (True, True, [0, CROWD, DIFFICULT, CROWD | DIFFICULT])])
def test_crowds_and_difficult_objects_have_an_option_each(tmp_path, crowd, difficult, flags):
    objects = [(0, 1, flag, 1, *ANY) for flag in (0, CROWD, DIFFICULT, CROWD | DIFFICULT)]
    dataset = build_dataset("some", "", ["cat"], [1], [("a", 1, 50, 100)], np.array(objects))
    config = settings(tmp_path, train_on_crowd=crowd, train_on_difficult=difficult)
    assert select_for_training(dataset, config).flags.tolist() == flags


@pytest.mark.parametrize("options, ids", [({}, [0, 1, 2, 3]), ({"empty_images": "drop"}, [1]),  # 2: nothing but a crowd
                                          ({"empty_images": "drop", "train_on_crowd": True}, [1, 2])])
def test_images_without_objects_are_kept_or_dropped_as_the_config_says(tmp_path, options, ids):
    objects = np.array([(1, 1, 0, 1, *ANY), (2, 1, CROWD, 1, *ANY)])
    dataset = build_dataset("some", "", ["cat"], [1], [(str(i), i, 50, 100) for i in range(4)], objects)
    assert select_for_training(dataset, settings(tmp_path, **options)).image_ids.tolist() == ids
    assert describe(dataset) == "some: 4 images (2 without objects), 2 objects, 1 class"
    refused = pytest.raises(BadInput, match="no image of some is left to train on .*data.empty_images")
    with refused if options else contextlib.nullcontext():
        assert len(select_for_training(boxes_in_image([]), settings(tmp_path, **options))) == 1
