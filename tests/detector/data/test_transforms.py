"""Augmentation keeps boxes on their objects, in their image, with an area; and is a pure function of its generator."""

import numpy as np
import pytest
import torch
from torch import Tensor

from detector.config.schema import Augment
from detector.data.image_io import GREY
from detector.data.transforms import (
    MIN_VISIBLE_FRACTION,
    MIN_VISIBLE_SIZE,
    TRANSFORMS,
    augment,
    box_areas,
    clip_boxes,
    color_jitter,
    hflip,
    horizontal_flip,
    scale_jitter,
    transpose,
    uniform,
    vflip,
    visible_mask,
)
from detector.seeding import generator, numpy_random_state

SEEDS = range(30)
ALL = Augment(hflip_prob=0.5, vflip_prob=0.5, transpose_prob=0.5, scale_jitter=(0.3, 3.0), color_jitter_prob=0.5)


def picture(seed: int) -> Tensor:
    """Noise, 3 x (8 ... 40) x (8 ... 40)."""
    state = numpy_random_state(seed)
    height, width = state.randint(8, 41, 2)
    return torch.from_numpy(state.randint(0, 256, (3, height, width)).astype(np.uint8))


def boxes_in(image: Tensor, seed: int, count: int = 12) -> Tensor:
    """Boxes with an area, on quarters of a pixel, which float32 mirrors without rounding; some touch the border."""
    state, (height, width) = numpy_random_state(seed + 1000), image.shape[-2:]
    x, y = (np.sort(state.randint(0, 4 * length + 1, (count, 2)), axis=1) / 4 for length in (width, height))
    boxes = torch.from_numpy(np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1).astype(np.float32))
    return boxes[box_areas(boxes) > 0]


def box(*corners: float) -> Tensor:
    return torch.tensor([corners], dtype=torch.float32).reshape(-1, 4)


NONE = box()


def block(height: int, width: int, corners: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """A black image with a white block, and the block's box."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    x1, y1, x2, y2 = corners
    image[:, y1:y2, x1:x2] = 255
    return image, box(*corners)


def box_of(white: Tensor) -> list[float]:
    """The box around the white pixels, found by looking at each; none of them is no box."""
    y, x = torch.nonzero(white, as_tuple=True)
    return [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1] if len(x) else []


# Flip

def test_mirrored_by_hand():
    image = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3).expand(3, 2, 3)
    mirrored, boxes = horizontal_flip(image, box(0, 0, 1, 2))
    assert mirrored[0].tolist() == [[2, 1, 0], [5, 4, 3]]
    assert boxes.tolist() == [[2, 0, 3, 2]]


@pytest.mark.parametrize("seed", SEEDS)
def test_mirrored_twice_is_the_identity(seed):
    image = picture(seed)
    boxes = boxes_in(image, seed)
    twice, back = horizontal_flip(*horizontal_flip(image, boxes))
    assert torch.equal(twice, image) and torch.equal(back, boxes)


def test_a_mirrored_box_of_any_fraction_comes_back_as_near_as_float32_can_say():
    image = torch.zeros(3, 2, 1333, dtype=torch.uint8)
    boxes = torch.rand(200, 4, generator=generator(0)) * torch.tensor([1333.0, 2, 1333, 2])
    _, back = horizontal_flip(*horizontal_flip(image, boxes))
    assert (back - boxes).abs().max() <= np.spacing(np.float32(1333))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mirrored_box_stays_on_its_object(seed):
    state = numpy_random_state(seed)
    x1, y1 = state.randint(0, 10), state.randint(0, 10)
    image, boxes = block(12, 14, (x1, y1, x1 + state.randint(1, 15 - x1), y1 + state.randint(1, 13 - y1)))
    mirrored, moved = horizontal_flip(image, boxes)
    assert moved[0].tolist() == box_of(mirrored[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_vertical_flip_moves_the_box_with_its_object_and_twice_gives_the_input(seed):
    x1, y1 = (int(n) for n in numpy_random_state(seed).randint(0, 10, 2))
    image, boxes = block(12, 14, (x1, y1, x1 + 3, y1 + 2))
    flipped, moved, _ = vflip(image, boxes, Augment(vflip_prob=1), generator(seed))
    assert moved[0].tolist() == box_of(flipped[0]) == [x1, 10 - y1, x1 + 3, 12 - y1]
    again, back, _ = vflip(flipped, moved, Augment(vflip_prob=1), generator(seed))
    assert torch.equal(again, image) and torch.equal(back, boxes)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_transposition_moves_the_box_with_its_object_and_leaves_images_that_are_not_square(seed):
    x1, y1 = (int(n) for n in numpy_random_state(seed).randint(0, 10, 2))
    image, boxes = block(14, 14, (x1, y1, x1 + 3, y1 + 2))
    turned, moved, _ = transpose(image, boxes, Augment(transpose_prob=1), generator(seed))
    assert moved[0].tolist() == box_of(turned[0]) == [y1, x1, y1 + 2, x1 + 3]
    again, back, _ = transpose(turned, moved, Augment(transpose_prob=1), generator(seed))
    assert torch.equal(again, image) and torch.equal(back, boxes)
    wide, boxes = block(12, 14, (x1, y1, x1 + 3, y1 + 2))
    assert all(map(torch.equal, transpose(wide, boxes, Augment(transpose_prob=1), generator(seed))[:2], (wide, boxes)))


def test_flips_and_transposition_show_all_eight_symmetries_of_a_square_image():
    image = block(9, 9, (1, 2, 4, 8))[0]
    config = Augment(hflip_prob=0.5, vflip_prob=0.5, transpose_prob=0.5)
    shown = {augment(image, NONE, config, generator(seed))[0].numpy().tobytes() for seed in range(100)}
    symmetries = {flipped.contiguous().numpy().tobytes() for turns in range(4)
                  for turned in [torch.rot90(image, turns, (1, 2))] for flipped in (turned, turned.flip(-1))}
    assert shown == symmetries and len(symmetries) == 8


@pytest.mark.parametrize("flip, option", [(hflip, "hflip_prob"), (vflip, "vflip_prob"), (transpose, "transpose_prob")])
@pytest.mark.parametrize("probability, fraction", [(0.0, 0), (1.0, 1), (0.5, 0.5), (0.2, 0.2)])
def test_a_flip_is_as_frequent_as_configured(probability, fraction, flip, option):
    image = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
    config = Augment(**{option: probability})
    count = sum(not torch.equal(flip(image, NONE, config, generator(seed))[0], image) for seed in range(400))
    assert abs(count / 400 - fraction) <= (0 if probability in (0, 1) else 0.1)


# Scale jitter

@pytest.mark.parametrize("seed", SEEDS)
def test_a_crop_is_a_part_of_the_image_and_its_box_what_is_left_of_the_object(seed):
    image, boxes = block(24, 30, (9, 6, 21, 18))
    crop, moved, scale = scale_jitter(image, boxes, Augment(scale_jitter=(1.5, 3.0)), generator(seed))
    height, width = crop.shape[-2:]
    assert 24 / 3 - 1 <= height <= 24 / 1.5 + 1 and 30 / 3 - 1 <= width <= 30 / 1.5 + 1
    assert scale == 1
    left = box_of(crop[0])
    assert moved[0].tolist() == left if left else box_areas(moved)[0] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crop_around_objects_holds_a_whole_object_wherever_it_lies(seed):
    config = Augment(scale_jitter=(1.5, 4.0), object_crop_prob=1)
    for corners in ((0, 0, 4, 5), (26, 19, 30, 24), (11, 9, 15, 14)):
        crop, moved, _ = scale_jitter(*block(24, 30, corners), config, generator(seed))
        assert box_areas(moved).tolist() == [20] and moved[0].tolist() == box_of(crop[0])
    assert scale_jitter(picture(seed), NONE, config, generator(seed))[1].shape == (0, 4)
    large, moved, _ = scale_jitter(*block(24, 30, (1, 1, 29, 23)), config, generator(seed))
    assert moved[0].tolist() == box_of(large[0]), "an object that is larger than the crop is cut"


def test_crops_around_objects_find_each_of_them_and_lie_on_all_sides():
    image, boxes = picture(3)[:, :8, :8].repeat(1, 5, 5), torch.tensor([[2.0, 2, 5, 5], [30, 28, 34, 33]])
    crops = [scale_jitter(image, boxes, Augment(scale_jitter=(2.5, 2.5), object_crop_prob=1), generator(seed))[1]
             for seed in range(200)]
    for number, area in ((0, 9), (1, 20)):
        inside = [crop[number] for crop in crops if box_areas(crop)[number] == area]
        assert 70 <= len(inside) <= 130 and len({tuple(box.tolist()) for box in inside}) > 5


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_crops_lie_around_objects_as_often_as_configured(probability):
    """An object in the corner, which one in 400 of all crops holds."""
    image, boxes = block(20, 20, (0, 0, 2, 2))
    config = Augment(scale_jitter=(2.0, 2.0), object_crop_prob=probability)
    whole = sum(float(box_areas(scale_jitter(image, boxes, config, generator(seed))[1])) == 4 for seed in range(400)) / 400
    assert abs(whole - probability) < 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_shrunk_image_is_padded_with_grey_and_its_box_follows(seed):
    image, boxes = block(24, 30, (8, 6, 20, 18))
    padded, moved, area_scale = scale_jitter(image, boxes, Augment(scale_jitter=(0.4, 0.8)), generator(seed))
    assert padded.shape == image.shape and padded.dtype == torch.uint8
    assert 10 * 12 <= round(area_scale * 24 * 30) <= 19 * 24  # 0.4 and 0.8 of 24 x 30, in whole pixels
    white_box = box_of(padded[0] > 180)  # whiter than the padding and the blurred edge
    assert np.abs(np.array(white_box) - moved[0].numpy()).max() <= 1
    assert int((padded[0] != GREY).sum()) <= round(area_scale * 24 * 30)


def test_no_jitter_gives_back_what_it_got_and_draws_nothing():
    image, boxes, seeded = picture(1), boxes_in(picture(1), 1), generator(7)
    before = seeded.get_state()
    same, still, scale = scale_jitter(image, boxes, Augment(scale_jitter=(1.0, 1.0)), seeded)
    assert same is image and still is boxes and scale == 1
    assert torch.equal(seeded.get_state(), before)


@pytest.mark.parametrize("low, high", [(0.1, 0.1), (4.0, 4.0), (0.1, 4.0)])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_the_smallest_image_keeps_at_least_a_pixel(low, high, height, width):
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for seed in range(10):
        changed, boxes, _ = scale_jitter(image, box(0, 0, width, height), Augment(scale_jitter=(low, high)), generator(seed))
        assert min(changed.shape[-2:]) >= 1 and boxes.shape == (1, 4)


# Photometric

def test_colours_stay_uint8_and_boxes_have_nothing_to_do_with_them():
    image = picture(3)
    for seed in range(10):
        boxes = boxes_in(image, seed)
        changed, same, scale = color_jitter(image, boxes, Augment(color_jitter_prob=1.0), generator(seed))
        assert same is boxes and scale == 1
        assert changed.dtype == torch.uint8 and changed.shape == image.shape
        assert not torch.equal(changed, image)


def test_no_colour_change_at_probability_zero():
    image = picture(3)
    assert color_jitter(image, NONE, Augment(color_jitter_prob=0.0), generator(0))[0] is image


# What is left of an object

@pytest.mark.parametrize("after, full_area, stays", [
    (box(0, 0, 10, 10), 100, True),              # not cut
    (box(0, 0, 10, 2), 100, True),               # a fifth is enough
    (box(0, 0, 10, 1.9), 100, False),            # less is not
    (box(0, 0, 0, 10), 100, False),              # nothing is left
    (box(0, 0, 10, 0), 100, False),
    (box(0, 0, 0.5, 10), 10, False),             # cut to less than a pixel
    (box(0, 0, 0.5, 10), 5, True),               # thin from the start, and not cut
    (box(3, 3, 3, 3), 0, False),                 # no area from the start
])
def test_an_object_stays_where_enough_of_it_is_visible(after, full_area, stays):
    assert visible_mask(after, torch.tensor([float(full_area)])).tolist() == [stays]
    assert MIN_VISIBLE_FRACTION == 0.2 and MIN_VISIBLE_SIZE == 1, "the table above is written for these"


@pytest.mark.parametrize("given, cut", [
    ((2, 3, 5, 6), (2, 3, 5, 6)), ((-5, -5, 50, 50), (0, 0, 20, 10)), ((-5, 2, 3, 4), (0, 2, 3, 4)),
    ((30, 30, 40, 40), (20, 10, 20, 10))])
def test_clip_boxes(given, cut):
    assert clip_boxes(box(*given), 10, 20).tolist() == [list(cut)]


def test_box_areas():
    assert box_areas(box(1, 2, 4, 6)).tolist() == [12]
    assert box_areas(box(4, 2, 1, 6)).tolist() == box_areas(box(4, 6, 1, 2)).tolist() == [0], "corners swapped"
    assert box_areas(NONE).tolist() == []


# All together, over many seeds

@pytest.mark.parametrize("config", [ALL, Augment(hflip_prob=1), Augment(scale_jitter=(0.2, 0.9)), Augment(scale_jitter=(1.1, 4)),
                                    Augment()], ids=["all", "flip", "shrink", "crop", "default"])
def test_no_box_leaves_its_image_and_none_without_area_survives(config):
    for seed in SEEDS:
        image = picture(seed)
        boxes = boxes_in(image, seed)
        changed, left, mask = augment(image, boxes, config, generator(seed))
        height, width = changed.shape[-2:]
        assert left.dtype == torch.float32 and left.shape == (int(mask.sum()), 4)
        assert mask.dtype == torch.bool and mask.shape == (len(boxes),)
        assert (left >= 0).all() and (left <= left.new_tensor([width, height, width, height])).all()
        assert (box_areas(left) > 0).all()
        assert changed.dtype == torch.uint8 and changed.shape[0] == 3


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_generator_gives_the_same_and_the_input_stays_as_it_was(seed):
    image = picture(seed)
    boxes = boxes_in(image, seed)
    before = image.clone(), boxes.clone()
    torch.manual_seed(seed)  # the global generator has no influence
    first = augment(image, boxes, ALL, generator(seed))
    torch.manual_seed(seed + 1)
    second = augment(image, boxes, ALL, generator(seed))
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert torch.equal(image, before[0]) and torch.equal(boxes, before[1])


def test_other_generators_give_other_examples():
    image = picture(5)
    images = {augment(image, NONE, ALL, generator(seed))[0].numpy().tobytes() for seed in range(30)}
    assert len(images) >= 29


@pytest.mark.parametrize("seed", SEEDS)
def test_the_image_is_changed_in_the_same_way_whatever_its_boxes(seed):
    image = picture(seed)
    with_boxes, without = (augment(image, boxes, ALL, generator(seed))[0] for boxes in (boxes_in(image, seed), NONE))
    assert torch.equal(with_boxes, without)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_boxes_stay_no_boxes(seed):
    _, boxes, mask = augment(picture(seed), NONE, ALL, generator(seed))
    assert boxes.shape == (0, 4) and boxes.dtype == torch.float32 and mask.shape == (0,)


def test_everything_off_gives_back_the_pixels_and_boxes():
    image = picture(2)
    boxes = boxes_in(image, 2)
    same, still, mask = augment(image, boxes, Augment(hflip_prob=0), generator(0))
    assert torch.equal(same, image) and torch.equal(still, boxes) and mask.all()


def test_a_box_without_area_does_not_come_through_even_where_everything_is_off():
    _, boxes, mask = augment(picture(2), torch.cat([box(3, 3, 3, 6), box(1, 1, 4, 4), box(6, 6, 5, 7)]),
                             Augment(hflip_prob=0), generator(0))
    assert mask.tolist() == [False, True, False] and boxes.tolist() == [[1, 1, 4, 4]]


@pytest.mark.parametrize("boxes", [box(0, 0, 64, 48), box(10, 10, 20, 20), box(30, 30, 30.75, 40),
                                   box(5, 40, 25, 41.5)],
                         ids=["whole image", "square", "thinner than a pixel", "thinner than a pixel when shrunk"])
def test_shrinking_cuts_nothing_off_and_so_loses_no_object(boxes):
    image = torch.zeros(3, 48, 64, dtype=torch.uint8)
    for seed in SEEDS:
        _, _, mask = augment(image, boxes, Augment(hflip_prob=0, scale_jitter=(0.3, 0.95)), generator(seed))
        assert mask.all(), f"seed {seed}"


def test_a_crop_loses_exactly_the_objects_of_which_too_little_is_in_it():
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    boxes = torch.tensor([[x, y, x + 9, y + 9] for x in range(0, 50, 7) for y in range(0, 30, 7)], dtype=torch.float32)
    for seed in SEEDS:
        config = Augment(hflip_prob=0, scale_jitter=(1.2, 3))
        _, _, mask = augment(image, boxes, config, generator(seed))
        seeded = generator(seed)
        hflip(image, boxes, config, seeded)  # draws as augment does
        _, moved, _ = scale_jitter(image, boxes, config, seeded)
        for kept, (x1, y1, x2, y2) in zip(mask.tolist(), moved.tolist()):
            visible = (x2 - x1) * (y2 - y1) / 81
            assert kept == (visible == 1 or visible >= MIN_VISIBLE_FRACTION and min(x2 - x1, y2 - y1) >= MIN_VISIBLE_SIZE)


# Extending

def test_transforms_are_applied_in_the_order_of_the_dict():
    assert list(TRANSFORMS) == ["hflip", "vflip", "transpose", "scale_jitter", "color_jitter"]


def test_a_transform_is_added_by_one_entry(monkeypatch):
    def invert(image, boxes, config, generator):
        return 255 - image, boxes, 1.0
    image, boxes = picture(4), boxes_in(picture(4), 4)
    plain, kept, mask = augment(image, boxes, ALL, generator(0))
    monkeypatch.setitem(TRANSFORMS, "invert", invert)
    inverted, same, same_mask = augment(image, boxes, ALL, generator(0))
    assert torch.equal(inverted, 255 - plain) and torch.equal(same, kept) and torch.equal(same_mask, mask)


def test_the_area_scale_of_a_transform_keeps_the_boxes_that_it_shrinks(monkeypatch):
    def quarter(image, boxes, config, generator):
        return image, boxes / 4, scale
    monkeypatch.setitem(TRANSFORMS, "quarter", quarter)
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    for scale, kept in ((1 / 16, True), (1.0, False)):
        assert augment(image, box(0, 0, 36, 36), Augment(), generator(0))[2].tolist() == [kept]


# Numbers

def test_uniform_lies_between_its_ends():
    seeded = generator(0)
    drawn = [uniform(2, 3, seeded) for _ in range(300)]
    assert 2 <= min(drawn) < 2.1 and 2.9 < max(drawn) < 3
    assert uniform(5, 5, seeded) == 5
