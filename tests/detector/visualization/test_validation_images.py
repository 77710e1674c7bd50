"""Validation images: those of any size and name are drawn as JPEGs and PNGs."""

import os

import numpy as np
import pytest
from PIL import Image

from detector.structures import Detections, build_dataset
from detector.visualization.draw_boxes import limit_side
from detector.visualization.thumbnails import encode_thumbnail
from detector.visualization.validation_images import MAX_SIDE, draw_validation_images, evenly_spaced, resize_for_drawing

NONE = Detections(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


def draw(tmp_path, name: str, height: int, width: int) -> tuple[Image.Image, str]:
    """Returns the drawing of one image with one object and one detection, and the name of its PNG."""
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / name)
    box = [0, 0, width / 2, height]
    dataset = build_dataset("val", str(tmp_path), ["cat"], [1], [(name, 1, height, width)], np.array([[0, 1, 0, 1, *box]]))
    detections = Detections(np.array([1]), np.array([box], np.float32), np.array([0.9], np.float32), np.array([1], np.int32))
    encoded, = draw_validation_images(tmp_path / "run", 5, dataset, detections, 1)
    path, = (tmp_path / "run" / "pictures").iterdir()
    assert encoded.png.startswith(b"\x89PNG") and path.suffix == ".jpg"
    return Image.open(path), encoded.name


@pytest.mark.parametrize("height, width", [(20, 2060), (330, 33000), (33000, 3), (1, 1), (1, 9000), (5, 7), (5000, 5000)])
def test_images_of_any_size_are_drawn(tmp_path, height, width):
    sheet, _ = draw(tmp_path, "a.png", height, width)
    assert max(sheet.size) <= 2 * MAX_SIDE + 100
    if max(height, width) < 100:
        assert min(sheet.size) >= 320


@pytest.mark.parametrize("name", ["a" * 250 + ".png", "é" * 120 + ".png", os.fsdecode(b"Stra\xdfe.png"), "a b'\".png"])
def test_images_of_any_name_are_drawn(tmp_path, name):
    _, tag = draw(tmp_path, name, 40, 40)
    assert tag.encode("utf-8").startswith(b"validation/000000-")


def test_images_that_cannot_be_read_are_left_out(tmp_path):
    dataset = build_dataset("val", str(tmp_path), ["cat"], [1], [("gone.png", 1, 4, 4)], np.zeros((0, 8)))
    assert draw_validation_images(tmp_path / "run", 5, dataset, NONE, 1) == []


def test_boxes_are_resized_with_their_image():
    image, boxes = np.zeros((10, 40, 3), np.uint8), np.array([[4.0, 2, 8, 10]])
    drawn, enlarged = resize_for_drawing(image, boxes)
    assert drawn.shape == (320, 1280, 3) and enlarged.tolist() == [[128, 64, 256, 320]]
    reduced, boxes_of_reduced = limit_side(image, boxes, 20)
    assert reduced.shape == (5, 20, 3) and boxes_of_reduced.tolist() == [[2, 1, 4, 5]]
    assert limit_side(image, boxes, 40)[0] is image


@pytest.mark.parametrize("height, width", [(1, 1), (1, 65500), (70000, 2), (3, 3)])
def test_thumbnails_of_any_size(height, width):
    assert encode_thumbnail(np.zeros((height, width, 3), np.uint8), 560)


def test_evenly_spaced_indices():
    assert evenly_spaced(5, 0) == [] and evenly_spaced(0, 3) == [] and evenly_spaced(9, 3) == [0, 4, 8]
