"""Patches of single cells beside plain loops, and the RPN's head at sampled anchors beside the head at all anchors."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from detector.model.ops.rpn_patches import extract_patches, neighbor_cells
from detector.model.precision import autocast
from detector.model.rpn import RpnHead

SHAPES = [(5, 7), (3, 4), (1, 2), (1, 1)]
CELLS = sum(height * width for height, width in SHAPES)


def maps(channels: int = 4, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, channels, *shape, dtype=dtype, requires_grad=True) for shape in SHAPES]


def test_neighbor_cells_are_those_of_the_loop():
    expected, first = [], 0
    for height, width in SHAPES:
        for y in range(height):
            for x in range(width):
                expected.append([first + (y + dy) * width + x + dx if 0 <= y + dy < height and 0 <= x + dx < width else CELLS
                                 for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
        first += height * width
    assert neighbor_cells(SHAPES, torch.device("cpu")).tolist() == expected


def test_patches_are_the_inputs_of_a_convolution():
    features, cells = maps(), torch.stack([torch.randperm(CELLS), torch.randint(0, CELLS, (CELLS,))])
    unfolded = torch.cat([torch.nn.functional.unfold(level, 3, padding=1) for level in features], dim=2)  # [2, F 9, C]
    patches = extract_patches(features, cells)
    for image in range(2):
        expected = unfolded[image][:, cells[image]].unflatten(0, (4, 9)).permute(2, 1, 0).flatten(1)
        assert torch.equal(patches[image], expected)


def head_of(softmax: bool, dtype: torch.dtype, conv_depth: int = 1) -> RpnHead:
    torch.manual_seed(1)
    head = RpnHead(4, 6, 3, softmax, conv_depth).to(dtype)
    for weight in head.parameters():
        torch.nn.init.normal_(weight)
    return head


def dense_at_anchors(head: RpnHead, features: list[torch.Tensor], index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same result, gathered from that of whole maps; not rounded to float32, as the head's own forward is."""
    hidden = [head.conv(level) for level in features]
    logits = torch.cat([head.objectness(head.cls_logits(level), 1).permute(0, 2, 3, 1).flatten(1) for level in hidden], dim=1)
    deltas = torch.cat([head.bbox_pred(level).permute(0, 2, 3, 1).reshape(len(level), -1, 4) for level in hidden], dim=1)
    return logits.gather(1, index), deltas.gather(1, index[..., None].expand(-1, -1, 4))


@pytest.mark.parametrize("softmax, conv_depth", [(False, 1), (True, 1), (False, 2), (True, 3)])
def test_the_head_at_sampled_anchors_gives_the_numbers_and_gradients_of_the_dense_head(softmax, conv_depth):
    """Anchors that are sampled twice, and neighbouring ones whose patches overlap, count as often. In float64."""
    head, index = head_of(softmax, torch.float64, conv_depth), torch.randint(0, 3 * CELLS, (2, 60))
    results = []
    for compute in (head.at_anchors, lambda *args: dense_at_anchors(head, *args)):
        features = maps()
        logits, deltas = compute(features, index)
        gradients = torch.autograd.grad((logits.sin() * 3).sum() + deltas.cos().sum(), [*head.parameters(), *features])
        results.append([logits, deltas, *gradients])
    for actual, expected in zip(*results):
        torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("conv_depth", [1, 2])
def test_in_bf16_all_parameters_get_a_gradient_after_a_pass_without_gradients(conv_depth):
    """Autocast caches low-precision casts of parameters; a cast made without gradients would cut them off."""
    head, index = head_of(False, torch.float32, conv_depth), torch.randint(0, 3 * CELLS, (2, 60))
    gradients = []
    for precision in ("bf16", "fp32"):
        features = maps(dtype=torch.float32)
        with autocast(precision, torch.device("cpu")):
            with torch.no_grad():
                head(features)
            logits, deltas = head.at_anchors(features, index)
        assert logits.dtype is deltas.dtype is torch.float32
        gradients.append(torch.autograd.grad(logits.mean() + deltas.square().mean(), [*head.parameters(), *features]))
    for rounded, exact in zip(*gradients):
        assert float((rounded - exact).norm() / exact.norm()) < 0.05  # bf16 rounds to 0.4 % of each number


class Convolutions(TorchDispatchMode):
    """Counts backward passes of convolutions."""

    def __init__(self):
        super().__init__()
        self.backwards = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.backwards += str(function).startswith("aten.convolution_backward")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("conv_depth", [1, 2])
@pytest.mark.parametrize("dense", [False, True])
def test_no_convolution_runs_backwards_over_whole_maps(dense, conv_depth):
    head, index = head_of(False, torch.float32, conv_depth), torch.randint(0, 3 * CELLS, (2, 60))
    with Convolutions() as counted:
        features = maps(dtype=torch.float32)
        logits, deltas = dense_at_anchors(head, features, index) if dense else head.at_anchors(features, index)
        (logits.sum() + deltas.sum()).backward()
    assert counted.backwards == (2 + conv_depth) * len(SHAPES) * dense
