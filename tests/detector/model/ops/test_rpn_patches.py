"""Neighbourhoods of single cells beside plain loops, and the RPN's head at some anchors beside the head at all of them."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from detector.model.ops.rpn_patches import extract_patches, neighbor_cells
from detector.model.precision import autocast
from detector.model.rpn import RpnHead

SHAPES = [(5, 7), (3, 4), (1, 2), (1, 1)]
CELLS = sum(height * width for height, width in SHAPES)


def maps(channels: int = 4, kind: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, channels, *shape, dtype=kind, requires_grad=True) for shape in SHAPES]


def test_neighbours_are_those_of_the_loop():
    expected, first = [], 0
    for height, width in SHAPES:
        for y in range(height):
            for x in range(width):
                expected.append([first + (y + dy) * width + x + dx if 0 <= y + dy < height and 0 <= x + dx < width else CELLS
                                 for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
        first += height * width
    assert neighbor_cells(SHAPES, torch.device("cpu")).tolist() == expected


def test_neighbourhoods_are_what_a_convolution_sees():
    features, cells = maps(), torch.stack([torch.randperm(CELLS), torch.randint(0, CELLS, (CELLS,))])
    unfolded = torch.cat([torch.nn.functional.unfold(level, 3, padding=1) for level in features], dim=2)  # [2, F 9, C]
    found = extract_patches(features, cells)
    for image in range(2):
        expected = unfolded[image][:, cells[image]].unflatten(0, (4, 9)).permute(2, 1, 0).flatten(1)
        assert torch.equal(found[image], expected)


def head_of(two_way: bool, kind: torch.dtype) -> RpnHead:
    torch.manual_seed(1)
    head = RpnHead(4, 6, 3, two_way).to(kind)
    for weight in head.parameters():
        torch.nn.init.normal_(weight)
    return head


def at_all(head: RpnHead, features: list[torch.Tensor], index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same answer, picked out of that for whole maps; not rounded to float32, as the head's own is."""
    hidden = [head.conv(level) for level in features]
    logits = torch.cat([head.logit(head.cls_logits(level), 1).permute(0, 2, 3, 1).flatten(1) for level in hidden], dim=1)
    deltas = torch.cat([head.bbox_pred(level).permute(0, 2, 3, 1).reshape(len(level), -1, 4) for level in hidden], dim=1)
    return logits.gather(1, index), deltas.gather(1, index[..., None].expand(-1, -1, 4))


@pytest.mark.parametrize("two_way", [False, True])
def test_the_head_at_some_anchors_gives_the_numbers_and_gradients_of_the_head_at_all(two_way):
    """Anchors that are asked for twice, and some that see each other's cells, count as often."""
    head, index = head_of(two_way, torch.float64), torch.randint(0, 3 * CELLS, (2, 60))
    found = []
    for way in (head.at, lambda *said: at_all(head, *said)):
        features = maps()
        logits, deltas = way(features, index)
        gradients = torch.autograd.grad((logits.sin() * 3).sum() + deltas.cos().sum(), [*head.parameters(), *features])
        found.append([logits, deltas, *gradients])
    for ours, expected in zip(*found):
        torch.testing.assert_close(ours, expected, atol=1e-9, rtol=1e-9)


def test_in_bf16_all_parameters_learn_though_a_pass_without_a_gradient_came_first():
    """Autocast keeps narrow copies of parameters; one that was made without a gradient would cut it off."""
    head, index = head_of(False, torch.float32), torch.randint(0, 3 * CELLS, (2, 60))
    found = []
    for precision in ("bf16", "fp32"):
        features = maps(kind=torch.float32)
        with autocast(precision, torch.device("cpu")):
            with torch.no_grad():
                head(features)
            logits, deltas = head.at(features, index)
        assert logits.dtype is deltas.dtype is torch.float32
        found.append(torch.autograd.grad(logits.mean() + deltas.square().mean(), [*head.parameters(), *features]))
    for narrow, exact in zip(*found):
        assert float((narrow - exact).norm() / exact.norm()) < 0.05


class Convolutions(TorchDispatchMode):
    """Counts them, backwards."""

    def __init__(self):
        super().__init__()
        self.backwards = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.backwards += str(function).startswith("aten.convolution_backward")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("way, expected", [("at", 0), ("at_all", 3 * len(SHAPES))])
def test_no_convolution_runs_backwards_over_whole_maps(way, expected):
    head, index = head_of(False, torch.float32), torch.randint(0, 3 * CELLS, (2, 60))
    with Convolutions() as counted:
        logits, deltas = head.at(maps(kind=torch.float32), index) if way == "at" else at_all(head, maps(kind=torch.float32), index)
        (logits.sum() + deltas.sum()).backward()
    assert counted.backwards == expected
