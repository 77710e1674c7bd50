"""NMS by a mask: the loop that everyone knows, torchvision's kernel and the rounds agree."""

import pytest
import torch
from torchvision.ops import nms

from detector.config.model_schema import Rpn
from detector.model.anchors import Anchors
from detector.model.box_coder import to_exclusive
from detector.model.ops.nms import CHUNK, MAX_CHUNKS, nms_by_rounds, nms_mask


def slow_nms(boxes: list[list[float]], threshold: float, extent: int = 0) -> list[int]:
    """Boxes from best to worst; one is kept if no kept one overlaps it by more than the threshold (RECIPE 1.6)."""
    def area(x1, y1, x2, y2):
        return (x2 - x1 + extent) * (y2 - y1 + extent)

    kept = []
    for number, box in enumerate(boxes):
        for other in (boxes[k] for k in kept):
            width = min(box[2], other[2]) - max(box[0], other[0]) + extent
            height = min(box[3], other[3]) - max(box[1], other[1]) + extent
            shared = max(width, 0) * max(height, 0)
            if shared / (area(*box) + area(*other) - shared) > threshold:
                break
        else:
            kept.append(number)
    return kept


def random_boxes(groups: int, count: int, side: float) -> torch.Tensor:
    first = torch.rand(groups, count, 2) * side
    return torch.cat([first, first + 5 + torch.rand(groups, count, 2) * 20], dim=2)


@pytest.mark.parametrize("extent", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("side", [5, 40, 200])
def test_the_mask_is_that_of_the_loop(side, threshold, extent):
    torch.manual_seed(0)
    boxes = random_boxes(3, 60, side)
    for found in (nms_mask(to_exclusive(boxes, extent), threshold, 0), nms_by_rounds(to_exclusive(boxes, extent), threshold, 60)):
        for mask, group in zip(found, boxes):
            assert mask.nonzero().flatten().tolist() == slow_nms(group.tolist(), threshold, extent)


def test_groups_that_share_the_threads_of_pytorch_are_those_of_one(monkeypatch):
    torch.manual_seed(0)
    boxes = random_boxes(9, 200, 60)
    alone = nms_mask(boxes, 0.5, 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert torch.equal(nms_mask(boxes, 0.5, 0), alone) and 0 < alone.sum() < alone.numel()


@pytest.mark.parametrize("side, threshold", [(40, 0.5), (300, 0.7), (300, 0.3)])
def test_more_boxes_than_a_chunk(side, threshold):
    torch.manual_seed(0)
    boxes = random_boxes(2, MAX_CHUNKS * CHUNK + 90 if side == 300 else 2 * CHUNK + 90, side)
    assert torch.equal(nms_by_rounds(boxes, threshold, 32), nms_mask(boxes, threshold, 0))


@pytest.mark.parametrize("slope", [(1.0, 0.0), (1.0, 0.3), (-0.2, 1.0)])
def test_as_many_rounds_as_a_chunk_holds_are_always_enough_and_the_usual_ones_nearly_so(slope):
    """Neighbours overlap, and their scores fall along a line: the longest chains there are."""
    anchors = Anchors(((64,),), (0.5, 1.0, 2.0)).grid([(40, 60)], (320, 480), torch.zeros(1))
    order = ((anchors[:, :2] + anchors[:, 2:]) @ torch.tensor(slope)).argsort(stable=True)[:2000]
    boxes = anchors[order][None]
    expected = nms_mask(boxes, 0.7, 0)
    assert torch.equal(nms_by_rounds(boxes, 0.7, CHUNK), expected)
    assert (nms_by_rounds(boxes, 0.7, Rpn().nms_rounds) != expected).sum() <= 20


@pytest.mark.parametrize("smooth", [1, 4, 16])
def test_the_usual_rounds_are_enough_for_scores_as_an_untrained_network_gives_them(smooth):
    """Random fields, as smooth as the map divided by this many points."""
    torch.manual_seed(0)
    anchors = Anchors(((64,),), (0.5, 1.0, 2.0)).grid([(40, 60)], (320, 480), torch.zeros(1))
    field = torch.nn.functional.interpolate(torch.randn(1, 1, 40 // smooth + 1, 60 // smooth + 1), (40, 60),
                                            mode="bicubic", align_corners=True)[0, 0]
    boxes = anchors[(field[..., None] + 0.1 * torch.randn(3)).flatten().argsort(descending=True)[:2000]][None]
    assert torch.equal(nms_by_rounds(boxes, 0.7, Rpn().nms_rounds), nms_mask(boxes, 0.7, 0))


@pytest.mark.parametrize("rounds", range(12))
def test_too_few_rounds_keep_only_boxes_that_nms_keeps(rounds):
    """A chain: each box overlaps the next one only, so NMS keeps every other, and each round settles one more."""
    boxes = torch.tensor([[[8.0 * k, 0, 8.0 * k + 16, 10] for k in range(10)]])
    expected = {0, 2, 4, 6, 8}
    assert slow_nms(boxes[0].tolist(), 0.3) == sorted(expected)
    found = set(nms_by_rounds(boxes, 0.3, rounds)[0].nonzero().flatten().tolist())
    assert found <= expected
    assert rounds < 9 or found == expected
    assert 0 in found


def test_a_box_without_area_is_not_there():
    boxes = torch.zeros(1, 4, 4)
    boxes[0, 1] = torch.tensor([0.0, 0, 10, 10])
    for found in (nms_mask(boxes, 0.5, 0), nms_by_rounds(boxes, 0.5, 4)):
        assert bool(found[0, 1])


@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 4)])
def test_no_boxes(shape):
    assert nms_mask(torch.zeros(shape), 0.5, 0).shape == shape[:2]
    assert nms_by_rounds(torch.zeros(shape), 0.5, 3).shape == shape[:2]


def test_groups_do_not_see_each_other():
    torch.manual_seed(0)
    one = random_boxes(1, 30, 10)
    together = nms_mask(torch.cat([one, one]), 0.5, 0)
    assert torch.equal(together[0], together[1])
    assert together[0].nonzero().flatten().tolist() == nms(one[0], torch.arange(30.0).flip(0), 0.5).sort()[0].tolist()
