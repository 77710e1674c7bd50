"""Overlap and deltas in both conventions, number by number (RECIPE 1.6), and beside torchvision's."""

import math

import pytest
import torch
from torchvision.ops import box_iou

from detector.model.box_coder import MAX_LOG_SCALE, BoxCoder, clipped, box_iou, to_exclusive

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(*shape: int) -> torch.Tensor:
    first = torch.rand(*shape, 2) * 50
    return torch.cat([first, first + 1 + torch.rand(*shape, 2) * 40], dim=-1)


def slow_iou(a: list[float], b: list[float], extent: int) -> float:
    def area(box):
        return (box[2] - box[0] + extent) * (box[3] - box[1] + extent)
    width = min(a[2], b[2]) - max(a[0], b[0]) + extent
    height = min(a[3], b[3]) - max(a[1], b[1]) + extent
    shared = max(width, 0) * max(height, 0)
    return shared / (area(a) + area(b) - shared)


def slow_encode(box: list[float], reference: list[float], extent: int) -> list[float]:
    width, height = box[2] - box[0] + extent, box[3] - box[1] + extent
    width0, height0 = reference[2] - reference[0] + extent, reference[3] - reference[1] + extent
    x, y, x0, y0 = box[0] + width / 2, box[1] + height / 2, reference[0] + width0 / 2, reference[1] + height0 / 2
    plain = ((x - x0) / width0, (y - y0) / height0, math.log(width / width0), math.log(height / height0))
    return [weight * value for weight, value in zip(WEIGHTS, plain)]


def slow_decode(deltas: list[float], reference: list[float], extent: int) -> list[float]:
    """Without -1 at the end in either convention."""
    dx, dy, dw, dh = (delta / weight for delta, weight in zip(deltas, WEIGHTS))
    width0, height0 = reference[2] - reference[0] + extent, reference[3] - reference[1] + extent
    x, y = reference[0] + width0 / 2 + dx * width0, reference[1] + height0 / 2 + dy * height0
    width, height = math.exp(dw) * width0, math.exp(dh) * height0
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


@pytest.mark.parametrize("extent", [0, 1])
def test_overlap_is_that_of_the_loop(extent):
    torch.manual_seed(0)
    objects, boxes, shared = random_boxes(3, 4), random_boxes(3, 9), random_boxes(1, 7)
    for given in (boxes, shared):
        found = box_iou(objects, given, extent)
        assert found.shape == (3, 4, given.shape[1])
        for b in range(3):
            for m in range(4):
                for n in range(given.shape[1]):
                    expected = slow_iou(objects[b, m].tolist(), given[b % len(given), n].tolist(), extent)
                    assert float(found[b, m, n]) == pytest.approx(expected, abs=1e-6)


def test_one_pixel_more_by_hand():
    """Last pixels: 0..9 and 5..14 share 5 of 15 columns. Exclusive ends: 9 and 9 columns, of which 4 are shared."""
    a, b = torch.tensor([[[0.0, 0, 9, 9]]]), torch.tensor([[[5.0, 0, 14, 9]]])
    assert float(box_iou(a, b, 1)) == pytest.approx(5 / 15)
    assert float(box_iou(a, b, 0)) == pytest.approx(4 / 14)
    assert to_exclusive(a, 1).tolist() == [[[0, 0, 10, 10]]] and to_exclusive(a, 0) is a


def test_overlap_is_torchvisions_bit_by_bit_and_0_without_area():
    torch.manual_seed(0)
    a, b = random_boxes(1, 20), random_boxes(1, 30)
    assert torch.equal(box_iou(a, b)[0], box_iou(a[0], b[0]))
    assert box_iou(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4)).tolist() == [[[0.0] * 3] * 2]
    assert box_iou(a[:, :0], b).shape == (1, 0, 30) and box_iou(a, b[:, :0]).shape == (1, 20, 0)


@pytest.mark.parametrize("extent", [0, 1])
def test_deltas_are_those_of_the_loop(extent):
    torch.manual_seed(0)
    boxes, references = random_boxes(2, 10), random_boxes(2, 10)
    coding = BoxCoder(WEIGHTS, extent)
    deltas = coding.encode(boxes, references)
    decoded = coding.decode(deltas, references)
    for b in range(2):
        for n in range(10):
            expected = slow_encode(boxes[b, n].tolist(), references[b, n].tolist(), extent)
            assert deltas[b, n].tolist() == pytest.approx(expected, abs=1e-4)
            expected = slow_decode(expected, references[b, n].tolist(), extent)
            assert decoded[b, n].tolist() == pytest.approx(expected, abs=1e-3)
    torch.testing.assert_close(decoded, to_exclusive(boxes, extent), atol=1e-3, rtol=1e-4)  # a pixel more with an extent


def test_deltas_are_torchvisions():
    torch.manual_seed(0)
    boxes, references = random_boxes(20), random_boxes(20)
    peer = TorchvisionBoxCoder(WEIGHTS)
    torch.testing.assert_close(BoxCoder(WEIGHTS).encode(boxes, references), peer.encode_single(boxes, references))
    deltas = torch.randn(20, 4) * 30  # some are beyond the clamp
    torch.testing.assert_close(BoxCoder(WEIGHTS).decode(deltas, references), peer.decode_single(deltas, references))


def test_the_clamp_stops_an_overflow_and_can_be_taken_off():
    reference, deltas = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 1000, 3]])
    width = BoxCoder().decode(deltas, reference)[0, 2] - BoxCoder().decode(deltas, reference)[0, 0]
    assert float(width) == pytest.approx(10 * math.exp(MAX_LOG_SCALE), rel=1e-5) and math.exp(MAX_LOG_SCALE) == pytest.approx(62.5)
    assert BoxCoder(clamp=False).decode(deltas, reference)[0, 2] == torch.inf
    small = torch.tensor([[0.1, 0.2, 0.3, 3.0]])
    assert torch.equal(BoxCoder().decode(small, reference), BoxCoder(clamp=False).decode(small, reference))


@pytest.mark.parametrize("extent, last", [(0, (100, 60)), (1, (99, 59))])
def test_boxes_end_where_their_image_ends(extent, last):
    boxes = torch.tensor([[[-5.0, -5, 500, 500], [10, 10, 20, 20]]])
    found = clipped(boxes, torch.tensor([[60.0, 100]]), extent)
    assert found.tolist() == [[[0, 0, *last], [10, 10, 20, 20]]]
