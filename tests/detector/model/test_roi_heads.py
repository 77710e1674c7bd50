"""The switches of the second stage, each beside plain loops written from the original's definition (RECIPE 3 and 6)."""

import math

import pytest
import torch
from test_box_coder import slow_decode, slow_encode, slow_iou
from test_nms import slow_nms

from detector.config.model_schema import Model, Roi
from detector.config.schema import Evaluate
from detector.model.box_coder import BoxCoder
from detector.model.faster_rcnn import build_model
from detector.model.ground_truth import pad_ground_truth
from detector.model.roi_heads import FastRCNNPredictor, RoiHeads
from detector.model.rpn import Proposals
from detector.structures import Resize

SIZE = (60, 80)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def heads(extent: int = 0, evaluate: Evaluate = Evaluate(), **options) -> RoiHeads:
    return RoiHeads(None, None, None, Roi(**options), evaluate, BoxCoder(WEIGHTS, extent))


def scene(extent: int = 0) -> tuple[Proposals, object]:
    """Two images with two objects and none; forty proposals each, of which the last ten are none."""
    torch.manual_seed(0)
    first = torch.rand(2, 40, 2) * 40
    boxes = torch.cat([first, first + 8 + torch.rand(2, 40, 2) * 20], dim=2)
    boxes[0, :8] = torch.tensor([5.0, 5, 25, 25]) + torch.rand(8, 4) * 4  # some are near an object
    real = torch.arange(40).expand(2, -1) < 30
    targets = [{"boxes": torch.tensor([[5.0, 5, 25, 25], [30, 20, 70, 50]]), "labels": torch.tensor([2, 3])},
               {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]
    return Proposals(boxes * real[..., None], real), pad_ground_truth(targets, [SIZE] * 2, [SIZE] * 2, extent)


@pytest.mark.parametrize("extent", [0, 1])
@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("low, high", [(0.0, 0.5), (0.1, 0.5), (0.1, 0.3)])
@pytest.mark.parametrize("batch", [8, 16, 200])
def test_what_is_sampled_is_what_the_loop_allows(batch, low, high, replacement, extent):
    proposals, truth = scene(extent)
    model = heads(extent, batch_size_per_image=batch, bg_iou_thresh_low=low, bg_iou_thresh=high, sample_with_replacement=replacement)
    boxes, labels, targets, sample = model.sample(proposals, truth)
    for b in range(2):
        objects = truth.lists()[b]
        candidates = proposals.lists()[b].tolist() + objects["boxes"].tolist()
        kinds = {"object": set(), "background": set()}
        for box in candidates:
            values = [slow_iou(one, box, extent) for one in objects["boxes"].tolist()]
            most = max(values, default=0)
            if most >= 0.5:
                label = int(objects["labels"][values.index(most)])
                kinds["object"].add((*box, label))
            elif low <= most < high:
                kinds["background"].add((*box, 0))
        rows = [(*box, label) for box, label, real in
                zip(boxes[b].tolist(), labels[b].tolist(), sample.real[b].tolist()) if real]
        chosen = [row for row in rows if row[4] > 0]
        assert set(chosen) <= kinds["object"] and set(rows) - set(chosen) <= kinds["background"]
        most = min(len(kinds["object"]), int(batch * 0.25))
        if not kinds["background"]:
            continue  # test_without_background says what happens
        assert len(chosen) == most and len(set(chosen)) == most
        assert len(rows) == (batch if replacement else min(batch, most + len(kinds["background"])))
        for box, label, target in zip(boxes[b].tolist(), labels[b].tolist(), targets[b].tolist()):
            wanted = [0.0] * 4
            if label:
                best = max(objects["boxes"].tolist(), key=lambda one: slow_iou(one, box, extent))
                wanted = slow_encode(best, box, extent)
            assert target == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("replacement", [False, True])
def test_without_background_all_are_objects_and_without_both_none_is_drawn(replacement):
    """RECIPE 3: no background, all RoIs are objects, with replacement; neither: the original raises ValueError."""
    near = torch.tensor([[[5.0, 5, 25, 25]] * 3, [[0.0, 0, 0, 0]] * 3])
    proposals = Proposals(near, torch.tensor([[True] * 3, [False] * 3]))
    _, truth = scene()
    _, labels, targets, sample = heads(batch_size_per_image=8, sample_with_replacement=replacement).sample(proposals, truth)
    assert sample.real.sum(1).tolist() == ([8, 0] if replacement else [2, 0])
    assert (labels[0][sample.real[0]] > 0).all() and not labels[1].any() and targets.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("beta", [1 / 9, 1.0])
def test_losses_are_means_over_all_rois(beta):
    torch.manual_seed(0)
    count, classes = 12, 3
    scores, deltas = torch.randn(count, classes + 1), torch.randn(count, 4 * (classes + 1))
    labels, targets = torch.tensor([0, 1, 2, 3] * 3), torch.randn(count, 4)
    real = torch.arange(count) < 9
    cross = box = 0.0
    for r in range(9):
        row = scores[r].tolist()
        cross += math.log(sum(math.exp(value) for value in row)) - row[labels[r]]
        if labels[r]:
            for k in range(4):
                far = abs(float(deltas[r, 4 * labels[r] + k] - targets[r, k]))
                box += 0.5 * far ** 2 / beta if far < beta else far - 0.5 * beta
    found = heads(smooth_l1_beta=beta).losses(scores, deltas, labels, targets, real)
    assert float(found["loss_classifier"]) == pytest.approx(cross / 9, rel=1e-5)
    assert float(found["loss_box_reg"]) == pytest.approx(box / 9, rel=1e-5)
    nothing = heads(smooth_l1_beta=beta).losses(scores, deltas, labels, targets, real & False)
    assert [float(value) for value in nothing.values()] == [0, 0]


def slow_detections(scores, deltas, boxes, evaluate: Evaluate, extent: int) -> list[tuple]:
    """RECIPE 6: decode, clip, a threshold, NMS class by class, then the best of all classes together."""
    found = []
    for c in range(1, scores.shape[1]):
        ranked = []
        for r, box in enumerate(boxes.tolist()):
            x1, y1, x2, y2 = slow_decode(deltas[r, 4 * c:4 * c + 4].tolist(), box, extent)
            inside = [min(max(value, 0), limit - extent) for value, limit in zip((x1, y1, x2, y2), [SIZE[1], SIZE[0]] * 2)]
            if float(scores[r, c]) > evaluate.score_thresh and min(inside[2] - inside[0], inside[3] - inside[1]) + extent >= 0.01:
                ranked.append((float(scores[r, c]), inside, c))
        ranked.sort(key=lambda one: -one[0])
        found += [ranked[n] for n in slow_nms([one[1] for one in ranked], evaluate.nms_thresh, extent)]
    return sorted(found, key=lambda one: -one[0])[:evaluate.max_detections]


@torch.no_grad()
@pytest.mark.parametrize("extent", [0, 1])
@pytest.mark.parametrize("evaluate", [
    Evaluate(score_thresh=0.0, nms_thresh=0.3, max_detections=100), Evaluate(score_thresh=0.05, nms_thresh=0.5, max_detections=100),
    Evaluate(score_thresh=0.0, nms_thresh=0.3, max_detections=7), Evaluate(score_thresh=0.999, nms_thresh=0.3, max_detections=7)])
def test_detections_are_those_of_the_loop(evaluate, extent):
    proposals, _ = scene(extent)
    boxes = proposals.lists()
    boxes[1] = boxes[1][:0]  # an image without a proposal; the original would score its zero boxes
    logits, deltas = torch.randn(len(boxes[0]), 4) * 2, torch.randn(len(boxes[0]), 16)
    found = heads(extent, evaluate).detect(logits, deltas, boxes, [SIZE] * 2)
    expected = slow_detections(logits.softmax(1), deltas, boxes[0], evaluate, extent)
    assert found[0]["labels"].tolist() == [label for _, _, label in expected]
    assert found[0]["scores"].tolist() == pytest.approx([score for score, _, _ in expected], abs=1e-6)
    wanted = torch.tensor([box for _, box, _ in expected]).reshape(-1, 4)
    torch.testing.assert_close(found[0]["boxes"], wanted, atol=1e-3, rtol=0)
    assert found[1]["boxes"].shape == (0, 4) and len(found[1]["labels"]) == len(found[1]["scores"]) == 0
    assert len(expected) > 5 or evaluate.score_thresh == 0.999


@pytest.mark.parametrize("agnostic", [False, True])
def test_the_predictor_begins_as_the_config_says(agnostic):
    """RECIPE 1.3; PyTorch's own is uniform in +-1 / sqrt(units)."""
    torch.manual_seed(0)
    original, usual = (FastRCNNPredictor(1024, 20, agnostic, init) for init in ("normal", "uniform"))
    assert original.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert original.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not original.cls_score.bias.any() and not original.bbox_pred.bias.any()
    assert usual.cls_score.weight.abs().max().item() == pytest.approx(1 / 32, rel=0.01) and usual.cls_score.bias.any()
    model = build_model(Model(backbone="resnet18_c4", roi=Roi(predictor_init="normal")), Evaluate(), classes=20)
    assert model.roi_heads.box_predictor.bbox_pred.weight.abs().max().item() < 0.006


def test_boxes_that_end_with_their_last_pixel_leave_the_detector_as_all_others():
    """An image of one colour, its last pixel at 63: what reaches its border must end at 64, beyond it."""
    torch.manual_seed(0)
    for plus_one in (False, True):
        model = build_model(Model(backbone="resnet18_c4", weights="", norm="trained", frozen_stages=0, inclusive_boxes=plus_one,
                                  anchor_sizes=((64, 200),), roi_pooling_size=2), Evaluate(score_thresh=0), classes=2).eval()
        found, _ = model.predict([torch.zeros(3, 64, 64, dtype=torch.uint8)], Resize(128, 128))
        assert found[0]["boxes"].max() == (64 + 0.5 if plus_one else 64)  # the last pixel of 128 is at 127, half is 63.5
