"""Coverage of objects by anchors, against a comparison with every anchor; and proposals that cover more."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from detector.config.schema import Evaluate, Model
from detector.inspection.anchor_coverage import cluster_shapes, compute_coverage, propose_anchors, shape_iou
from detector.model.anchors import plan_anchors
from detector.model.faster_rcnn import build_model
from detector.seeding import numpy_random_state

CONFIGS = [Model(backbone="resnet18_fpn"), Model(backbone="resnet18_c4", anchor_sizes=((20.0, 50.0),), anchor_ratios=(0.7, 1.0, 3.0)),
           Model(backbone="mobilenet_v3_large_fpn"), Model(backbone="vgg16"),
           Model(backbone="resnet18_c4", legacy_anchors=True, inclusive_boxes=True, size_divisor=1),
           Model(backbone="resnet18_fpn", legacy_anchors=True)]


def random_boxes(count: int, height: int, width: int) -> np.ndarray:
    state = numpy_random_state(3)
    corners = state.uniform(0, 1, (count, 2, 2)) * [width, height]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1).astype(np.float32)


@pytest.mark.parametrize("config, padded_size", [*((config, (160, 224)) for config in CONFIGS), (CONFIGS[4], (150, 201))])
def test_the_best_of_all_anchors_is_found(config, padded_size):
    plan = plan_anchors(config)
    boxes = random_boxes(60, *padded_size)
    levels = plan.all_anchors(*padded_size)
    slow = np.stack([box_iou(*map(torch.as_tensor, (boxes, level))).numpy().max(axis=1) for level in levels])
    coverage = compute_coverage(plan, boxes, np.tile(padded_size, (len(boxes), 1)))
    np.testing.assert_allclose(coverage.iou, slow.max(axis=0), atol=1e-6)
    np.testing.assert_allclose(slow[coverage.level, np.arange(len(boxes))], coverage.iou, atol=1e-6)
    assert coverage.recall_at(0.5) == (slow.max(axis=0) >= 0.5).mean()


def test_each_box_is_compared_with_the_anchors_of_its_own_padded_size():
    plan = plan_anchors(Model(backbone="resnet18_c4", anchor_sizes=((32.0,),), anchor_ratios=(1.0,)))
    box = np.array([[112, 16, 144, 48]], np.float32)  # around a cell of the wide batch, outside the narrow one
    assert compute_coverage(plan, box, np.array([[64, 256]])).iou == pytest.approx(1)
    assert compute_coverage(plan, box, np.array([[64, 64]])).iou == 0


def test_without_objects_the_recall_is_nan():
    coverage = compute_coverage(plan_anchors(CONFIGS[0]), np.zeros((0, 4)), np.zeros((0, 2), int))
    assert len(coverage.iou) == 0 and np.isnan(coverage.recall_at(0.5))


@pytest.mark.parametrize("config, padded_size", [*((config, (160, 224)) for config in CONFIGS), (CONFIGS[4], (150, 201))])
def test_the_anchors_are_those_of_the_model(config, padded_size):
    """Anchors of a plan are exclusive; those of a model with inclusive boxes end one pixel earlier."""
    model = build_model(config, Evaluate(), 2).eval()
    features = model.backbone(torch.zeros(1, 3, *padded_size))
    grid = model.rpn.anchors.grid([tuple(level.shape[-2:]) for level in features.values()], padded_size, torch.zeros(1))
    grid[:, 2:] += config.inclusive_boxes
    np.testing.assert_array_equal(np.concatenate(plan_anchors(config).all_anchors(*padded_size)), grid.numpy())


def test_a_cell_at_the_edge_is_as_wide_as_the_others():
    """38 rows of 16 pixels in a batch 600 pixels high, though 600 / 38 is less; legacy anchors are centered on the cell."""
    plan = plan_anchors(replace(CONFIGS[4], anchor_sizes=((16.0,),), anchor_ratios=(1.0,)))
    box = np.array([[160, 560, 176, 576]])  # the cell of row 35 and column 10, with exclusive ends
    assert compute_coverage(plan, box, np.array([[600, 800]])).iou == pytest.approx(1)


def test_shape_iou_by_hand():
    assert shape_iou(np.array([[2.0, 2.0]]), np.array([[2.0, 2.0], [1.0, 2.0], [4.0, 1.0]]))[0].tolist() == [1, 0.5, 2 / 6]


def test_well_separated_clusters_are_found():
    state = numpy_random_state(5)
    shapes = np.concatenate([np.array(center) * state.uniform(0.95, 1.05, (40, 2)) for center in ((10, 10), (40, 20), (90, 200))])
    np.testing.assert_allclose(cluster_shapes(shapes, 3), [(10, 10), (40, 20), (90, 200)], rtol=0.05)
    assert cluster_shapes(shapes[:1], 3).shape == (3, 2)  # fewer shapes than clusters


def test_the_proposal_covers_objects_that_the_default_anchors_do_not():
    state, plan = numpy_random_state(6), plan_anchors(CONFIGS[0])
    corner = state.uniform(0, 400, (300, 2))
    height = state.choice([9, 14, 20, 28, 40], 300) * state.uniform(0.9, 1.1, 300)
    boxes = np.concatenate([corner, corner + np.stack([height / 2.5, height], axis=1)], axis=1)  # tall and small
    padded_sizes = np.full((300, 2), 512)
    proposal, after = propose_anchors(plan, boxes, padded_sizes)
    sizes, ratios = proposal.anchors.sizes, proposal.anchors.ratios
    assert [len(level) for level in sizes] == [1] * 5 and list(ratios) == sorted(ratios)
    assert len(ratios) == 3 and all(2 < ratio < 3 for ratio in ratios)
    assert (np.diff(np.ravel(sizes)) >= 0).all()
    before = compute_coverage(plan, boxes, padded_sizes)
    assert after.recall_at(0.5) > before.recall_at(0.5) + 0.3 and after.recall_at(0.7) > before.recall_at(0.7)
    np.testing.assert_array_equal(compute_coverage(proposal, boxes, padded_sizes).iou, after.iou)
