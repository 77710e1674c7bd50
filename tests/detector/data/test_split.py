"""`data.val` as a share: which images are held out, and on what that depends."""

import json
import os
import shutil

import numpy as np
import pytest
from small_layouts import coco, image, options, text, yolo

from detector import read_dataset
from detector.data import read
from detector.data.read import read_datasets, read_part, read_val, relative_paths
from detector.data.split import group_equal_files, hold_out, val_share
from detector.errors import BadInput
from detector.run.files import HELD_OUT_FILE, write_whole
from detector.structures import build_dataset


def files(root, names, same=()):
    """Writes files of equal size and a Dataset that lists them; `same` have the same bytes."""
    for number, name in enumerate(names):
        text(root / name, f"{0 if name in same else number:09d}")
    return build_dataset("drawn", str(root), ["cat"], [1], [(name, 1, 4, 4) for name in names], np.zeros((0, 8)))


def chosen(dataset, share=0.3, seed=0):
    mask = hold_out(dataset, share, seed)
    return {os.fsdecode(bytes(path)) for path in dataset.paths[mask]}


NAMES = [f"{folder}/image {number}.jpg" for folder in ("a", "b") for number in range(50)]


def test_the_choice_depends_on_names_and_seed_alone(tmp_path):
    held_out = chosen(files(tmp_path / "one", NAMES))
    assert len(held_out) == 30 and chosen(files(tmp_path / "two", NAMES[::-1])) == held_out
    assert chosen(files(tmp_path / "three", [f"./{name}" for name in NAMES])) == {f"./{name}" for name in held_out}
    elsewhere = str(tmp_path / "four")
    assert chosen(files(tmp_path, [f"{elsewhere}/{name}" for name in NAMES])) == {f"{elsewhere}/{name}" for name in held_out}
    assert chosen(files(tmp_path / "one", NAMES), seed=1) != held_out
    assert sorted(held_out)[:3] == ["a/image 11.jpg", "a/image 12.jpg", "a/image 13.jpg"], "on every machine"


def test_the_choice_is_the_same_where_the_folder_of_images_has_another_name(tmp_path):
    held_out = chosen(files(tmp_path, [f"images/train/{name}" for name in NAMES]))
    other = chosen(files(tmp_path, [f"photos/{name}" for name in NAMES]))
    assert {name.removeprefix("images/train/") for name in held_out} == {name.removeprefix("photos/") for name in other}


def test_an_image_that_is_listed_again_counts_once(tmp_path):
    held_out = chosen(files(tmp_path, NAMES))
    assert chosen(files(tmp_path, [*NAMES, *NAMES[:40]])) == held_out


def test_names_that_are_no_text_have_a_side_too(tmp_path):
    assert len(chosen(files(tmp_path, [os.fsdecode(b"\xdf%d" % number) for number in range(10)]))) == 3


def test_equal_images_are_on_one_side_and_the_number_is_kept(tmp_path):
    for seed in range(10):
        same = NAMES[5:9]
        held_out = chosen(files(tmp_path, NAMES, same), seed=seed)
        assert len(held_out) == 30 and len(held_out & set(same)) in (0, 4)


def test_files_are_equal_by_all_of_their_bytes(tmp_path):
    content = bytearray(50000)
    names = ["a", "b", "c", "d", "missing", "also missing"]
    for name, position in zip("abc", (None, None, 40000)):
        text(tmp_path / name, bytes(content[:position]) + (b"x" + bytes(content[position + 1:]) if position else b""))
    text(tmp_path / "d", bytes(49999))
    assert sorted(map(sorted, group_equal_files([*names, "a"], str(tmp_path)))) == [[0, 1, 6], [2], [3], [4], [5]]


@pytest.mark.parametrize("count, share, wanted", [(10, 0.2, 2), (3, 0.01, 1), (3, 0.99, 2), (7, 0.5, 4), (2, 0.5, 1)])
def test_the_share_is_rounded_and_at_least_one_image_is_on_each_side(tmp_path, count, share, wanted):
    assert len(chosen(files(tmp_path, NAMES[:count]), share)) == wanted


@pytest.mark.parametrize("same", [(), NAMES])
def test_a_share_of_images_of_which_none_differ_is_an_error(tmp_path, same):
    with pytest.raises(BadInput, match=r"data.val=0\.3: drawn has \d+ images of equal content"):
        hold_out(files(tmp_path, NAMES if same else NAMES[:1], same), 0.3, 0)


def test_a_share_is_one_number_between_0_and_1():
    assert [val_share(val) for val in ((), ("val",), ("0.2",), (".25",), ("2e-1",))] == [None, None, 0.2, 0.25, 0.2]
    assert [val_share((name,)) for name in ("2012", "0:16", "1", "v0.2", "2007/test")] == [None] * 5
    for val in (("0.0",), ("1.5",), ("-0.2",), ("0.2", "val"), ("0.1", "0.2")):
        with pytest.raises(BadInput, match=r"one number between 0 and 1, such as data.val=0\.2"):
            val_share(val)


def test_every_reader_of_a_run_gets_the_same_images(tmp_path):
    coco(tmp_path, "annotations/instances_train.json", "train", 20)
    config = options(tmp_path, val=("0.2",))
    train, val = read_datasets(config, 3)
    assert (len(train), len(val)) == (16, 4) and not set(train.paths.tolist()) & set(val.paths.tolist())
    assert train.paths.tolist() == sorted(train.paths.tolist(), key=lambda path: int(path[12:-4])), "in the order of the file"
    for other in (read_val(config, ("cat",), 3), read_part(config, "val", 3), read_dataset(config, "val", 3)):
        assert other.paths.tolist() == val.paths.tolist() and other.boxes.tolist() == val.boxes.tolist()
    assert read_val(config, ("cat",), 4).paths.tolist() != val.paths.tolist()


def test_the_held_out_images_of_a_run_stay_when_the_data_grows(tmp_path):
    config, run = options(tmp_path, val=("0.25",)), tmp_path / "run"
    coco(tmp_path, "annotations/instances_train.json", "train", 12)
    _, val = read_datasets(config)
    write_whole(run / HELD_OUT_FILE, json.dumps(relative_paths(val)))
    coco(tmp_path, "annotations/instances_train.json", "train", 24)
    train, again = read_datasets(config, 0, run)
    assert again.paths.tolist() == val.paths.tolist() and (len(train), len(again)) == (21, 3)
    assert read_val(config, ("cat",), 0, run).paths.tolist() == val.paths.tolist()
    assert len(read_datasets(config)[1]) == len(read_datasets(config, 0, tmp_path / "another run")[1]) == 6
    write_whole(run / HELD_OUT_FILE, json.dumps(["images/of/other/data.jpg"]))
    assert len(read_datasets(config, 0, run)[1]) == 6, "chosen anew where none of them is there"


def test_two_splits_are_divided_as_one(tmp_path):
    coco(tmp_path, "annotations/instances_a.json", "a", 10)
    coco(tmp_path, "annotations/instances_b.json", "b", 10, classes=("dog",))
    train, val = read_datasets(options(tmp_path, train=("a", "b"), val=("0.3",)))
    assert (len(train), len(val)) == (14, 6) and train.classes == val.classes == ("cat", "dog")


def test_copies_of_an_image_under_other_names_stay_together(tmp_path):
    yolo(tmp_path, ("train",))
    source = image(tmp_path / "images/train/x0.jpg")
    for number in range(1, 6):
        shutil.copy(source, tmp_path / f"images/train/x{number}.jpg")
        image(tmp_path / f"images/train/y{number}.jpg")
    for seed in range(5):
        train, val = read_datasets(options(tmp_path, val=("0.4",)), seed)
        assert len({name[:1] for name in (os.path.basename(path) for path in val.paths.tolist())} & {b"x"}) in (0, 1)
        copies = sum(b"/x" in path for path in val.paths.tolist())
        assert copies in (0, 6) and len(train) + len(val) == 12


def test_the_seed_of_the_config_is_what_a_run_reads_with(tmp_path, monkeypatch):
    seeds = []
    monkeypatch.setattr(read, "hold_out", lambda dataset, share, seed: seeds.append(seed) or hold_out(dataset, share, seed))
    coco(tmp_path, "annotations/instances_train.json", "train")
    read_datasets(options(tmp_path, val=("0.5",)), 7)
    assert seeds == [7]


@pytest.mark.parametrize("content", ["", '["train/x0.jpg", "tra', '{"a": 1}', "[1]"])
def test_a_damaged_list_of_held_out_images_is_named_and_not_chosen_anew_in_silence(tmp_path, content):
    coco(tmp_path, "annotations/instances_train.json", "train")
    (tmp_path / "held_out.json").write_text(content)
    with pytest.raises(BadInput, match="held_out.json, the list of held-out images, is damaged .* or remove it"):
        read_datasets(options(tmp_path, val=("0.5",)), 7, tmp_path)
