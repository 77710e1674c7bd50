"""NMS as a mask: the plain loop, torchvision's kernel and NMS by rounds agree."""

import pytest
import torch
from test_box_coder import coder
from torchvision.ops import nms

from detector.config.model_schema import Rpn
from detector.model.anchors import Anchors
from detector.model.ops.nms import CHUNK, MAX_CHUNKS, nms_by_rounds, nms_mask


def slow_nms(boxes: list[list[float]], threshold: float, inclusive: bool = False) -> list[int]:
    """Boxes by falling score; a box is kept if its IoU with no kept box is above the threshold. Indices of the kept."""
    def area(x1, y1, x2, y2):
        return (x2 - x1 + inclusive) * (y2 - y1 + inclusive)

    kept = []
    for number, box in enumerate(boxes):
        for other in (boxes[k] for k in kept):
            width = min(box[2], other[2]) - max(box[0], other[0]) + inclusive
            height = min(box[3], other[3]) - max(box[1], other[1]) + inclusive
            intersection = max(width, 0) * max(height, 0)
            if intersection / (area(*box) + area(*other) - intersection) > threshold:
                break
        else:
            kept.append(number)
    return kept


def random_boxes(groups: int, count: int, spread: float) -> torch.Tensor:
    """Boxes of 5 to 25 pixels, whose corners lie in a square of `spread` pixels."""
    first = torch.rand(groups, count, 2) * spread
    return torch.cat([first, first + 5 + torch.rand(groups, count, 2) * 20], dim=2)


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("spread", [5, 40, 200])
def test_the_mask_is_that_of_the_loop(spread, threshold, inclusive):
    torch.manual_seed(0)
    boxes = random_boxes(3, 60, spread)
    exclusive = coder(inclusive).to_exclusive(boxes)
    for kept in (nms_mask(exclusive, threshold, 0), nms_by_rounds(exclusive, threshold, 60)):
        for mask, group in zip(kept, boxes):
            assert mask.nonzero().flatten().tolist() == slow_nms(group.tolist(), threshold, inclusive)


def test_several_threads_give_the_result_of_one(monkeypatch):
    torch.manual_seed(0)
    boxes = random_boxes(9, 200, 60)
    single_thread = nms_mask(boxes, 0.5, 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert torch.equal(nms_mask(boxes, 0.5, 0), single_thread)
    assert 0 < single_thread.sum() < single_thread.numel()


@pytest.mark.parametrize("spread, threshold", [(40, 0.5), (300, 0.7), (300, 0.3)])
def test_more_boxes_than_a_chunk(spread, threshold):
    torch.manual_seed(0)
    boxes = random_boxes(2, MAX_CHUNKS * CHUNK + 90 if spread == 300 else 2 * CHUNK + 90, spread)
    assert torch.equal(nms_by_rounds(boxes, threshold, 32), nms_mask(boxes, threshold, 0))


@pytest.mark.parametrize("slope", [(1.0, 0.0), (1.0, 0.3), (-0.2, 1.0)])
def test_as_many_rounds_as_a_chunk_has_boxes_are_exact_and_the_default_is_nearly_so(slope):
    """Neighbours overlap, and their scores fall along a line: the longest possible chains."""
    anchors = Anchors(((64,),), (0.5, 1.0, 2.0)).grid([(40, 60)], (320, 480), torch.zeros(1))
    order = ((anchors[:, :2] + anchors[:, 2:]) @ torch.tensor(slope)).argsort(stable=True)[:2000]
    boxes = anchors[order][None]
    expected = nms_mask(boxes, 0.7, 0)
    assert torch.equal(nms_by_rounds(boxes, 0.7, CHUNK), expected)
    assert (nms_by_rounds(boxes, 0.7, Rpn().nms_rounds) != expected).sum() <= 20


@pytest.mark.parametrize("smooth", [1, 4, 16])
def test_the_default_rounds_are_enough_for_the_scores_of_an_untrained_network(smooth):
    """Random fields; `smooth` cells lie between two random values."""
    torch.manual_seed(0)
    anchors = Anchors(((64,),), (0.5, 1.0, 2.0)).grid([(40, 60)], (320, 480), torch.zeros(1))
    field = torch.nn.functional.interpolate(torch.randn(1, 1, 40 // smooth + 1, 60 // smooth + 1), (40, 60),
                                            mode="bicubic", align_corners=True)[0, 0]
    boxes = anchors[(field[..., None] + 0.1 * torch.randn(3)).flatten().argsort(descending=True)[:2000]][None]
    assert torch.equal(nms_by_rounds(boxes, 0.7, Rpn().nms_rounds), nms_mask(boxes, 0.7, 0))


@pytest.mark.parametrize("rounds", range(12))
def test_too_few_rounds_keep_only_boxes_that_nms_keeps(rounds):
    """A chain: each box overlaps the next one only, so NMS keeps every other box, and each round decides one more."""
    boxes = torch.tensor([[[8.0 * k, 0, 8.0 * k + 16, 10] for k in range(10)]])
    expected = {0, 2, 4, 6, 8}
    assert slow_nms(boxes[0].tolist(), 0.3) == sorted(expected)
    kept = set(nms_by_rounds(boxes, 0.3, rounds)[0].nonzero().flatten().tolist())
    assert kept <= expected
    assert rounds < 9 or kept == expected
    assert 0 in kept


def test_a_box_without_area_suppresses_nothing():
    boxes = torch.zeros(1, 4, 4)
    boxes[0, 1] = torch.tensor([0.0, 0, 10, 10])
    for kept in (nms_mask(boxes, 0.5, 0), nms_by_rounds(boxes, 0.5, 4)):
        assert bool(kept[0, 1])


@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 4)])
def test_no_boxes(shape):
    assert nms_mask(torch.zeros(shape), 0.5, 0).shape == shape[:2]
    assert nms_by_rounds(torch.zeros(shape), 0.5, 3).shape == shape[:2]


def test_groups_are_independent():
    torch.manual_seed(0)
    group = random_boxes(1, 30, 10)
    kept = nms_mask(torch.cat([group, group]), 0.5, 0)
    assert torch.equal(kept[0], kept[1])
    assert kept[0].nonzero().flatten().tolist() == nms(group[0], torch.arange(30.0).flip(0), 0.5).sort()[0].tolist()
