"""JPEGs decoded at a reduced size: when, their boxes and padded sizes, and by how much pixels differ."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from detector.config.load import load_config
from detector.config.schema import Augment
from detector.data.dataset import DetectionDataset
from detector.data.image_io import read_image
from detector.data.transforms import jpeg_divisor
from detector.errors import BadInput
from detector.model.preprocessing import PixelFormat, Preprocessing, to_batch
from detector.seeding import numpy_random_state
from detector.structures import Resize, build_dataset, ceil_div, scale_and_size, scale_boxes

LEVELS = Preprocessing(pixel_format=PixelFormat(False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))  # pixels stay 0 ... 255
ON = Augment(hflip_prob=0, reduced_jpegs=True, min_size=(200,), max_size=400)


def photograph(path, height: int = 600, width: int = 800, **options) -> str:
    """Smooth, with some detail of a few pixels."""
    state = numpy_random_state(height)
    total = np.zeros((height, width, 3))
    for cells, weight in ((6, 0.6), (24, 0.25), (100, 0.15)):
        coarse = Image.fromarray(state.randint(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    Image.fromarray(total.clip(0, 255).astype(np.uint8)).save(path, quality=90, **options)
    return str(path)


@pytest.mark.parametrize("height, width, changes, divisor", [
    (600, 800, {}, 2),                                     # 300 >= 200, but 150 is not
    (800, 800, {}, 4), (1600, 1600, {}, 8), (4000, 4000, {}, 8), (397, 532, {}, 1),
    (400, 400, {"min_size": (200, 400)}, 1),            # the largest side counts
    (800, 800, {"scale_jitter": (1.0, 2.0)}, 2),                 # a crop of half a side is enlarged to 200
    (800, 800, {"scale_jitter": (0.5, 1.0)}, 4),
    (600, 800, {"reduced_jpegs": False}, 1),
    (401, 3001, {}, 4),                                    # the long side's cap makes it small
    (600, 3, {}, 1)])
def test_jpegs_are_reduced_only_while_they_are_as_large_as_the_resized_image(height, width, changes, divisor):
    config = replace(ON, **changes)
    assert jpeg_divisor(height, width, config) == divisor


def test_resized_sizes_are_those_of_the_whole_image():
    """A half of an odd side is rounded up; where that would move the resized size by a pixel nothing is reduced."""
    some_are_left = some_are_reduced = False
    for height in range(500, 520):
        for width in range(600, 800, 7):
            divisor = jpeg_divisor(height, width, ON)
            small = ceil_div(height, divisor), ceil_div(width, divisor)
            for min_size in ON.min_size:
                assert scale_and_size(*small, Resize(min_size, 400))[1] == scale_and_size(height, width, Resize(min_size, 400))[1]
            some_are_reduced |= divisor > 1
            some_are_left |= divisor == 1
    assert some_are_left and some_are_reduced


@pytest.mark.parametrize("min_size, mean, most", [(300, 1.0, 8.0), (250, 2.0, 40.0), (200, 2.0, 40.0), (150, 1.0, 8.0), (100, 3.0, 60.0)])
def test_resized_pixels_differ_by_some_grey_levels(tmp_path, min_size, mean, most):
    """Of 255. Half or a quarter as a whole number: little. Between: what the resize without smoothing skips at full size."""
    path, resize = photograph(tmp_path / "a.jpg"), Resize(min_size, 0)
    divisor = jpeg_divisor(600, 800, replace(ON, min_size=(min_size,), max_size=0))
    assert divisor > 1
    whole, reduced = (to_batch([read_image(path, (600, 800), by)], resize, LEVELS).tensors for by in (1, divisor))
    assert whole.shape == reduced.shape
    difference = (whole - reduced).abs()
    assert difference.mean() < mean and difference.max() < most


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_turned_photographs_are_turned_and_sizes_are_rounded_up(tmp_path, orientation, divisor):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = photograph(tmp_path / "a.jpg", 101, 203, exif=exif)
    height, width = (203, 101) if orientation in (6, 8) else (101, 203)
    image = read_image(path, (height, width), divisor)
    assert tuple(image.shape) == (3, ceil_div(height, divisor), ceil_div(width, divisor)) and image.dtype == torch.uint8
    small = torch.nn.functional.interpolate(read_image(path, (height, width))[None].float(), image.shape[1:], mode="area")[0]
    assert (small - image.float()).abs().mean() < 15, "turned otherwise it would be 50"
    if (height, width) != (101, 203):  # annotated on the unturned image
        assert tuple(read_image(path, (101, 203), divisor).shape[1:]) == (ceil_div(101, divisor), ceil_div(203, divisor))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_jpegs_become_rgb(tmp_path, mode):
    Image.new(mode, (40, 30), 100 if mode == "L" else (0, 0, 0, 155)).save(tmp_path / "a.jpg")
    assert tuple(read_image(str(tmp_path / "a.jpg"), (30, 40), 2).shape) == (3, 15, 20)


def test_png_stays_whole(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    assert tuple(read_image(str(tmp_path / "a.png"), (30, 40), 2).shape) == (3, 30, 40)


@pytest.mark.parametrize("fault", ["truncated", "size"])
def test_errors_are_those_of_the_whole_image(tmp_path, fault):
    path = photograph(tmp_path / "a.jpg")
    if fault == "truncated":
        with open(path, "r+b") as file:
            file.truncate(3000)
    errors = []
    for divisor in (1, 2):
        with pytest.raises(BadInput) as caught:
            read_image(path, (600, 800) if fault == "truncated" else (599, 800), divisor)  # 599 and 600 have the same half
        errors.append(str(caught.value).split(":")[0])
    assert errors[0] == errors[1]


@pytest.mark.parametrize("changes", [{}, {"hflip_prob": 1.0}, {"scale_jitter": (0.7, 1.0)}, {"scale_jitter": (1.0, 1.4)}])
def test_resized_boxes_are_those_of_the_whole_image_and_the_data_set_is_unchanged(tmp_path, changes):
    photograph(tmp_path / "a.jpg")
    boxes = [(0, 1, 0, 1, 100.5, 50, 300, 251), (0, 2, 0, 1, 0, 0, 800, 600)]
    dataset = build_dataset("one", str(tmp_path), ["cat", "dog"], [1, 2], [("a.jpg", 1, 600, 800)], np.array(boxes, np.float64))
    examples = []
    for on in (False, True):
        image, target = DetectionDataset(dataset, 0, replace(ON, reduced_jpegs=on, **changes))[(0, 0)]
        _, size = scale_and_size(*image.shape[-2:], Resize(200, 400))
        examples.append((size, scale_boxes(target["boxes"], tuple(image.shape[-2:]), size), target["labels"].tolist()))
    assert image.shape[-1] < 800 / 1.4 and dataset.boxes[0].tolist() == [100.5, 50, 300, 251]
    (size, whole, labels), (small_size, reduced, small_labels) = examples
    assert size == small_size and labels == small_labels == [1, 2]
    assert torch.allclose(whole, reduced, atol=1.0 if "scale_jitter" in changes else 1e-3)  # crops end at whole pixels


def test_the_same_key_gives_the_same_pixels(tmp_path):
    photograph(tmp_path / "a.jpg")
    dataset = build_dataset("one", str(tmp_path), ["cat"], [1], [("a.jpg", 1, 600, 800)], np.zeros((0, 8)))
    config = replace(ON, hflip_prob=0.5, scale_jitter=(0.7, 1.4), color_jitter_prob=0.5)
    first, again = (DetectionDataset(dataset, 3, config)[(2, 0)][0] for _ in range(2))
    assert torch.equal(first, again) and min(first.shape[1:]) < 600


def test_crop_to_group_and_reduced_jpegs_exclude_each_other(config_file):
    with pytest.raises(BadInput, match="augment.reduced_jpegs=true: the crop is computed in pixels of the whole image"):
        load_config(str(config_file), ["data.root=/", "batch.aspect_ratio_groups=static", "batch.crop_to_group=true",
                                       "augment.reduced_jpegs=true"])
