"""The box around a segmentation: polygons by hand, masks beside pycocotools."""

import numpy as np
import pytest
from pycocotools import mask

from detector.data.formats.segmentation_boxes import segmentation_box


@pytest.mark.parametrize("polygons", [
    [[10, 20, 40, 20, 40, 60]], [[10, 20, 40, 20], [12, 60, 12, 30]], [10, 20, 40, 60], [[10, 20], [40, 60]],
    [[["10", "20"], ["40", "60"]]]])
def test_the_box_of_polygons(polygons):
    assert segmentation_box(polygons) == [10, 20, 30, 40]


@pytest.mark.parametrize("segmentation", [
    None, [], [[]], [1, 2], [1, 2, 3], [1, 2, "x", 4], [1, 2, None, 4], [float("nan")] * 4, "polygon", 5, {}, {"size": [4, 4]},
    {"size": [0, 4], "counts": [0, 1]}, {"size": [4, 4], "counts": [16]}, {"size": [4, 4], "counts": [0, 99]},
    {"size": [4, 4], "counts": [-1, 2]}, {"size": [4], "counts": "04"}, {"size": [4, 4], "counts": "~~~"},
    {"size": [4, 4], "counts": [1e300]}])
def test_a_segmentation_without_a_box(segmentation):
    assert segmentation_box(segmentation) is None


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (9, 1), (7, 5), (40, 60)])
def test_the_box_of_a_mask_is_that_of_pycocotools(density, height, width):
    rng = np.random.RandomState(height * 100 + width)
    for _ in range(20):
        pixels = np.asfortranarray(rng.rand(height, width) < density, np.uint8)
        encoded = mask.encode(pixels)
        changes = np.flatnonzero(np.diff(np.concatenate([[0], pixels.flatten(order="F")]), append=-1))
        runs = {"size": [height, width], "counts": np.diff(changes, prepend=0).tolist()}
        expected = mask.toBbox(encoded).tolist() if pixels.any() else None
        assert segmentation_box({**encoded, "counts": encoded["counts"].decode()}) == expected
        assert segmentation_box(runs) == expected
