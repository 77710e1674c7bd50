"""The RPN's switches, each beside plain loops written from the definition of the original (RECIPE 1.3, 1.4, 1.6, 2)."""

import math

import pytest
import torch
from test_box_coder import slow_iou
from test_nms import slow_nms
from torchvision.models.detection.image_list import ImageList

from detector.config.model_schema import Model, Rpn
from detector.config.schema import Evaluate
from detector.model.anchors import Anchors
from detector.model.box_coder import BoxCoder
from detector.model.faster_rcnn import build_model
from detector.model.ground_truth import pad_ground_truth
from detector.model.rpn import Rpn as Network
from detector.model.rpn import RpnHead

CANVAS, SIZES = (64, 96), [(64, 96), (50, 90)]
SHAPES = [(8, 12), (4, 6)]
ANCHORS = Anchors(((16,), (32,)), (0.5, 1.0))


def network(extent: int = 0, anchors: Anchors = ANCHORS, **options) -> Network:
    torch.manual_seed(0)
    head = RpnHead(4, 16, anchors.per_cell()[0], options.get("two_way", False))  # wide enough for no two equal scores
    for layer in (head.conv[0][0], head.cls_logits, head.bbox_pred):
        torch.nn.init.normal_(layer.weight, std=0.6 if layer is not head.bbox_pred else 0.2)
    return Network(head, anchors, Rpn(**options), BoxCoder(extent=extent))


def inputs() -> tuple[ImageList, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    return ImageList(torch.zeros(2, 3, *CANVAS), SIZES), {str(n): torch.randn(2, 4, *s) for n, s in enumerate(SHAPES)}


def objects(extent: int = 0):
    boxes = [torch.tensor([[5.0, 6, 30, 28], [40, 10, 90, 60]]), torch.tensor([[20.0, 20, 50, 45]])]
    return pad_ground_truth([{"boxes": b, "labels": torch.ones(len(b), dtype=torch.int64)} for b in boxes], SIZES, SIZES, extent)


@torch.no_grad()
def outputs(rpn: Network, image: int) -> tuple[list[list[float]], list[list[list[float]]]]:
    """Of one image, logits and decoded boxes of each level, anchor by anchor: row, column, anchor of the cell."""
    _, features = inputs()
    logits, deltas = rpn.head(list(features.values()))
    anchors = rpn.anchors.grid(SHAPES, CANVAS, logits[0]).tolist()
    scores, boxes, n = [], [], 0
    for score, delta, (height, width) in zip(logits, deltas, SHAPES):
        scores.append([])
        boxes.append([])
        for y in range(height):
            for x in range(width):
                for a in range(score.shape[1]):
                    scores[-1].append(float(score[image, a, y, x]))
                    box = decoded(delta[image, 4 * a:4 * a + 4, y, x].tolist(), anchors[n], rpn.coding.extent)
                    boxes[-1].append(clip(box, SIZES[image], rpn.coding.extent))
                    n += 1
    return scores, boxes


def decoded(delta: list[float], anchor: list[float], extent: int) -> list[float]:
    width, height = anchor[2] - anchor[0] + extent, anchor[3] - anchor[1] + extent
    x, y = anchor[0] + width / 2 + delta[0] * width, anchor[1] + height / 2 + delta[1] * height
    width, height = math.exp(delta[2]) * width, math.exp(delta[3]) * height
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def clip(box: list[float], size: tuple[int, int], extent: int) -> list[float]:
    """To the image; with an extent, x2 and y2 are its last pixel at most."""
    limits = [size[1] - extent, size[0] - extent] * 2
    return [min(max(value, 0), limit) for value, limit in zip(box, limits)]


def slow_proposals(rpn: Network, image: int) -> list[list[float]]:
    config, extent = rpn.config, rpn.coding.extent
    scores, boxes = outputs(rpn, image)
    if config.pre_nms_top_n_per == "image":
        scores, boxes = [sum(scores, [])], [sum(boxes, [])]
    kept = []
    for level_scores, level_boxes in zip(scores, boxes):
        best = sorted(zip(level_scores, level_boxes), key=lambda pair: -pair[0])[:config.pre_nms_top_n_train]
        there = [(score, box) for score, box in best
                 if min(box[2] - box[0], box[3] - box[1]) + extent >= 1e-3]
        survivors = [there[n] for n in slow_nms([box for _, box in there], config.nms_iou, extent)]
        kept += survivors[:config.post_nms_top_n_train] if config.post_nms_top_n_per == "level" else survivors
    kept.sort(key=lambda pair: -pair[0])
    return [box for _, box in (kept if config.post_nms_top_n_per == "level" else kept[:config.post_nms_top_n_train])]


@pytest.mark.parametrize("extent", [0, 1])
@pytest.mark.parametrize("before", ["level", "image"])
@pytest.mark.parametrize("after", ["level", "image"])
@pytest.mark.parametrize("numbers", [(40, 15), (1000, 1000), (30, 5)])
def test_proposals_are_those_of_the_loop(numbers, before, after, extent):
    rpn = network(extent, pre_nms_top_n_train=numbers[0], post_nms_top_n_train=numbers[1], pre_nms_top_n_per=before,
                  post_nms_top_n_per=after).train()
    batch, features = inputs()
    with torch.no_grad():
        found, _ = rpn(batch, features, objects(extent))
    for image, boxes in enumerate(found.lists()):
        expected = slow_proposals(rpn, image)
        assert len(boxes) == len(expected) > 4
        torch.testing.assert_close(boxes, torch.tensor(expected), atol=1e-3, rtol=0)
        assert (found.boxes[image, len(boxes):] == 0).all() and not found.real[image, len(boxes):].any()


@pytest.mark.parametrize("extent", [0, 1])
@pytest.mark.parametrize("best_anchor", [True, False])
@pytest.mark.parametrize("straddling", [True, False])
def test_anchors_learn_what_the_loop_says(straddling, best_anchor, extent):
    """So large a batch takes them all, so that the labels themselves are seen."""
    anchors = Anchors(((16, 30),) * 2, (0.5, 1.0), legacy=bool(extent))
    rpn = network(extent, anchors, train_on_crossing_anchors=straddling, allow_low_quality_matches=best_anchor, batch_size_per_image=10**4, positive_fraction=0.9,
                  fg_iou_thresh=0.6)
    grid, truth = anchors.grid(SHAPES, CANVAS, torch.zeros(1)), objects(extent)
    sample, targets = rpn.sample(grid, torch.tensor(SIZES, dtype=torch.float32), truth)
    for image, (height, width) in enumerate(SIZES):
        inside = [n for n, (x1, y1, x2, y2) in enumerate(grid.tolist()) if straddling or
                  (x1 >= 0 and y1 >= 0 and x2 + extent <= width and y2 + extent <= height)]
        assert straddling or 0 < len(inside) < len(grid)
        boxes = truth.lists()[image]["boxes"].tolist()
        overlap = {n: [slow_iou(box, grid[n].tolist(), extent) for box in boxes] for n in inside}
        most = [max(overlap[n][m] for n in inside) for m in range(len(boxes))]
        positive = {n for n in inside if max(overlap[n]) >= 0.6 - 1e-7 or best_anchor and any(
            value > 0 and abs(value - most[m]) < 1e-7 for m, value in enumerate(overlap[n]))}
        negative = {n for n in inside if max(overlap[n]) < 0.3} - positive
        real = sample.real[image]
        assert set(sample.index[image][sample.positive[image]].tolist()) == positive
        assert set(sample.index[image][real & ~sample.positive[image]].tolist()) == negative
        assert positive or not best_anchor
        for n, target in zip(sample.index[image][sample.positive[image]].tolist(), targets[image].tolist()):
            wanted = boxes[overlap[n].index(max(overlap[n]))]
            assert decoded(target, grid[n].tolist(), extent) == pytest.approx(
                [*wanted[:2], wanted[2] + extent, wanted[3] + extent], abs=1e-3)


def slow_losses(rpn: Network, logits, deltas, sample, targets) -> tuple[float, float]:
    """RECIPE 2: cross entropy over all sampled anchors; smooth L1 with sigma = 1 / sqrt(beta) over the positives."""
    sigma2 = 1 / rpn.config.box_beta
    crosses, boxes = [], []
    for b in range(len(logits)):
        boxes.append(0.0)
        for s, n in enumerate(sample.index[b].tolist()):
            if not sample.real[b, s]:
                continue
            probability = 1 / (1 + math.exp(-float(logits[b, n])))
            crosses.append(-math.log(probability if sample.positive[b, s] else 1 - probability))
            for one, wanted in zip(deltas[b, n].tolist(), targets[b, s].tolist()) if sample.positive[b, s] else ():
                far = abs(one - wanted)
                boxes[b] += 0.5 * sigma2 * far ** 2 if far < 1 / sigma2 else far - 0.5 / sigma2
    if rpn.config.box_mean == "last_image":
        box = sum(value / int(sample.real[-1].sum()) for value in boxes) / len(boxes)
    else:
        box = sum(boxes) / len(crosses)
    return sum(crosses) / len(crosses), box


@torch.no_grad()
@pytest.mark.parametrize("mean", ["sampled", "last_image"])
@pytest.mark.parametrize("beta", [1 / 9, 1.0, 0.02])
def test_losses_are_those_of_the_loop(mean, beta):
    """Small images have fewer anchors than a batch holds, so that the images differ in their number."""
    rpn = network(box_loss_normalizer=mean, smooth_l1_beta=beta, batch_size_per_image=150, train_on_crossing_anchors=False)
    batch, features = inputs()
    logits, deltas = rpn.head(list(features.values()))
    logits = torch.cat([level.permute(0, 2, 3, 1).flatten(1) for level in logits], 1)
    deltas = torch.cat([level.permute(0, 2, 3, 1).reshape(2, -1, 4) for level in deltas], 1)
    grid = ANCHORS.grid(SHAPES, CANVAS, logits)
    sample, targets = rpn.sample(grid, torch.tensor(SIZES, dtype=torch.float32), objects())
    assert len(set(sample.real.sum(1).tolist())) == 2
    found = rpn.losses(*rpn.head.at(list(features.values()), sample.index), sample, targets)
    expected = slow_losses(rpn, logits, deltas, sample, targets)
    assert [float(found["loss_objectness"]), float(found["loss_rpn_box_reg"])] == pytest.approx(expected, rel=1e-4)


def test_without_a_sample_the_losses_are_0():
    rpn = network(bg_iou_thresh=0.0, fg_iou_thresh=1.0, allow_low_quality_matches=False).train()
    batch, features = inputs()
    _, losses = rpn(batch, features, objects())
    assert [value.item() for value in losses.values()] == [0, 0]
    sum(losses.values()).backward()
    assert all(weight.grad is not None for weight in rpn.parameters())


def test_two_way_scores_are_a_softmax_with_background_first():
    rpn = network(softmax_objectness=True)
    _, features = inputs()
    raw = rpn.head.cls_logits(rpn.head.conv(features["0"]))
    count = ANCHORS.per_cell()[0]
    assert raw.shape[1] == 2 * count
    logits = rpn.head(list(features.values()))[0][0]
    for a in range(count):
        pair = torch.stack([raw[:, a], raw[:, count + a]])
        torch.testing.assert_close(logits[:, a].sigmoid(), pair.softmax(0)[1])
    label = (torch.rand(logits.shape) < 0.5).long()
    two = torch.stack([raw[:, :count], raw[:, count:]], 1)
    torch.testing.assert_close(torch.nn.functional.binary_cross_entropy_with_logits(logits, label.float()),
                               torch.nn.functional.cross_entropy(two, label))


@pytest.mark.parametrize("two_way, width", [(False, 0), (True, 0), (True, 24)])
def test_the_head_has_the_width_and_the_initial_weights_of_the_config(two_way, width):
    torch.manual_seed(0)
    model = build_model(Model(backbone="resnet18_c4", rpn=Rpn(softmax_objectness=two_way, conv_channels=width)), Evaluate(), classes=3)
    head = model.rpn.head
    assert head.conv[0][0].weight.shape == (width or 256, 256, 3, 3)
    assert head.cls_logits.out_channels == (30 if two_way else 15) and head.bbox_pred.out_channels == 60
    for layer in (head.conv[0][0], head.cls_logits, head.bbox_pred):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1) and not layer.bias.any()


@pytest.mark.parametrize("body, width, parameters", [("vgg16", 512, 137_078_239), ("resnet101_c4", 512, 47_462_111)])
def test_the_original_has_as_many_parameters(body, width, parameters):
    """20 classes, 9 anchors, two-way RPN, class-specific boxes. Counted by hand; norms have a scale and a shift."""
    with torch.device("meta"):
        model = build_model(Model(backbone=body, norm="trained", frozen_stages=0, anchor_sizes=((128, 256, 512),),
                                  rpn=Rpn(softmax_objectness=True, conv_channels=width)), Evaluate(), classes=20)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
