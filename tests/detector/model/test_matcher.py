"""What a step learns from, beside plain loops over images and boxes (RECIPE 2 and 3)."""

import pytest
import torch

from detector.model.ground_truth import GroundTruth
from detector.model.matcher import match, sample_boxes


def truth_of(*images: list[tuple]) -> GroundTruth:
    most = max(1, *(len(boxes) for boxes in images))
    boxes, real = torch.zeros(len(images), most, 4), torch.zeros(len(images), most, dtype=torch.bool)
    for b, given in enumerate(images):
        boxes[b, :len(given)] = torch.tensor(given, dtype=torch.float32).reshape(-1, 4)
        real[b, :len(given)] = True
    return GroundTruth(boxes, real.long(), real, [len(given) for given in images])


def slow_match(objects: list, boxes: list, extent: int, allowed: list[bool]) -> tuple[list, list, list]:
    """Of one image: the largest overlap of each box, with which object, and is the box a best one of some object?

    An object's best boxes are all that overlap it most, among those allowed; an overlap of 0 is nobody's best.
    """
    def iou(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0]) + extent
        height = min(a[3], b[3]) - max(a[1], b[1]) + extent
        shared = max(width, 0) * max(height, 0)
        area = [(c[2] - c[0] + extent) * (c[3] - c[1] + extent) for c in (a, b)]
        return shared / (sum(area) - shared)
    overlap, which, best = [], [], set()
    for n, box in enumerate(boxes):
        values = [iou(one, box) if allowed[n] else -1 for one in objects]
        overlap.append(max(values, default=-1))
        which.append(values.index(max(values)) if values else 0)
    for one in objects:
        values = [iou(one, box) if allowed[n] else -1 for n, box in enumerate(boxes)]
        best |= {n for n, value in enumerate(values) if value == max(values) and value > 0}
    return overlap, which, [n in best for n in range(len(boxes))]


OBJECTS = ([(0, 0, 10, 10), (20, 20, 60, 50)], [], [(100, 100, 140, 120)], [(5, 5, 9, 9), (5, 5, 9, 9), (300, 0, 310, 9)])
BOXES = [(0, 0, 10, 10), (0, 0, 9, 10), (0, 0, 10, 9), (22, 20, 62, 50), (18, 20, 58, 50), (90, 90, 130, 110),
         (500, 500, 510, 510), (4, 4, 10, 10), (100, 100, 141, 121)]


@pytest.mark.parametrize("extent", [0, 1])
@pytest.mark.parametrize("some", [False, True])
def test_matches_and_best_boxes_are_those_of_the_loop(extent, some):
    """Boxes 3 and 4 tie for the second object; no box overlaps the one at (300, 0)."""
    truth = truth_of(*OBJECTS)
    torch.manual_seed(0)
    allowed = torch.rand(len(OBJECTS), len(BOXES)) < 0.6 if some else torch.ones(len(OBJECTS), len(BOXES)).bool()
    boxes = torch.tensor(BOXES, dtype=torch.float32)[None]
    found = match(truth, boxes, extent, allowed if some else None, best=True)
    for b, objects in enumerate(OBJECTS):
        overlap, which, best = slow_match(objects, BOXES, extent, allowed[b].tolist())
        assert found.overlap[b].tolist() == pytest.approx(overlap, abs=1e-6)
        assert found.best[b].tolist() == best
        for n, value in enumerate(overlap):
            assert value <= 0 or found.which[b, n] == which[n]
    if not some:
        assert found.best[0].tolist()[3:5] == [True, True] and not found.best[1].any()
    assert not match(truth, boxes, extent, best=False).best.any()


def masks(*rows: str) -> tuple[torch.Tensor, torch.Tensor]:
    """One row for each image: p is positive, n negative, a dot neither."""
    return tuple(torch.tensor([[letter == kind for letter in row] for row in rows]) for kind in "pn")


def slow_counts(row: str, batch: int, share: float, replacement: bool) -> tuple[int, int]:
    """How many positives and negatives are drawn of one image."""
    positives, negatives = row.count("p"), row.count("n")
    if replacement and not negatives:
        return (batch if positives else 0), 0
    first = min(positives, int(batch * share))
    return first, (batch - first if replacement else min(negatives, batch - first))


ROWS = ["ppnnnnnnnnnn", "pppppppppppp", "nnnnnnnnnnnn", "............", "p..........n", "pppppppppp.n", "nn.........."]


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("batch, share", [(8, 0.25), (8, 0.5), (4, 0.1), (64, 0.25), (12, 1.0)])
def test_as_many_are_drawn_as_the_loop_says(batch, share, replacement):
    positive, negative = masks(*ROWS)
    for seed in range(20):
        torch.manual_seed(seed)
        sample = sample_boxes(positive, negative, batch, share, replacement)
        assert sample.index.shape == sample.real.shape == (len(ROWS), batch if replacement else min(batch, 12))
        for b, row in enumerate(ROWS):
            drawn = [(int(n), bool(is_positive)) for n, is_positive, real
                     in zip(sample.index[b], sample.positive[b], sample.real[b]) if real]
            assert all(row[n] == ("p" if is_positive else "n") for n, is_positive in drawn)
            first = [n for n, is_positive in drawn if is_positive]
            second = [n for n, is_positive in drawn if not is_positive]
            assert (len(first), len(second)) == slow_counts(row, batch, share, replacement)
            assert not (sample.positive[b] & ~sample.real[b]).any()
            if not replacement:
                assert len(set(first)) == len(first) and len(set(second)) == len(second)
            elif "n" in row:
                assert len(set(first)) == len(first)


@pytest.mark.parametrize("replacement", [False, True])
def test_every_box_has_the_same_chance(replacement):
    positive, negative = masks("pppp" + "n" * 8 + "..")
    counts = torch.zeros(14)
    torch.manual_seed(0)
    for _ in range(3000):
        counts += torch.bincount(sample_boxes(positive, negative, 6, 0.34, replacement).index[0], minlength=14)
    assert counts[12:].sum() == 0
    assert counts.sum() == 3000 * 6
    assert (counts[:4] / 3000 - 2 / 4).abs().max() < 0.05      # two of four positives
    assert (counts[4:12] / 3000 - 4 / 8).abs().max() < 0.05    # four of eight negatives


def test_images_of_a_batch_do_not_draw_alike():
    positive, negative = masks(*["n" * 40] * 2)
    torch.manual_seed(0)
    sample = sample_boxes(positive, negative, 10, 0.5)
    assert set(sample.index[0].tolist()) != set(sample.index[1].tolist())


def test_what_there_is_too_little_of_is_repeated_and_not_counted():
    positive, negative = masks("n.p.....")
    sample = sample_boxes(positive, negative, 6, 0.5)
    assert sample.real.tolist() == [[True, True] + [False] * 4]
    assert sample.index[0].tolist() == [2, 0] * 3
