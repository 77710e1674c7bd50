"""The box convention (xyxy, pixels, float32, x2 and y2 exclusive) and conversions to and from other formats."""

import numpy as np
import pytest

from detector import structures
from detector.seeding import numpy_random_state


def array(*rows) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def covered(box: np.ndarray) -> set[tuple[int, int]]:
    """Returns the unit pixels of a box with integer corners."""
    x1, y1, x2, y2 = (int(v) for v in box)
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


def random_boxes(seed: int, count: int) -> np.ndarray:
    """Returns boxes with integer corners in 0 ... 12; some have swapped corners or no area."""
    return numpy_random_state(seed).randint(0, 13, (count, 4)).astype(np.float32)


def test_no_boxes():
    none = np.zeros((0, 4), np.float32)
    assert structures.area(none).shape == (0,)
    for convert in (structures.from_xywh, structures.to_xywh, structures.from_voc):
        assert convert(none).shape == (0, 4)
        assert convert([]).shape == (0, 4)


@pytest.mark.parametrize("xywh, xyxy", [
    ((0, 0, 10, 20), (0, 0, 10, 20)),
    ((5, 6, 1, 1), (5, 6, 6, 7)),             # one pixel
    ((1.5, 2.25, 3, 4.5), (1.5, 2.25, 4.5, 6.75)),
    ((-2, -3, 5, 5), (-2, -3, 3, 2)),
    ((7, 7, 0, 0), (7, 7, 7, 7)),
])
def test_coco_boxes_convert_there_and_back(xywh, xyxy):
    boxes = structures.from_xywh([xywh])
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [list(xyxy)]
    assert structures.to_xywh(boxes).tolist() == [list(xywh)]


@pytest.mark.parametrize("voc, xyxy", [
    ((1, 1, 1, 1), (0, 0, 1, 1)),             # the first pixel
    ((1, 1, 500, 375), (0, 0, 500, 375)),     # a whole image of 500 x 375
    ((48, 240, 195, 371), (47, 239, 195, 371)),
    ((0, 0, 10, 10), (0, 0, 10, 10)),         # counted from 0: stays inside the image
    ((0, 5, 10, 10), (0, 4, 10, 10)),
])
def test_voc_boxes_are_1_based_and_inclusive(voc, xyxy):
    boxes = structures.from_voc([voc])
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [list(xyxy)]


def test_conversions_take_any_dtype_and_do_not_change_their_argument():
    for kind in (np.uint8, np.uint16, np.int64, np.float64):  # unsigned corners must not wrap around
        given = np.array([[1, 2, 0, 3]], kind)
        assert structures.from_xywh(given).tolist() == [[1, 2, 1, 5]]
        assert structures.from_voc(given).tolist() == [[0, 1, 0, 3]]
        assert given.tolist() == [[1, 2, 0, 3]]


@pytest.mark.parametrize("box, pixels", [
    ((0, 0, 1, 1), 1), ((2, 3, 6, 8), 20), ((0, 0, 0.5, 4), 2), ((3, 3, 3, 9), 0),
    ((5, 0, 1, 4), 0), ((5, 5, 1, 1), 0),     # corners swapped in one direction, and in both
])
def test_area(box, pixels):
    assert structures.area(array(box)).tolist() == [pixels]


def test_area_is_the_number_of_pixels():
    given = random_boxes(1, 60)
    assert structures.area(given).tolist() == [len(covered(box)) for box in given]
