"""Matching and sampling of boxes, beside plain loops over images and boxes."""

import pytest
import torch
from test_box_coder import coder, slow_iou

from detector.model.ground_truth import GroundTruth
from detector.model.matcher import match, sample_boxes


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
def test_matches_and_best_boxes_are_those_of_the_loop(inclusive, restricted):
    """Boxes 3 and 4 tie for the second object; no box overlaps the one at (300, 0)."""
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


def masks(*rows: str) -> tuple[torch.Tensor, torch.Tensor]:
    """One row for each image: p is positive, n negative, a dot neither."""
    return tuple(torch.tensor([[letter == kind for letter in row] for row in rows]) for kind in "pn")


def slow_counts(row: str, batch_size: int, positive_fraction: float, replacement: bool) -> tuple[int, int]:
    """How many positives and negatives are drawn of one image."""
    positives, negatives = row.count("p"), row.count("n")
    if replacement and not negatives:
        return (batch_size if positives else 0), 0
    first = min(positives, int(batch_size * positive_fraction))
    return first, (batch_size - first if replacement else min(negatives, batch_size - first))


ROWS = ["ppnnnnnnnnnn", "pppppppppppp", "nnnnnnnnnnnn", "............", "p..........n", "pppppppppp.n", "nn.........."]


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("batch_size, fraction", [(8, 0.25), (8, 0.5), (4, 0.1), (64, 0.25), (12, 1.0)])
def test_as_many_are_drawn_as_the_loop_counts(batch_size, fraction, replacement):
    positive, negative = masks(*ROWS)
    for seed in range(20):
        torch.manual_seed(seed)
        sample = sample_boxes(positive, negative, batch_size, fraction, replacement)
        assert sample.index.shape == sample.valid.shape == (len(ROWS), batch_size if replacement else min(batch_size, 12))
        for b, row in enumerate(ROWS):
            drawn = [(int(n), bool(is_positive)) for n, is_positive, valid
                     in zip(sample.index[b], sample.positive[b], sample.valid[b]) if valid]
            assert all(row[n] == ("p" if is_positive else "n") for n, is_positive in drawn)
            first = [n for n, is_positive in drawn if is_positive]
            second = [n for n, is_positive in drawn if not is_positive]
            assert (len(first), len(second)) == slow_counts(row, batch_size, fraction, replacement)
            assert not (sample.positive[b] & ~sample.valid[b]).any()
            if not replacement:
                assert len(set(first)) == len(first) and len(set(second)) == len(second)
            elif "n" in row:
                assert len(set(first)) == len(first)


@pytest.mark.parametrize("replacement", [False, True])
def test_every_box_has_the_same_probability(replacement):
    positive, negative = masks("pppp" + "n" * 8 + "..")
    counts = torch.zeros(14)
    torch.manual_seed(0)
    for _ in range(3000):
        counts += torch.bincount(sample_boxes(positive, negative, 6, 0.34, replacement).index[0], minlength=14)
    assert counts[12:].sum() == 0
    assert counts.sum() == 3000 * 6
    assert (counts[:4] / 3000 - 2 / 4).abs().max() < 0.05      # two of four positives; 0.05 is five standard deviations
    assert (counts[4:12] / 3000 - 4 / 8).abs().max() < 0.05    # four of eight negatives


def test_images_of_a_batch_do_not_draw_alike():
    positive, negative = masks(*["n" * 40] * 2)
    torch.manual_seed(0)
    sample = sample_boxes(positive, negative, 10, 0.5)
    assert set(sample.index[0].tolist()) != set(sample.index[1].tolist())


def test_too_few_boxes_are_repeated_and_the_repetitions_are_not_valid():
    positive, negative = masks("n.p.....")
    sample = sample_boxes(positive, negative, 6, 0.5)
    assert sample.valid.tolist() == [[True, True] + [False] * 4]
    assert sample.index[0].tolist() == [2, 0] * 3
