"""The data set that draws itself: real files, exact boxes, the same ones every time, whole or not at all."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.formats import coco, shapes
from detector.errors import BadInput
from detector.seeding import numpy_random_state

COUNT = 12


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    shapes.draw_split(str(root), "train", COUNT)
    return root


@pytest.fixture
def few(monkeypatch) -> None:
    """Two and one images instead of hundreds."""
    monkeypatch.setattr(shapes, "IMAGES", {"train": 2, "val": 1})


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def pictures() -> list:
    return [shapes.draw_image(numpy_random_state(seed)) for seed in range(100)]


def test_a_split_is_read_like_any_coco_data_set(drawn):
    dataset = coco.read(str(drawn), "train")
    content = json.loads((drawn / "annotations" / "instances_train.json").read_text())
    assert len(dataset) == COUNT and dataset.classes == shapes.CLASSES
    assert len(dataset.boxes) == len(content["annotations"]) > COUNT
    assert sorted(note["id"] for note in content["annotations"]) == list(range(1, len(dataset.boxes) + 1))
    for index in range(COUNT):
        with Image.open(dataset.path(index)) as image:
            assert image.format == "JPEG" and dataset.sizes[index].tolist() == [image.height, image.width]


def test_drawing_again_gives_the_same_bytes(drawn, tmp_path):
    shapes.draw_split(str(tmp_path), "train", 3)
    for number in range(1, 4):
        name = f"train/{number:05d}.jpg"
        assert (tmp_path / name).read_bytes() == (drawn / name).read_bytes()


def test_more_images_begin_with_the_same_ones_and_splits_differ(drawn, tmp_path):
    shapes.draw_split(str(tmp_path), "val", 2)
    for number in (1, 2):
        name = f"{number:05d}.jpg"
        assert (tmp_path / "val" / name).read_bytes() != (drawn / "train" / name).read_bytes()


def test_objects_lie_in_their_image_and_have_area(pictures):
    for picture, objects in pictures:
        assert len(objects) <= shapes.MAX_OBJECTS
        for label, (left, top, right, bottom) in objects:
            assert 1 <= label <= len(shapes.CLASSES)
            assert 0 <= left < right <= picture.width and 0 <= top < bottom <= picture.height


def test_no_object_hides_under_those_drawn_after_it(pictures):
    for _, objects in pictures:
        for i, (_, (left, top, right, bottom)) in enumerate(objects):
            for _, (x1, y1, x2, y2) in objects[i + 1:]:
                shared = max(min(right, x2) - max(left, x1), 0) * max(min(bottom, y2) - max(top, y1), 0)
                assert shared <= shapes.MAX_COVERED_FRACTION * (right - left) * (bottom - top)


def test_every_class_and_an_image_without_objects_occur(pictures):
    assert {label for _, objects in pictures for label, _ in objects} == set(range(1, len(shapes.CLASSES) + 1))
    assert any(not objects for _, objects in pictures)


@pytest.mark.parametrize("name", shapes.CLASSES)
@pytest.mark.parametrize("rotation", [0, shapes.MAX_ROTATION])
def test_a_shape_lies_within_its_radius_around_its_centre(name, rotation):
    inside = np.asarray(shapes.shape_mask(name, (60, 80), (40, 30), 20, rotation)) > 0
    y, x = np.nonzero(inside)
    assert len(x) > 100
    assert np.hypot(x - 40, y - 30).max() <= 20 + 2 ** 0.5, "a corner is drawn as a whole pixel"
    assert inside[30, 40] == (name != "ring"), "only a ring is open in its middle"


def test_shapes_are_told_apart():
    masks = [shapes.shape_mask(name, (60, 80), (40, 30), 20, 0).tobytes() for name in shapes.CLASSES]
    assert len(set(masks)) == len(masks)


def test_a_shrunk_mask_has_lost_exactly_its_rim():
    full = np.zeros((7, 9), np.uint8)
    full[1:6, 2:8] = 255
    smaller = np.zeros((7, 9), np.uint8)
    smaller[2:5, 3:7] = 255
    assert np.array_equal(np.asarray(shapes.erode(Image.fromarray(full))), smaller)
    assert not np.asarray(shapes.erode(Image.fromarray(np.zeros((4, 4), np.uint8)))).any()


# Drawn once, whole or not at all

def test_it_is_drawn_once(tmp_path, few):
    root = tmp_path / "data" / "shapes"
    shapes.draw_if_missing(str(root))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert len(contents(root)) == 2 + 1 + 2  # pictures and annotations
    shapes.draw_if_missing(str(root))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert os.listdir(root.parent) == ["shapes"], "nothing is left beside it"


def test_an_empty_folder_is_filled(tmp_path, few):
    root = tmp_path / "shapes"
    root.mkdir()
    shapes.draw_if_missing(str(root))
    assert len(coco.read(str(root), "val")) == 1


def test_others_may_read_it(tmp_path, few):
    shapes.draw_if_missing(str(tmp_path / "shapes"))
    assert (tmp_path / "shapes").stat().st_mode & 0o055 == 0o055


def test_a_drawing_that_is_cut_off_leaves_nothing(tmp_path, few, monkeypatch):
    def cut_off(root: str, split: str, count: int) -> None:
        if split == "val":
            raise KeyboardInterrupt
        draw(root, split, count)
    draw = shapes.draw_split
    monkeypatch.setattr(shapes, "draw_split", cut_off)
    with pytest.raises(KeyboardInterrupt):
        shapes.draw_if_missing(str(tmp_path / "shapes"))
    assert os.listdir(tmp_path) == []


def test_two_machines_that_draw_at_once_on_one_disk_both_succeed(tmp_path, few, monkeypatch):
    def meanwhile(root: str, split: str, count: int) -> None:
        draw(root, split, count)
        if split == "val" and not other.exists():  # the other machine is a moment faster
            other.mkdir()
            for name, number in shapes.IMAGES.items():
                draw(str(other), name, number)
    draw, other = shapes.draw_split, tmp_path / "shapes"
    monkeypatch.setattr(shapes, "draw_split", meanwhile)
    shapes.draw_if_missing(str(other))
    assert len(coco.read(str(other), "train")) == 2
    assert os.listdir(tmp_path) == ["shapes"]


def test_a_folder_with_other_things_in_it_is_named_and_kept(tmp_path, few):
    root = tmp_path / "photos"
    root.mkdir()
    (root / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match=str(root)):
        shapes.draw_if_missing(str(root))
    assert contents(tmp_path) == {"photos/mine.txt": b"mine"}
