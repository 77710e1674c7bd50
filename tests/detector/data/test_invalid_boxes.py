"""Boxes outside their image, or without area, are clipped, dropped or refused, and counted."""

import numpy as np
import pytest

from detector.data.corrections import fix_invalid_boxes
from detector.errors import BadInput
from detector.structures import Dataset, build_dataset

NAN, INF = float("nan"), float("inf")


def boxes_in_image(boxes: list, image_id: int = 1) -> Dataset:
    """One image, 100 wide and 50 high, with these boxes; the area of box n is n."""
    objects = [(0, 1 + n % 2, 0, n, *box) for n, box in enumerate(boxes)]
    return build_dataset("some", "/data", ["cat", "dog"], [1, 2], [("a.jpg", image_id, 50, 100)], np.array(objects))


# In an image 100 wide and 50 high: the box; the box after clip (None: dropped); whether it is valid.
BOXES = [
    ([10, 10, 20, 20], [10, 10, 20, 20], True),
    ([0, 0, 100, 50], [0, 0, 100, 50], True),            # all of it
    ([-0.5, 0, 10, 50.75], [-0.5, 0, 10, 50.75], True),  # less than a pixel: rounding
    ([90, 40, 120, 60], [90, 40, 100, 50], False),
    ([-20, -20, 200, 200], [0, 0, 100, 50], False),
    ([-20, 5, 5, 9], [0, 5, 5, 9], False),
    ([5, 5, 5, 9], None, False),                         # no width
    ([5, 5, 9, 5], None, False),                         # no height
    ([30, 30, 20, 20], None, False),                     # corners swapped
    ([5, 5, 5.05, 9], None, False),                      # as good as no width
    ([150, 10, 160, 20], None, False),                   # wholly outside
    ([98, 60, 120, 70], None, False),
    ([100, 10, 101, 20], None, False),                   # outside by one pixel: none of it is in the image
    ([-1, 10, 0, 20], None, False),
    ([NAN, 10, 20, 20], None, False),
    ([0, 0, INF, 10], None, False),
]


@pytest.mark.parametrize("box, clipped, valid", BOXES)
def test_an_invalid_box_is_clipped_dropped_or_refused(box, clipped, valid):
    dataset = boxes_in_image([[1, 1, 2, 2], box, [3, 3, 4, 4]])
    for policy, left in (("clip", clipped), ("drop", box if valid else None)):
        fixed = fix_invalid_boxes(dataset, policy)
        assert fixed.boxes.tolist() == [[1, 1, 2, 2], *([left] if left else []), [3, 3, 4, 4]]
        assert fixed.areas.tolist() == [0, *([1] if left else []), 2], "the other arrays follow the boxes"
        assert fixed.offsets.tolist() == [0, len(fixed.boxes)]
    if valid:
        assert fix_invalid_boxes(dataset, "clip") is fix_invalid_boxes(dataset, "drop") is fix_invalid_boxes(dataset, "refuse") is dataset
    else:
        with pytest.raises(BadInput, match="1 invalid box in some"):
            fix_invalid_boxes(dataset, "refuse")


@pytest.mark.parametrize("policy", ["clip", "drop"])
def test_every_invalid_box_is_counted_once(policy):
    none, dataset = boxes_in_image([]), boxes_in_image([box for box, _, _ in BOXES])
    assert fix_invalid_boxes(none, policy) is fix_invalid_boxes(none, "refuse") is none
    fixed = fix_invalid_boxes(dataset, policy)
    cut = sum(int(warning.split()[0]) for warning in fixed.warnings if "were cut" in warning)
    left_out = sum(int(warning.split()[0]) for warning in fixed.warnings if "left out" in warning)
    assert left_out == len(dataset.boxes) - len(fixed.boxes)
    assert cut == (sum(clipped is not None and not valid for _, clipped, valid in BOXES) if policy == "clip" else 0)
    assert cut + left_out == sum(not valid for _, _, valid in BOXES)


def test_warnings_name_the_first_example_of_each_kind():
    dataset = boxes_in_image([[1, 1, 2, 2], [90, 40, 120, 60], [-9, 0, 5, 5], [7, 7, 7, 7]])
    cut, thin = fix_invalid_boxes(dataset, "clip").warnings
    assert cut.startswith("2 boxes") and "[90, 40, 120, 60] (dog) in /data/a.jpg, 100x50 pixels" in cut
    assert thin.startswith("1 box without area") and "[7, 7, 7, 7] (dog)" in thin
    outside, thin = fix_invalid_boxes(dataset, "drop").warnings
    assert outside.startswith("2 boxes") and "left out" in outside and thin.startswith("1 box without area")
    with pytest.raises(BadInput, match=r"3 invalid boxes in some .*100x50 pixels\. .*data\.invalid_boxes=clip or drop"):
        fix_invalid_boxes(dataset, "refuse")
