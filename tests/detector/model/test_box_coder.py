"""IoU, deltas and clipping of exclusive and inclusive boxes, number by number, and beside torchvision's.

The loops compute in Python's float64, so the tensors do, too: tolerances are those of float64, whatever the CPU.
"""

import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder as TorchvisionBoxCoder
from torchvision.ops import box_iou as torchvision_box_iou

from detector.config.model_schema import Model
from detector.model.box_coder import MAX_LOG_SCALE, BoxCoder, build_box_coder
from detector.py_faster_rcnn.inclusive_boxes import InclusiveBoxCoder

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def coder(inclusive: bool, weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)):
    return build_box_coder(Model(inclusive_boxes=inclusive), weights)


def random_boxes(*shape: int) -> torch.Tensor:
    first = torch.rand(*shape, 2, dtype=torch.float64) * 50
    return torch.cat([first, first + 1 + torch.rand(*shape, 2, dtype=torch.float64) * 40], dim=-1)


def slow_iou(a: list[float], b: list[float], inclusive: bool) -> float:
    def area(box):
        return (box[2] - box[0] + inclusive) * (box[3] - box[1] + inclusive)
    width = min(a[2], b[2]) - max(a[0], b[0]) + inclusive
    height = min(a[3], b[3]) - max(a[1], b[1]) + inclusive
    intersection = max(width, 0) * max(height, 0)
    return intersection / (area(a) + area(b) - intersection)


def slow_encode(box: list[float], reference: list[float], inclusive: bool) -> list[float]:
    width, height = box[2] - box[0] + inclusive, box[3] - box[1] + inclusive
    width0, height0 = reference[2] - reference[0] + inclusive, reference[3] - reference[1] + inclusive
    x, y, x0, y0 = box[0] + width / 2, box[1] + height / 2, reference[0] + width0 / 2, reference[1] + height0 / 2
    deltas = ((x - x0) / width0, (y - y0) / height0, math.log(width / width0), math.log(height / height0))
    return [weight * delta for weight, delta in zip(WEIGHTS, deltas)]


def slow_decode(deltas: list[float], reference: list[float], inclusive: bool) -> list[float]:
    """Nothing is subtracted from x2 and y2 at the end, in either convention."""
    dx, dy, dw, dh = (delta / weight for delta, weight in zip(deltas, WEIGHTS))
    width0, height0 = reference[2] - reference[0] + inclusive, reference[3] - reference[1] + inclusive
    x, y = reference[0] + width0 / 2 + dx * width0, reference[1] + height0 / 2 + dy * height0
    width, height = math.exp(dw) * width0, math.exp(dh) * height0
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


@pytest.mark.parametrize("inclusive", [False, True])
def test_iou_is_that_of_the_loop(inclusive):
    torch.manual_seed(0)
    objects, boxes, shared = random_boxes(3, 4), random_boxes(3, 9), random_boxes(1, 7)
    for others in (boxes, shared):
        iou = coder(inclusive).iou(objects, others)
        assert iou.shape == (3, 4, others.shape[1])
        for b in range(3):
            for m in range(4):
                for n in range(others.shape[1]):
                    expected = slow_iou(objects[b, m].tolist(), others[b % len(others), n].tolist(), inclusive)
                    assert float(iou[b, m, n]) == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_inclusive_boxes_by_hand():
    """Last pixels: 0..9 and 5..14 share 5 of 15 columns. Exclusive ends: 9 and 9 columns, of which 4 are shared."""
    a, b = torch.tensor([[[0.0, 0, 9, 9]]]), torch.tensor([[[5.0, 0, 14, 9]]])
    assert float(coder(True).iou(a, b)) == pytest.approx(5 / 15)
    assert float(coder(False).iou(a, b)) == pytest.approx(4 / 14)
    assert coder(True).to_exclusive(a).tolist() == [[[0, 0, 10, 10]]] and coder(False).to_exclusive(a) is a
    assert coder(True).from_exclusive(a).tolist() == [[[0, 0, 8, 8]]] and coder(False).from_exclusive(a) is a


def test_iou_is_torchvisions_bit_by_bit_and_0_without_area():
    """The same sums, products and one division of each pair, which every CPU rounds alike."""
    torch.manual_seed(0)
    a, b = random_boxes(1, 20), random_boxes(1, 30)
    assert torch.equal(BoxCoder().iou(a, b)[0], torchvision_box_iou(a[0], b[0]))
    assert BoxCoder().iou(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4)).tolist() == [[[0.0] * 3] * 2]
    assert BoxCoder().iou(a[:, :0], b).shape == (1, 0, 30) and BoxCoder().iou(a, b[:, :0]).shape == (1, 20, 0)


@pytest.mark.parametrize("inclusive", [False, True])
def test_deltas_are_those_of_the_loop(inclusive):
    torch.manual_seed(0)
    boxes, references = random_boxes(2, 10), random_boxes(2, 10)
    box_coder = coder(inclusive, WEIGHTS)
    deltas = box_coder.encode(boxes, references)
    decoded = box_coder.decode(deltas, references)
    for b in range(2):
        for n in range(10):
            expected = slow_encode(boxes[b, n].tolist(), references[b, n].tolist(), inclusive)
            assert deltas[b, n].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-11)
            expected = slow_decode(expected, references[b, n].tolist(), inclusive)
            assert decoded[b, n].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-11)
    # A decoded inclusive box is one pixel larger than the encoded one.
    torch.testing.assert_close(decoded, box_coder.to_exclusive(boxes), rtol=1e-9, atol=1e-11)


def test_deltas_are_torchvisions():
    """At float64's default tolerances: exp and log of the two may differ in the last bit."""
    torch.manual_seed(0)
    boxes, references = random_boxes(20), random_boxes(20)
    expected = TorchvisionBoxCoder(WEIGHTS)
    torch.testing.assert_close(BoxCoder(WEIGHTS).encode(boxes, references), expected.encode_single(boxes, references))
    deltas = torch.randn(20, 4, dtype=torch.float64) * 30  # some are beyond the clamp
    torch.testing.assert_close(BoxCoder(WEIGHTS).decode(deltas, references), expected.decode_single(deltas, references))


def test_the_clamp_prevents_an_overflow_and_can_be_switched_off():
    reference, deltas = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 1000, 3]])
    x1, _, x2, _ = BoxCoder().decode(deltas, reference)[0].tolist()
    assert x2 - x1 == pytest.approx(10 * math.exp(MAX_LOG_SCALE), rel=1e-5) and math.exp(MAX_LOG_SCALE) == pytest.approx(62.5)
    assert BoxCoder(clamp=False).decode(deltas, reference)[0, 2] == torch.inf
    small = torch.tensor([[0.1, 0.2, 0.3, 3.0]])
    assert torch.equal(BoxCoder().decode(small, reference), BoxCoder(clamp=False).decode(small, reference))


@pytest.mark.parametrize("inclusive, last", [(False, (100, 60)), (True, (99, 59))])
def test_boxes_end_where_their_image_ends(inclusive, last):
    boxes = torch.tensor([[[-5.0, -5, 500, 500], [10, 10, 20, 20]]])
    clipped = coder(inclusive).clip(boxes, torch.tensor([[60.0, 100]]))
    assert clipped.tolist() == [[[0, 0, *last], [10, 10, 20, 20]]]


def test_the_config_chooses_the_convention_and_the_clamp():
    assert build_box_coder(Model()) == BoxCoder()
    assert build_box_coder(Model(clamp_deltas=False), WEIGHTS) == BoxCoder(WEIGHTS, clamp=False)
    assert build_box_coder(Model(inclusive_boxes=True), WEIGHTS) == InclusiveBoxCoder(BoxCoder(WEIGHTS))
