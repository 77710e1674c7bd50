"""Networks as plain calls on the state dict of a file, with the file's own key names.

Nothing is shared with the package: the meaning of each layout is written a second time, independently.
"""

import math

import torch
from torch.nn.functional import conv2d, interpolate, linear, max_pool2d, relu

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
NORM = ("weight", "bias", "running_mean", "running_var")


class Names:
    """The names of a ResNet's parts in a layout: the weight of a convolution, and the prefix of its norm's four entries.

    stage 0 is the stem, 1 ... 4 the stages; part is 1, 2, 3 (a convolution of a bottleneck) or "shortcut".
    """

    def __init__(self, layout: str, before: str = "", before_last: str = ""):
        self.layout, self.before, self.before_last = layout, before, before_last or before

    def of(self, stage: int, block: int, part: object) -> tuple[str, str]:
        if self.layout == "caffe2":
            letter = {1: "2a", 2: "2b", 3: "2c", "shortcut": "1"}.get(part)
            both = ("conv1", "res_conv1") if stage == 0 else (f"res{stage + 1}_{block}_branch{letter}",) * 2
            return f"{both[0]}_w", f"{both[1]}_bn_"
        before = self.before_last if stage == 4 else self.before
        if self.layout == "detectron2":
            inner = "stem.conv1" if stage == 0 else f"res{stage + 1}.{block}." + (
                "shortcut" if part == "shortcut" else f"conv{part}")
            return f"{before}{inner}.weight", f"{before}{inner}.norm."
        if self.layout == "original":  # lists of layers: convolution, norm, relu, pool, three stages; and the last one
            if stage == 0:
                return "RCNN_base.0.weight", "RCNN_base.1."
            before = f"RCNN_top.0.{block}." if stage == 4 else f"RCNN_base.{stage + 3}.{block}."
        elif stage == 0:
            return f"{before}conv1.weight", f"{before}bn1."
        else:
            before = f"{before}layer{stage}.{block}."
        return ((f"{before}downsample.0.weight", f"{before}downsample.1.") if part == "shortcut"
                else (f"{before}conv{part}.weight", f"{before}bn{part}."))

    def norm(self, stage: int, block: int, part: object) -> list[str]:
        last = ("gamma", "beta", *NORM[2:]) if self.layout == "caffe2" else NORM
        return [self.of(stage, block, part)[1] + entry for entry in last]


def resnet_shapes(depth: int, names: Names) -> dict[str, tuple]:
    """Returns the shape of every entry of a ResNet-50, -101 or -152 without its classifier."""
    shapes = {names.of(0, 0, 1)[0]: (64, 3, 7, 7), **{key: (64,) for key in names.norm(0, 0, 1)}}
    inner, before = 64, 64
    for stage, blocks in enumerate(BLOCKS[depth], 1):
        for block in range(blocks):
            parts = {1: (inner, before, 1, 1), 2: (inner, inner, 3, 3), 3: (4 * inner, inner, 1, 1)}
            if block == 0:
                parts["shortcut"] = (4 * inner, before, 1, 1)
            for part, shape in parts.items():
                shapes[names.of(stage, block, part)[0]] = shape
                shapes |= {key: shape[:1] for key in names.norm(stage, block, part)}
            before = 4 * inner
        inner *= 2
    return shapes


def vgg_shapes(before: str, fc6: str, fc7: str, cells: int = 49) -> dict[str, tuple]:
    """Returns the shapes of VGG16: thirteen convolutions, numbered in a list with ReLUs and pools, and fc6, fc7."""
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    widths = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    shapes = {f"{before}{n}.weight": (out, into, 3, 3) for n, out, into in zip(numbers, widths, (3, *widths))}
    shapes |= {f"{before}{n}.bias": (out,) for n, out in zip(numbers, widths)}
    return shapes | {f"{fc6}weight": (4096, 512 * cells), f"{fc6}bias": (4096,), f"{fc7}weight": (4096, 4096),
                     f"{fc7}bias": (4096,)}


def random_state(shapes: dict[str, tuple], seed: int = 0) -> dict[str, torch.Tensor]:
    """Returns random tensors that keep the scale of the features, as a trained network does."""
    torch.manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        if len(shape) > 1:
            state[key] = torch.randn(shape) * math.sqrt(2 / math.prod(shape[1:]))
        elif key.endswith(("running_var", "gamma")) or "norm.weight" in key or "bn" in key and key.endswith("weight"):
            state[key] = torch.rand(shape) * 0.5 + 0.5
        else:
            state[key] = torch.randn(shape) * 0.1
    return state


def norm(x: torch.Tensor, state: dict, keys: list[str]) -> torch.Tensor:
    weight, bias, mean, variance = (state[key][None, :, None, None] for key in keys)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def convolution(x, state, names, stage, block, part, stride=1, padding=0) -> torch.Tensor:
    return norm(conv2d(x, state[names.of(stage, block, part)[0]], stride=stride, padding=padding), state,
                names.norm(stage, block, part))


def stem(x: torch.Tensor, state: dict, names: Names, ceil_pool: bool) -> torch.Tensor:
    x = relu(convolution(x, state, names, 0, 0, 1, stride=2, padding=3))
    return max_pool2d(x, 3, 2, padding=0 if ceil_pool else 1, ceil_mode=ceil_pool)


def stage(x: torch.Tensor, state: dict, names: Names, number: int, blocks: int, in_1x1: bool) -> torch.Tensor:
    """in_1x1: the stride of the first block of stages 2, 3 and 4 is in its 1x1, as in Caffe, else in its 3x3."""
    for block in range(blocks):
        stride = 2 if number > 1 and block == 0 else 1
        first, second = (stride, 1) if in_1x1 else (1, stride)
        y = relu(convolution(x, state, names, number, block, 1, first))
        y = relu(convolution(y, state, names, number, block, 2, second, 1))
        y = convolution(y, state, names, number, block, 3)
        x = relu(y + (convolution(x, state, names, number, block, "shortcut", stride) if block == 0 else x))
    return x


def stages(x, state, names, depth, in_1x1, ceil_pool) -> list[torch.Tensor]:
    """Returns the maps of stages 1 to 4."""
    maps, x = [], stem(x, state, names, ceil_pool)
    for number, blocks in enumerate(BLOCKS[depth], 1):
        x = stage(x, state, names, number, blocks, in_1x1)
        maps.append(x)
    return maps


def vgg(x: torch.Tensor, state: dict, before: str) -> torch.Tensor:
    """Computes conv1_1 to conv5_3 with their ReLUs and four pools."""
    for number in range(30):
        if f"{before}{number}.weight" in state:
            x = relu(conv2d(x, state[f"{before}{number}.weight"], state[f"{before}{number}.bias"], padding=1))
        elif number in (4, 9, 16, 23):
            x = max_pool2d(x, 2, 2)
    return x


def dense(x: torch.Tensor, state: dict, name: str) -> torch.Tensor:
    return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def conv(x: torch.Tensor, state: dict, name: str, padding: int = 0) -> torch.Tensor:
    return conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)


def original_rpn(x: torch.Tensor, state: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the probability [h, w, A] and the deltas [h, w, A, 4] of each anchor of one map [1, F, h, w]."""
    hidden = relu(conv(x, state, "RCNN_rpn.RPN_Conv", padding=1))
    scores, deltas = conv(hidden, state, "RCNN_rpn.RPN_cls_score")[0], conv(hidden, state, "RCNN_rpn.RPN_bbox_pred")[0]
    anchors = len(scores) // 2
    probability = torch.stack([scores[:anchors], scores[anchors:]]).softmax(0)[1]  # background first, then objects
    return probability.permute(1, 2, 0), deltas.permute(1, 2, 0).reshape(*deltas.shape[1:], anchors, 4)


def detectron2_rpn(x: torch.Tensor, state: dict, sizes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns logits [h, w, sizes, ratios] and deltas [h, w, sizes, ratios, 4] of one map."""
    before = "proposal_generator.rpn_head"
    hidden = relu(conv(x, state, f"{before}.conv", padding=1))
    scores = conv(hidden, state, f"{before}.objectness_logits")[0].permute(1, 2, 0)
    deltas = conv(hidden, state, f"{before}.anchor_deltas")[0].permute(1, 2, 0)
    return scores.reshape(*scores.shape[:2], sizes, -1), deltas.reshape(*scores.shape[:2], sizes, -1, 4)


def detectron2_pyramid(maps: list[torch.Tensor], state: dict) -> list[torch.Tensor]:
    """Returns p2 ... p5 and p6 from the maps of stages 1 to 4."""
    levels, above = [], None
    for number, x in reversed(list(enumerate(maps, 2))):
        x = conv(x, state, f"backbone.fpn_lateral{number}")
        above = x if above is None else x + interpolate(above, scale_factor=2, mode="nearest")
        levels.insert(0, conv(above, state, f"backbone.fpn_output{number}", padding=1))
    return [*levels, max_pool2d(levels[-1], 1, 2)]
