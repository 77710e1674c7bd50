"""Matching of boxes, beside plain loops over images and boxes."""

import pytest
import torch
from test_box_coder import coder, slow_iou

from detector.model import matcher
from detector.model.ground_truth import GroundTruth
from detector.model.matcher import match


def ground_truth_of(*images: list[tuple]) -> GroundTruth:
    most = max(1, *(len(boxes) for boxes in images))
    boxes, valid = torch.zeros(len(images), most, 4), torch.zeros(len(images), most, dtype=torch.bool)
    for b, objects in enumerate(images):
        boxes[b, :len(objects)] = torch.tensor(objects, dtype=torch.float32).reshape(-1, 4)
        valid[b, :len(objects)] = True
    return GroundTruth(boxes, valid.long(), valid, [len(objects) for objects in images])


def slow_match(objects: list, boxes: list, inclusive: bool, allowed: list[bool]) -> tuple[list, list, list]:
    """Of one image: the highest IoU of each box, the index of the object, and whether the box is a best one.

    An object's best boxes are all allowed ones of the highest IoU with it; an IoU of 0 makes no box the best.
    """
    highest, index, best = [], [], set()
    for n, box in enumerate(boxes):
        values = [slow_iou(target, box, inclusive) if allowed[n] else -1 for target in objects]
        highest.append(max(values, default=-1))
        index.append(values.index(max(values)) if values else 0)
    for target in objects:
        values = [slow_iou(target, box, inclusive) if allowed[n] else -1 for n, box in enumerate(boxes)]
        best |= {n for n, value in enumerate(values) if value == max(values) and value > 0}
    return highest, index, [n in best for n in range(len(boxes))]


OBJECTS = ([(0, 0, 10, 10), (20, 20, 60, 50)], [], [(100, 100, 140, 120)], [(5, 5, 9, 9), (5, 5, 9, 9), (300, 0, 310, 9)])
BOXES = [(0, 0, 10, 10), (0, 0, 9, 10), (0, 0, 10, 9), (22, 20, 62, 50), (18, 20, 58, 50), (90, 90, 130, 110),
         (500, 500, 510, 510), (4, 4, 10, 10), (100, 100, 141, 121)]


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("max_overlaps", [1 << 26, 27, 1])  # all objects at once, one of each image, less than one
def test_matches_and_best_boxes_are_those_of_the_loop(inclusive, restricted, max_overlaps, monkeypatch):
    """Boxes 3 and 4 tie for the second object; no box overlaps the one at (300, 0)."""
    monkeypatch.setattr(matcher, "MAX_OVERLAPS", max_overlaps)
    ground_truth = ground_truth_of(*OBJECTS)
    torch.manual_seed(0)
    allowed = torch.rand(len(OBJECTS), len(BOXES)) < 0.6 if restricted else torch.ones(len(OBJECTS), len(BOXES)).bool()
    boxes = torch.tensor(BOXES, dtype=torch.float32)[None]
    matches = match(ground_truth, boxes, coder(inclusive), allowed if restricted else None, find_best=True)
    for b, objects in enumerate(OBJECTS):
        iou, index, best = slow_match(objects, BOXES, inclusive, allowed[b].tolist())
        # Areas are whole numbers, exact in float32; the one division rounds to 6e-8 of the value.
        assert matches.iou[b].tolist() == pytest.approx(iou, rel=1e-6)
        assert matches.is_best[b].tolist() == best
        for n, value in enumerate(iou):
            assert value <= 0 or matches.matched_index[b, n] == index[n]
    if not restricted:
        assert matches.is_best[0].tolist()[3:5] == [True, True] and not matches.is_best[1].any()
    assert not match(ground_truth, boxes, coder(inclusive), find_best=False).is_best.any()
