"""Boxes and class names on images: readable, inside the image, and no other pixel changes."""

import colorsys

import numpy as np
import pytest
from PIL import Image

from detector.visualization.draw_boxes import box_color, draw_boxes, place_plates, side_by_side

CLASSES = ("cat", "traffic light", "x")
NONE = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)


def background(kind: str, height: int = 120, width: int = 160) -> np.ndarray:
    if kind == "noise":
        return np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)
    return np.full((height, width, 3), {"black": 0, "grey": 128, "white": 255}[kind], np.uint8)


def drawn(image: np.ndarray, *rows: tuple, scores: list | None = None) -> np.ndarray:
    """Rows: (box, label)."""
    drawing = draw_boxes(image, np.array([box for box, _ in rows], np.float32).reshape(-1, 4),
                         np.array([label for _, label in rows], np.int32), CLASSES,
                         None if scores is None else np.array(scores, np.float32))
    return np.asarray(drawing)


def luminance(color: tuple) -> float:
    """Relative luminance of an sRGB color 0 ... 255 (WCAG 2.1)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(color[:3]) / 255]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(a: tuple, b: tuple) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("kind", ["white", "noise"])
@pytest.mark.parametrize("scores", [None, []])
def test_without_boxes_the_image_is_unchanged(kind, scores):
    image = background(kind)
    assert np.array_equal(drawn(image, scores=scores), image)


def test_the_input_image_is_not_drawn_on():
    image = background("white")
    image.flags.writeable = False
    assert not np.array_equal(drawn(image, ((20, 30, 90, 100), 1)), image)
    assert (image == 255).all()


def test_a_name_is_readable_on_the_color_of_its_class():
    """4.5 is the least contrast of small text by WCAG 2.1, success criterion 1.4.3; the letters are black."""
    contrasts = {label: contrast((0, 0, 0), box_color(label)) for label in range(1, 201)}
    assert {label: round(value, 1) for label, value in contrasts.items() if value < 4.5} == {}


def test_the_colors_of_neighboring_classes_differ():
    hues = [colorsys.rgb_to_hsv(*(c / 255 for c in box_color(label)))[0] for label in range(1, 21)]
    for first in range(20):
        for second in range(first + 1, 20):
            difference = abs(hues[first] - hues[second])
            assert min(difference, 1 - difference) > (1 / 5 if second == first + 1 else 1 / 60)


@pytest.mark.parametrize("kind", ["black", "grey", "white", "noise"])
def test_text_and_plate_are_drawn_on_any_background(kind):
    """The plate is equal on each background, so it is opaque; it holds the color of the class and black text."""
    label, region = 1, slice(10, 59)  # above the box
    other = "white" if kind != "white" else "grey"
    plates = [drawn(background(name), ((30, 60, 130, 110), label))[region] for name in (kind, other)]
    plate = (plates[0] == plates[1]).all(axis=2) & ~(plates[0] == background(kind)[region]).all(axis=2)
    pixels = plates[0][plate].astype(int)
    color = np.array(box_color(label))
    assert (np.abs(pixels - color).max(axis=1) == 0).sum() > 50
    assert (pixels.max(axis=1) < 60).sum() > 20


def box_pixels(box: tuple, shape: tuple, border: int) -> np.ndarray:
    """The pixels at most `border` inside the outline of a box of whole pixels, x2 and y2 exclusive."""
    mask = np.zeros(shape[:2], bool)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = True
    mask[y1 + border:y2 - border, x1 + border:x2 - border] = False
    return mask


@pytest.mark.parametrize("kind", ["black", "white", "noise"])
def test_the_line_lies_on_the_outermost_pixels_of_the_box_and_nothing_else_changes(kind):
    image, box = background(kind), (30, 60, 130, 110)
    after = drawn(image, (box, 2))
    below = slice(60 + 8, None)  # rows below the plate
    changed = (after != image).any(axis=2)[below]
    assert not (changed & ~box_pixels(box, image.shape, border=8)[below]).any()
    assert (after[85, 30] == 0).all() and (after[85, 129] == 0).all() and (after[109, 80] == 0).all()  # black outside
    assert tuple(after[85, 31]) == tuple(after[85, 128]) == tuple(after[108, 80]) == box_color(2)  # bright within
    assert np.array_equal(after[85, 29], image[85, 29]) and np.array_equal(after[85, 130], image[85, 130])


def plate_of(label: int, score: float | None) -> np.ndarray:
    """Returns the pixels of a plate above a box in the middle of a large image."""
    image = background("grey", 300, 400)
    changed = drawn(image, ((150, 150, 250, 250), label), scores=None if score is None else [score])
    rows, columns = np.nonzero((changed != image).any(axis=2)[:150])
    return changed[rows.min():150, columns.min():columns.max() + 1]


CORNERS = [(0, 0, 60, 50), (300, 0, 400, 40), (0, 240, 50, 300), (330, 250, 400, 300)]
EDGES = [(395, 100, 400, 200), (0, 100, 5, 200), (100, 295, 200, 300), (100, 0, 200, 3), (0, 0, 400, 300)]
OUTSIDE = [(-30, -20, 50, 60), (380, 280, 450, 330), (-100, -100, 600, 600), (390, 5, 420, 20)]


@pytest.mark.parametrize("box", CORNERS + EDGES + OUTSIDE)
def test_the_whole_plate_is_inside_the_image_wherever_the_box_is(box):
    """Without its lowest row of pixels, which may be the line of the box."""
    for label, score in ((1, None), (1, 0.5), (2, 0.5)):
        after = drawn(background("grey", 300, 400), (box, label), scores=None if score is None else [score])
        assert after.shape == (300, 400, 3)
        plate = plate_of(label, score)
        windows = np.lib.stride_tricks.sliding_window_view(after[..., 0], plate.shape[:2])
        starts = np.argwhere((windows[:, :, 0] == plate[0, :, 0]).all(axis=2))
        assert any(np.array_equal(after[y:y + len(plate), x:x + plate.shape[1]], plate) for y, x in starts)


@pytest.mark.parametrize("box", [(5, 5, 5, 5), (5, 5, 6, 6), (5, 5, 7, 40), (9, 9, 2, 2), (0.4, 0.6, 3.5, 3.2),
                                 (500, 500, 600, 600), (-50, -50, -10, -10)])
@pytest.mark.parametrize("height, width", [(120, 160), (12, 10), (1, 1)])
def test_small_inverted_and_outside_boxes_are_no_error(box, height, width):
    assert drawn(background("grey", height, width), (box, 2), scores=[0.5]).shape == (height, width, 3)


def test_a_small_box_changes_only_pixels_near_it_and_its_plate():
    image = background("white")
    after = drawn(image, ((80, 100, 82, 102), 3))
    rows, columns = np.nonzero((after != image).any(axis=2))
    assert rows.max() <= 101 + 4 and columns.min() >= 80 - 4  # the width of a line


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_better_score_lies_on_top_whatever_the_order(order):
    box, scores = (30, 60, 130, 110), [0.9, 0.4]
    after = drawn(background("white"), *[(box, row + 1) for row in order], scores=[scores[row] for row in order])
    assert tuple(after[85, 31]) == box_color(1)


def test_without_scores_the_later_box_lies_on_top():
    box = (30, 60, 130, 110)
    assert tuple(drawn(background("white"), (box, 1), (box, 2))[85, 31]) == box_color(2)


def test_letters_of_other_alphabets_are_drawn():
    """Not each as the box of a missing letter."""
    image, box = background("white"), np.array([[30, 60, 130, 110]], np.float32)
    plates = [np.asarray(draw_boxes(image, box, np.ones(1, np.int32), (name,)))[40:60, 30:50] for name in ("äé", "Жш", "Ωπ")]
    assert not any(np.array_equal(plates[first], plates[second]) for first, second in ((0, 1), (0, 2), (1, 2)))


def test_a_score_makes_the_plate_wider():
    assert plate_of(1, 0.5).shape[1] > plate_of(1, None).shape[1]
    assert np.array_equal(plate_of(1, 0.501), plate_of(1, 0.499)) and not np.array_equal(
        plate_of(1, 0.51), plate_of(1, 0.5))  # two digits


def test_no_line_of_a_later_box_crosses_a_plate():
    image, below = background("grey", 300, 400), (150, 150, 250, 250)
    alone = drawn(image, (below, 1), scores=[0.5])[140:150, 150:175]  # the beginning of the plate
    crossed = drawn(image, (below, 1), ((160, 100, 390, 290), 2), scores=[0.5, 0.9])[140:150, 150:175]
    assert np.array_equal(alone, crossed) and (alone != image[140:150, 150:175]).any()


def plates(boxes: list, size: tuple = (60, 14), image_size: tuple = (400, 300)) -> np.ndarray:
    """Returns the corners of the plates of boxes, best first, [N, 4]."""
    corners = np.array(boxes, float).reshape(-1, 4)
    places = place_plates(corners, np.array([size] * len(boxes)).reshape(-1, 2), image_size)
    return np.concatenate([places, places + size], axis=1)


def overlaps(rows: np.ndarray) -> int:
    """The number of pairs of plates that share more than the line of an edge."""
    first, second = rows[:, None], rows[None]
    shared = (np.minimum(first[..., 2:], second[..., 2:]) > np.maximum(first[..., :2], second[..., :2])).all(axis=2)
    return int((shared.sum() - len(rows)) // 2)


@pytest.mark.parametrize("box", [(150, 150, 250, 250), (0, 0, 150, 60), (300, 240, 399, 299), (0, 0, 399, 299)])
def test_the_plates_of_equal_boxes_lie_beside_each_other(box):
    rows = plates([box] * 3)
    assert overlaps(rows) == 0 and (rows >= 0).all() and (rows <= (399, 299, 399, 299)).all()


def test_the_plate_of_the_best_box_lies_above_it_and_others_give_way():
    rows = plates([(100, 100, 200, 200), (90, 95, 200, 200)])
    assert rows[0].tolist() == [100, 86, 160, 100] and rows[1].tolist() != [90, 81, 150, 95] and overlaps(rows) == 0


def test_plates_that_cannot_lie_beside_each_other_stay_in_the_image():
    rows = plates([(10, 10, 14, 14)] * 40)
    assert overlaps(rows) > 0 and (rows >= 0).all() and (rows <= (399, 299, 399, 299)).all()
    assert (plates([(0, 0, 9, 9)], image_size=(10, 10))[:, :2] == 0).all() and plates([]).shape == (0, 4)


def test_side_by_side_shows_both_images_unchanged_with_a_caption_above_each():
    left, right = (Image.fromarray(background(kind, 50, width)) for kind, width in (("noise", 130), ("black", 150)))
    sheet = np.asarray(side_by_side(left, right, ("ground truth", "predicted, step 20")))
    assert np.array_equal(sheet[-50:, :130], np.asarray(left)) and np.array_equal(sheet[-50:, -150:], np.asarray(right))
    assert (sheet[-50:, 130:-150] == 255).all() and sheet.shape[1] > 280  # a gap
    captions = sheet[:-50]
    assert (captions[:, :130] < 100).any() and (captions[:, -150:] < 100).any()
    assert (captions[[0, -1]] == 255).all()  # no letter is cut
