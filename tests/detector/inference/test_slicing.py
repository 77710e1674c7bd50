"""Tiles of large images cover them, and their detections are merged with those of the whole image."""

import numpy as np
import pytest

from detector import load
from detector.errors import BadInput
from detector.inference.slicing import Slicing, is_cut, merge, tile_boxes


@pytest.mark.parametrize("height, width", [(641, 640), (640, 5000), (1000, 1000), (2001, 700), (100, 1281)])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.5, 0.9])
def test_tiles_cover_every_pixel_with_one_size_and_overlap_at_least_as_stated(height, width, overlap):
    tiles = tile_boxes(height, width, Slicing(640, overlap))
    covered = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in tiles:
        covered[y1:y2, x1:x2] = True
        assert (y2 - y1, x2 - x1) == (min(height, 640), min(width, 640))
    assert covered.all() and tiles.min() == 0
    for axis in (0, 1):
        starts = np.unique(tiles[:, axis])
        assert (np.diff(starts) <= 640 * (1 - overlap) + 1).all()


def test_few_tiles_are_used_and_none_for_an_image_that_is_not_larger():
    assert len(tile_boxes(640, 640, Slicing(640))) == 0 == len(tile_boxes(1, 1, Slicing(32)))
    assert len(tile_boxes(640, 641, Slicing(640))) == 2 and len(tile_boxes(1152, 1152, Slicing(640))) == 4


def arrays(*rows: tuple) -> tuple[np.ndarray, ...]:
    """Rows: (box, score, label, is cut)."""
    boxes, scores, labels, cut = zip(*rows) if rows else ((), (), (), ())
    return (np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int32), np.array(cut, bool))


A, LIKE_A, OTHER, PART_OF_A = (0, 0, 100, 100), (5, 0, 105, 100), (200, 0, 300, 100), (60, 0, 100, 100)


@pytest.mark.parametrize("rows, kept", [
    ([(A, .5, 1, False), (LIKE_A, .9, 1, False)], [1]),             # one object, in two tiles
    ([(A, .5, 1, False), (LIKE_A, .9, 2, False)], [1, 0]),          # two classes
    ([(A, .5, 1, False), (OTHER, .9, 1, False)], [1, 0]),           # two objects
    ([(A, .5, 1, False), (PART_OF_A, .9, 1, True)], [0]),           # a part, although its score is higher
    ([(A, .5, 2, False), (PART_OF_A, .9, 1, True)], [1, 0]),        # a part of an object of another class
    ([(A, .5, 1, False), (PART_OF_A, .9, 1, False)], [1, 0]),       # a smaller object in front of another one
    ([(A, .5, 1, True), (PART_OF_A, .9, 1, True)], [1, 0]),         # nothing saw the whole object
    ([], [])])
def test_the_best_detection_of_each_object_stays_and_parts_of_it_do_not(rows, kept):
    assert merge(*arrays(*rows), nms_thresh=0.5).tolist() == kept


def test_a_box_is_cut_where_it_ends_at_an_inner_edge_of_its_tile():
    tile, size = np.array([0, 100, 200, 300]), (300, 400)  # its left and lower edges are those of the image
    boxes = np.array([(0, 150, 50, 200), (10, 100, 50, 150), (150, 150, 199, 200), (20, 200, 50, 300), (20, 150, 50, 200)], np.float32)
    assert is_cut(boxes, tile, *size).tolist() == [False, True, True, False, False]
    assert is_cut(boxes[:0], tile, *size).shape == (0,)


@pytest.mark.parametrize("tile, overlap", [(31, 0.2), (-1, 0.2), (640, -0.1), (640, 0.95), (640, float("nan"))])
def test_sizes_that_make_no_sense_are_bad_input(tile, overlap):
    with pytest.raises(BadInput, match="32 pixels or more, and an overlap from 0 to 0.9"):
        Slicing(tile, overlap)


def test_slicing_an_image_of_the_size_of_a_tile_changes_nothing_and_a_larger_one_has_boxes_in_its_own_pixels(untrained_run):
    detect = load(untrained_run, device="cpu")
    pixels = np.random.RandomState(0).randint(0, 256, (90, 150, 3)).astype(np.uint8)
    whole = detect(pixels, score=0.0)
    assert repr(detect(pixels, score=0.0, slice=150)) == repr(whole) and len(whole) > 0
    sliced = detect([pixels, pixels[:40, :40]], score=0.0, slice=64)
    assert len(sliced[0]) > len(whole) and (np.diff(sliced[0].scores) <= 0).all() and len(sliced[1]) > 0
    assert sliced[0].boxes[:, [0, 1]].min() >= 0 and (sliced[0].boxes[:, 2:].max(axis=0) <= (150.01, 90.01)).all()
    assert sliced[0].boxes[:, 0].max() > 64 and sliced[0].names[0] in ("cat", "dog")
    assert len(detect(pixels, score=1.0, slice=64)) == 0


def test_a_low_score_of_one_call_does_not_stay_for_the_next(untrained_run):
    detect = load(untrained_run, device="cpu")
    detect.model.roi_heads.score_thresh = 0.3
    detect(np.zeros((64, 64, 3), np.uint8), score=0.0)
    assert detect.model.roi_heads.score_thresh == 0.3
