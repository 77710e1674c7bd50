"""The options of the second stage, each beside plain loops written from the original's definition."""

import math

import pytest
import torch
from test_box_coder import coder, slow_decode, slow_encode, slow_iou
from test_nms import slow_nms

from detector.config.model_schema import Model, Roi
from detector.config.schema import Evaluate
from detector.model.faster_rcnn import build_model
from detector.model.ground_truth import GroundTruth, pad_ground_truth
from detector.model.roi_heads import FastRCNNPredictor, RoiHeads
from detector.model.rpn import Proposals
from detector.structures import Resize

SIZE = (60, 80)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def roi_heads(inclusive: bool = False, evaluate: Evaluate = Evaluate(), **options) -> RoiHeads:
    return RoiHeads(None, None, None, Roi(**options), evaluate, coder(inclusive, WEIGHTS))


def scene(inclusive: bool = False) -> tuple[Proposals, GroundTruth]:
    """Two images with two objects and none; forty proposals each, of which the last ten are not valid."""
    torch.manual_seed(0)
    first = torch.rand(2, 40, 2) * 40
    boxes = torch.cat([first, first + 8 + torch.rand(2, 40, 2) * 20], dim=2)
    boxes[0, :8] = torch.tensor([5.0, 5, 25, 25]) + torch.rand(8, 4) * 4  # these are near an object
    valid = torch.arange(40).expand(2, -1) < 30
    targets = [{"boxes": torch.tensor([[5.0, 5, 25, 25], [30, 20, 70, 50]]), "labels": torch.tensor([2, 3])},
               {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]
    ground_truth = pad_ground_truth(targets, [SIZE] * 2, [SIZE] * 2, coder(inclusive))
    return Proposals(boxes * valid[..., None], valid), ground_truth


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("low, high", [(0.0, 0.5), (0.1, 0.5), (0.1, 0.3)])
@pytest.mark.parametrize("batch_size", [8, 16, 200])
def test_samples_are_those_that_the_loop_allows(batch_size, low, high, replacement, inclusive):
    proposals, ground_truth = scene(inclusive)
    heads = roi_heads(inclusive, batch_size_per_image=batch_size, bg_iou_thresh_low=low, bg_iou_thresh=high,
                      sample_with_replacement=replacement)
    boxes, labels, targets, sample = heads.sample(proposals, ground_truth)
    for b in range(2):
        objects = ground_truth.per_image()[b]
        candidates = proposals.per_image()[b].tolist() + objects["boxes"].tolist()
        allowed = {"object": set(), "background": set()}
        for box in candidates:
            values = [slow_iou(target, box, inclusive) for target in objects["boxes"].tolist()]
            highest = max(values, default=0)
            if highest >= 0.5:
                label = int(objects["labels"][values.index(highest)])
                allowed["object"].add((*box, label))
            elif low <= highest < high:
                allowed["background"].add((*box, 0))
        rows = [(*box, label) for box, label, valid in
                zip(boxes[b].tolist(), labels[b].tolist(), sample.valid[b].tolist()) if valid]
        positives = [row for row in rows if row[4] > 0]
        assert set(positives) <= allowed["object"] and set(rows) - set(positives) <= allowed["background"]
        most = min(len(allowed["object"]), int(batch_size * 0.25))
        if not allowed["background"]:
            continue  # the subject of test_without_background...
        assert len(positives) == most and len(set(positives)) == most
        assert len(rows) == (batch_size if replacement else min(batch_size, most + len(allowed["background"])))
        for box, label, target in zip(boxes[b].tolist(), labels[b].tolist(), targets[b].tolist()):
            expected = [0.0] * 4
            if label:
                best = max(objects["boxes"].tolist(), key=lambda target_box: slow_iou(target_box, box, inclusive))
                expected = slow_encode(best, box, inclusive)
            # Weights of 10 times differences of coordinates up to 80, in float32: 10 * 80 * 6e-8 / a width of 8.
            assert target == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("replacement", [False, True])
def test_without_background_all_samples_are_objects_and_without_both_there_is_none(replacement):
    """In the original, no background means RoIs with objects only, drawn with replacement; without both it fails."""
    boxes = torch.tensor([[[5.0, 5, 25, 25]] * 3, [[0.0, 0, 0, 0]] * 3])
    proposals = Proposals(boxes, torch.tensor([[True] * 3, [False] * 3]))
    _, ground_truth = scene()
    heads = roi_heads(batch_size_per_image=8, sample_with_replacement=replacement)
    _, labels, targets, sample = heads.sample(proposals, ground_truth)
    assert sample.valid.sum(1).tolist() == ([8, 0] if replacement else [2, 0])
    assert (labels[0][sample.valid[0]] > 0).all() and not labels[1].any() and targets.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("beta", [1 / 9, 1.0])
def test_losses_are_means_over_all_rois(beta):
    torch.manual_seed(0)
    count, classes = 12, 3
    scores, deltas = torch.randn(count, classes + 1), torch.randn(count, 4 * (classes + 1))
    labels, targets = torch.tensor([0, 1, 2, 3] * 3), torch.randn(count, 4)
    valid = torch.arange(count) < 9
    classification = box = 0.0
    for r in range(9):
        row = scores[r].tolist()
        classification += math.log(sum(math.exp(value) for value in row)) - row[labels[r]]
        if labels[r]:
            for k in range(4):
                distance = abs(float(deltas[r, 4 * labels[r] + k] - targets[r, k]))
                box += 0.5 * distance ** 2 / beta if distance < beta else distance - 0.5 * beta
    losses = roi_heads(smooth_l1_beta=beta).losses(scores, deltas, labels, targets, valid)
    assert float(losses["loss_classifier"]) == pytest.approx(classification / 9, rel=1e-5)
    assert float(losses["loss_box_reg"]) == pytest.approx(box / 9, rel=1e-5)
    nothing = roi_heads(smooth_l1_beta=beta).losses(scores, deltas, labels, targets, valid & False)
    assert [float(value) for value in nothing.values()] == [0, 0]


def slow_detections(scores, deltas, boxes, evaluate: Evaluate, inclusive: bool) -> list[tuple]:
    """Decode, clip, a threshold, NMS class by class, then the best of all classes: (score, box, label)."""
    detections = []
    for c in range(1, scores.shape[1]):
        ranked = []
        for r, box in enumerate(boxes.tolist()):
            corners = slow_decode(deltas[r, 4 * c:4 * c + 4].tolist(), box, inclusive)
            clipped = [min(max(value, 0), limit - inclusive) for value, limit in zip(corners, [SIZE[1], SIZE[0]] * 2)]
            smaller_side = min(clipped[2] - clipped[0], clipped[3] - clipped[1]) + inclusive
            if float(scores[r, c]) > evaluate.score_thresh and smaller_side >= 0.01:
                ranked.append((float(scores[r, c]), clipped, c))
        ranked.sort(key=lambda detection: -detection[0])
        detections += [ranked[n] for n in slow_nms([box for _, box, _ in ranked], evaluate.nms_thresh, inclusive)]
    return sorted(detections, key=lambda detection: -detection[0])[:evaluate.max_detections]


@torch.no_grad()
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("evaluate", [
    Evaluate(score_thresh=0.0, nms_thresh=0.3, max_detections=100), Evaluate(score_thresh=0.05, nms_thresh=0.5, max_detections=100),
    Evaluate(score_thresh=0.0, nms_thresh=0.3, max_detections=7), Evaluate(score_thresh=0.999, nms_thresh=0.3, max_detections=7)])
def test_detections_are_those_of_the_loop(evaluate, inclusive):
    """In float64, as the loop computes: no rounding decides which boxes overlap too much."""
    proposals, _ = scene(inclusive)
    boxes = [image_boxes.double() for image_boxes in proposals.per_image()]
    boxes[1] = boxes[1][:0]  # an image without a proposal; the original would score its zero boxes
    logits, deltas = torch.randn(len(boxes[0]), 4).double() * 2, torch.randn(len(boxes[0]), 16).double()
    detections = roi_heads(inclusive, evaluate).detect(logits, deltas, boxes, [SIZE] * 2)
    expected = slow_detections(logits.softmax(1), deltas, boxes[0], evaluate, inclusive)
    assert detections[0]["labels"].tolist() == [label for _, _, label in expected]
    assert detections[0]["scores"].tolist() == pytest.approx([score for score, _, _ in expected], rel=1e-9)
    expected_boxes = torch.tensor([box for _, box, _ in expected], dtype=torch.float64).reshape(-1, 4)
    torch.testing.assert_close(detections[0]["boxes"], expected_boxes, atol=1e-9, rtol=1e-9)
    assert detections[1]["boxes"].shape == (0, 4) and len(detections[1]["labels"]) == len(detections[1]["scores"]) == 0
    assert len(expected) > 5 or evaluate.score_thresh == 0.999


@pytest.mark.parametrize("agnostic", [False, True])
def test_the_predictor_has_the_initial_weights_of_the_config(agnostic):
    """PyTorch's default is uniform in +-1 / sqrt(units)."""
    torch.manual_seed(0)
    normal, uniform = (FastRCNNPredictor(1024, 20, agnostic, init) for init in ("normal", "uniform"))
    assert normal.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert normal.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not normal.cls_score.bias.any() and not normal.bbox_pred.bias.any()
    assert uniform.cls_score.weight.abs().max().item() == pytest.approx(1 / 32, rel=0.01) and uniform.cls_score.bias.any()
    model = build_model(Model(backbone="resnet18_c4", roi=Roi(predictor_init="normal")), Evaluate(), classes=20)
    assert model.roi_heads.box_predictor.bbox_pred.weight.abs().max().item() < 0.006


def test_inclusive_boxes_leave_the_detector_as_exclusive_ones():
    """An image of one colour, its last pixel at 63: an inclusive box at its border must end at 64, beyond it."""
    torch.manual_seed(0)
    for inclusive in (False, True):
        model = build_model(Model(backbone="resnet18_c4", weights="", norm="trained", frozen_stages=0, inclusive_boxes=inclusive,
                                  anchor_sizes=((64, 200),), roi_pooling_size=2), Evaluate(score_thresh=0), classes=2).eval()
        detections, _ = model.predict([torch.zeros(3, 64, 64, dtype=torch.uint8)], Resize(128, 128))
        # The last pixel of 128 is at 127, half of which is 63.5.
        assert detections[0]["boxes"].max() == (64 + 0.5 if inclusive else 64)
