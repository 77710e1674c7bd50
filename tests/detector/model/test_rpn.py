"""The options of the RPN, each beside plain loops written from the definition of the original."""

import math

import pytest
import torch
from test_box_coder import coder, slow_iou
from test_nms import slow_nms
from torchvision.models.detection.image_list import ImageList

from detector.config.model_schema import Model
from detector.config.model_schema import Rpn as RpnConfig
from detector.config.schema import Evaluate
from detector.model.anchors import Anchors
from detector.model.faster_rcnn import build_model
from detector.model.ground_truth import pad_ground_truth
from detector.model.rpn import Rpn, RpnHead

PADDED_SIZE, SIZES = (64, 96), [(64, 96), (50, 90)]
GRID_SIZES = [(8, 12), (4, 6)]
ANCHORS = Anchors(((16,), (32,)), (0.5, 1.0))


def build_rpn(inclusive: bool = False, anchors: Anchors = ANCHORS, **options) -> Rpn:
    torch.manual_seed(0)
    head = RpnHead(4, 16, anchors.num_anchors_per_location()[0],  # 16 channels: no two scores are equal
                   options.get("softmax_objectness", False))
    for layer in (head.conv[0][0], head.cls_logits, head.bbox_pred):
        torch.nn.init.normal_(layer.weight, std=0.6 if layer is not head.bbox_pred else 0.2)
    return Rpn(head, anchors, RpnConfig(**options), coder(inclusive))


def inputs() -> tuple[ImageList, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    features = {str(n): torch.randn(2, 4, *size) for n, size in enumerate(GRID_SIZES)}
    return ImageList(torch.zeros(2, 3, *PADDED_SIZE), SIZES), features


def objects(inclusive: bool = False):
    boxes = [torch.tensor([[5.0, 6, 30, 28], [40, 10, 90, 60]]), torch.tensor([[20.0, 20, 50, 45]])]
    targets = [{"boxes": b, "labels": torch.ones(len(b), dtype=torch.int64)} for b in boxes]
    return pad_ground_truth(targets, SIZES, SIZES, coder(inclusive))


@torch.no_grad()
def slow_outputs(rpn: Rpn, image: int, inclusive: bool) -> tuple[list[list[float]], list[list[list[float]]]]:
    """Of one image, logits and decoded boxes of each level, anchor by anchor: row, column, anchor of the cell."""
    _, features = inputs()
    logits, deltas = rpn.head(list(features.values()))
    anchors = rpn.anchors.grid(GRID_SIZES, PADDED_SIZE, logits[0]).tolist()
    scores, boxes, n = [], [], 0
    for score, delta, (height, width) in zip(logits, deltas, GRID_SIZES):
        scores.append([])
        boxes.append([])
        for y in range(height):
            for x in range(width):
                for a in range(score.shape[1]):
                    scores[-1].append(float(score[image, a, y, x]))
                    box = decoded(delta[image, 4 * a:4 * a + 4, y, x].tolist(), anchors[n], inclusive)
                    boxes[-1].append(clipped(box, SIZES[image], inclusive))
                    n += 1
    return scores, boxes


def decoded(delta: list[float], anchor: list[float], inclusive: bool) -> list[float]:
    width, height = anchor[2] - anchor[0] + inclusive, anchor[3] - anchor[1] + inclusive
    x, y = anchor[0] + width / 2 + delta[0] * width, anchor[1] + height / 2 + delta[1] * height
    width, height = math.exp(delta[2]) * width, math.exp(delta[3]) * height
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def clipped(box: list[float], size: tuple[int, int], inclusive: bool) -> list[float]:
    """An inclusive box ends with the last pixel of the image."""
    limits = [size[1] - inclusive, size[0] - inclusive] * 2
    return [min(max(value, 0), limit) for value, limit in zip(box, limits)]


def slow_proposals(rpn: Rpn, image: int, inclusive: bool) -> list[list[float]]:
    config = rpn.config
    scores, boxes = slow_outputs(rpn, image, inclusive)
    if config.pre_nms_top_n_per == "image":
        scores, boxes = [sum(scores, [])], [sum(boxes, [])]
    kept = []
    for level_scores, level_boxes in zip(scores, boxes):
        best = sorted(zip(level_scores, level_boxes), key=lambda pair: -pair[0])[:config.pre_nms_top_n_train]
        large_enough = [(score, box) for score, box in best if min(box[2] - box[0], box[3] - box[1]) + inclusive >= 1e-3]
        after_nms = [large_enough[n] for n in slow_nms([box for _, box in large_enough], config.nms_thresh, inclusive)]
        kept += after_nms[:config.post_nms_top_n_train] if config.post_nms_top_n_per == "level" else after_nms
    kept.sort(key=lambda pair: -pair[0])
    return [box for _, box in (kept if config.post_nms_top_n_per == "level" else kept[:config.post_nms_top_n_train])]


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("before", ["level", "image"])
@pytest.mark.parametrize("after", ["level", "image"])
@pytest.mark.parametrize("numbers", [(40, 15), (1000, 1000), (30, 5)])
def test_proposals_are_those_of_the_loop(numbers, before, after, inclusive):
    rpn = build_rpn(inclusive, pre_nms_top_n_train=numbers[0], post_nms_top_n_train=numbers[1], pre_nms_top_n_per=before,
                    post_nms_top_n_per=after).train()
    batch, features = inputs()
    with torch.no_grad():
        proposals, _ = rpn(batch, features, objects(inclusive))
    for image, boxes in enumerate(proposals.per_image()):
        expected = slow_proposals(rpn, image, inclusive)
        assert len(boxes) == len(expected) > 4
        # Boxes of up to 100 pixels in float32: 6e-6 for each of a few roundings.
        torch.testing.assert_close(boxes, torch.tensor(expected), atol=1e-3, rtol=0)
        assert (proposals.boxes[image, len(boxes):] == 0).all() and not proposals.valid[image, len(boxes):].any()


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("crossing", [True, False])
def test_anchors_are_labelled_as_by_the_loop(crossing, low_quality, inclusive):
    """The batch is so large that it takes all anchors, so that the labels themselves can be read."""
    anchors = Anchors(((16, 30),) * 2, (0.5, 1.0), legacy=inclusive)
    rpn = build_rpn(inclusive, anchors, train_on_crossing_anchors=crossing, allow_low_quality_matches=low_quality,
                    batch_size_per_image=10**4, positive_fraction=0.9, fg_iou_thresh=0.6)
    grid, ground_truth = anchors.grid(GRID_SIZES, PADDED_SIZE, torch.zeros(1)), objects(inclusive)
    sample, targets = rpn.sample(grid, torch.tensor(SIZES, dtype=torch.float32), ground_truth)
    for image, (height, width) in enumerate(SIZES):
        inside = [n for n, (x1, y1, x2, y2) in enumerate(grid.tolist()) if crossing or
                  (x1 >= 0 and y1 >= 0 and x2 + inclusive <= width and y2 + inclusive <= height)]
        assert crossing or 0 < len(inside) < len(grid)
        boxes = ground_truth.per_image()[image]["boxes"].tolist()
        iou = {n: [slow_iou(box, grid[n].tolist(), inclusive) for box in boxes] for n in inside}
        highest = [max(iou[n][m] for n in inside) for m in range(len(boxes))]
        positive = {n for n in inside if max(iou[n]) >= 0.6 - 1e-7 or low_quality and any(
            value > 0 and abs(value - highest[m]) < 1e-7 for m, value in enumerate(iou[n]))}
        negative = {n for n in inside if max(iou[n]) < 0.3} - positive
        valid = sample.valid[image]
        assert set(sample.index[image][sample.positive[image]].tolist()) == positive
        assert set(sample.index[image][valid & ~sample.positive[image]].tolist()) == negative
        assert positive or not low_quality
        for n, target in zip(sample.index[image][sample.positive[image]].tolist(), targets[image].tolist()):
            wanted = boxes[iou[n].index(max(iou[n]))]
            assert decoded(target, grid[n].tolist(), inclusive) == pytest.approx(
                [*wanted[:2], wanted[2] + inclusive, wanted[3] + inclusive], abs=1e-3)  # up to 100 pixels in float32


def slow_losses(rpn: Rpn, logits, deltas, sample, targets) -> tuple[float, float]:
    """Cross entropy over all sampled anchors; smooth L1 with sigma = 1 / sqrt(beta) over the positives."""
    sigma2 = 1 / rpn.config.smooth_l1_beta
    objectness, boxes = [], []
    for b in range(len(logits)):
        boxes.append(0.0)
        for s, n in enumerate(sample.index[b].tolist()):
            if not sample.valid[b, s]:
                continue
            probability = 1 / (1 + math.exp(-float(logits[b, n])))
            objectness.append(-math.log(probability if sample.positive[b, s] else 1 - probability))
            for delta, target in zip(deltas[b, n].tolist(), targets[b, s].tolist()) if sample.positive[b, s] else ():
                distance = abs(delta - target)
                boxes[b] += 0.5 * sigma2 * distance ** 2 if distance < 1 / sigma2 else distance - 0.5 / sigma2
    if rpn.config.box_loss_normalizer == "last_image":
        box = sum(value / int(sample.valid[-1].sum()) for value in boxes) / len(boxes)
    else:
        box = sum(boxes) / len(objectness)
    return sum(objectness) / len(objectness), box


@torch.no_grad()
@pytest.mark.parametrize("normalizer", ["sampled", "last_image"])
@pytest.mark.parametrize("beta", [1 / 9, 1.0, 0.02])
def test_losses_are_those_of_the_loop(normalizer, beta):
    """Small images have fewer anchors than a batch holds, so that the images differ in their number of samples."""
    rpn = build_rpn(box_loss_normalizer=normalizer, smooth_l1_beta=beta, batch_size_per_image=150, train_on_crossing_anchors=False)
    batch, features = inputs()
    logits, deltas = rpn.head(list(features.values()))
    logits = torch.cat([level.permute(0, 2, 3, 1).flatten(1) for level in logits], 1)
    deltas = torch.cat([level.permute(0, 2, 3, 1).reshape(2, -1, 4) for level in deltas], 1)
    grid = ANCHORS.grid(GRID_SIZES, PADDED_SIZE, logits)
    sample, targets = rpn.sample(grid, torch.tensor(SIZES, dtype=torch.float32), objects())
    assert len(set(sample.valid.sum(1).tolist())) == 2
    losses = rpn.losses(*rpn.head.at_anchors(list(features.values()), sample.index), sample, targets)
    expected = slow_losses(rpn, logits, deltas, sample, targets)
    assert [float(losses["loss_objectness"]), float(losses["loss_rpn_box_reg"])] == pytest.approx(expected, rel=1e-4)


def test_without_a_sample_the_losses_are_0():
    rpn = build_rpn(bg_iou_thresh=0.0, fg_iou_thresh=1.0, allow_low_quality_matches=False).train()
    batch, features = inputs()
    _, losses = rpn(batch, features, objects())
    assert [value.item() for value in losses.values()] == [0, 0]
    sum(losses.values()).backward()
    assert all(weight.grad is not None for weight in rpn.parameters())


def test_two_scores_are_a_softmax_with_background_first():
    rpn = build_rpn(softmax_objectness=True)
    _, features = inputs()
    scores = rpn.head.cls_logits(rpn.head.conv(features["0"]))
    count = ANCHORS.num_anchors_per_location()[0]
    assert scores.shape[1] == 2 * count
    logits = rpn.head(list(features.values()))[0][0]
    for a in range(count):
        pair = torch.stack([scores[:, a], scores[:, count + a]])
        torch.testing.assert_close(logits[:, a].sigmoid(), pair.softmax(0)[1], atol=1e-5, rtol=1e-5)  # of probabilities
    label = (torch.rand(logits.shape) < 0.5).long()
    both = torch.stack([scores[:, :count], scores[:, count:]], 1)
    torch.testing.assert_close(torch.nn.functional.binary_cross_entropy_with_logits(logits, label.float()),
                               torch.nn.functional.cross_entropy(both, label), atol=0, rtol=1e-5)


@pytest.mark.parametrize("softmax, channels", [(False, 0), (True, 0), (True, 24)])
def test_the_head_has_the_channels_and_the_initial_weights_of_the_config(softmax, channels):
    torch.manual_seed(0)
    config = Model(backbone="resnet18_c4", rpn=RpnConfig(softmax_objectness=softmax, conv_channels=channels))
    head = build_model(config, Evaluate(), classes=3).rpn.head
    assert head.conv[0][0].weight.shape == (channels or 256, 256, 3, 3)
    assert head.cls_logits.out_channels == (30 if softmax else 15) and head.bbox_pred.out_channels == 60
    for layer in (head.conv[0][0], head.cls_logits, head.bbox_pred):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1) and not layer.bias.any()


@pytest.mark.parametrize("backbone, channels, parameters", [("vgg16", 512, 137_078_239), ("resnet101_c4", 512, 47_462_111)])
def test_the_original_has_as_many_parameters(backbone, channels, parameters):
    """20 classes, 9 anchors, two scores for each, class-specific boxes. By hand; norms have a scale and a shift."""
    with torch.device("meta"):
        model = build_model(Model(backbone=backbone, norm="trained", frozen_stages=0, anchor_sizes=((128, 256, 512),),
                                  rpn=RpnConfig(softmax_objectness=True, conv_channels=channels)), Evaluate(), classes=20)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
