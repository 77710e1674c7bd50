"""Evaluation: every image exactly once, losses averaged over images, and from a run folder to results.json."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from detector.config.load import load_config
from detector.data.formats.shapes import CLASSES
from detector.data.read import read_val
from detector.data.synced_batches import FetchPolicy
from detector.errors import BadInput
from detector.evaluation import evaluate as evaluate_module
from detector.evaluation.evaluate import RankPredictions, evaluate, gather, merge, predict_rounds
from detector.evaluation.notes import not_finite_note
from detector.evaluation.scoring import loss_means
from detector.model.faster_rcnn import build_model
from detector.structures import Detections, concat_detections

CPU = torch.device("cpu")
LOSSES = ("loss_a", "loss_b")  # of the oracle; evaluation takes the names from the model


class Oracle(nn.Module):
    """Returns the ground truth; each of its losses is the number of images in the batch."""

    def predict(self, images, resize, targets):
        detections = [{"boxes": target["boxes"], "labels": target["labels"], "scores": torch.ones(len(target["labels"]))}
                      for target in targets]
        return detections, dict.fromkeys(LOSSES, torch.tensor(float(len(images))))


@pytest.fixture
def config(tiny, config_file):
    return load_config(str(config_file), tiny)


@pytest.fixture
def val(config):
    return read_val(config.data, CLASSES)


def make_detections(*rows: tuple) -> Detections:
    """Returns detections of rows (image id, x1, score)."""
    return Detections(np.array([row[0] for row in rows], np.int64),
                      np.array([(row[1], 0, row[1] + 5, 5) for row in rows], np.float32).reshape(-1, 4),
                      np.array([row[2] for row in rows], np.float32), np.ones(len(rows), np.int32))


def batch_losses(number: int, images: int, *values: float) -> dict:
    return {"batch": number, "images": images, "losses": dict(zip(LOSSES, values, strict=True))}


@pytest.mark.parametrize("metric, headline", [("coco", "AP"), ("voc", "AP_11point")])
def test_a_detector_that_returns_the_ground_truth_scores_one(metric, headline, config, val):
    config = replace(config, evaluate=replace(config.evaluate, metric=metric))
    evaluation, detections = evaluate(Oracle(), val, config, CPU, step=3)
    assert (evaluation.step, evaluation.images, evaluation.unreadable) == (3, 5, ())
    assert evaluation.metrics[headline] == pytest.approx(1)
    assert len(detections) == len(val.boxes) > 0
    assert list(detections.image_ids) == sorted(detections.image_ids)
    assert set(evaluation.per_class) == set(CLASSES)


def test_losses_are_means_over_images_not_over_batches(config, val):
    """Five images in batches of 2, 2 and 1, whose losses are 2, 2 and 1: (2 * 2 + 2 * 2 + 1 * 1) / 5."""
    assert config.evaluate.batch_size == 2
    evaluation, _ = evaluate(Oracle(), val, config, CPU, step=0)
    assert {name: evaluation.metrics[name] for name in LOSSES} == pytest.approx(dict.fromkeys(LOSSES, 1.8))
    assert evaluation.metrics["loss"] == pytest.approx(len(LOSSES) * 1.8)
    assert [name for name in evaluation.metrics if "loss" in name] == ["loss", *LOSSES]


@pytest.mark.parametrize("compute_loss", [True, False])
def test_the_metrics_have_the_losses_of_the_model_by_name_if_they_are_computed(compute_loss, config, val):
    torch.manual_seed(0)
    config = replace(config, evaluate=replace(config.evaluate, compute_loss=compute_loss))
    evaluation, _ = evaluate(build_model(config.model, config.evaluate, len(CLASSES)), val, config, CPU, step=0)
    losses = ["loss", "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"] if compute_loss else []
    assert "AP" in evaluation.metrics and [name for name in evaluation.metrics if "loss" in name] == losses


def test_flipped_views_change_the_detections_and_no_loss(config, val):
    torch.manual_seed(0)
    model, results = build_model(config.model, config.evaluate, len(CLASSES)), {}
    for tta in ("none", "symmetries"):
        results[tta], detections = evaluate(model, val, replace(config, evaluate=replace(config.evaluate, tta=tta)), CPU, step=0)
        results[tta, "boxes"] = detections.boxes
    assert results["none"].metrics["loss"] == results["symmetries"].metrics["loss"]
    assert not np.array_equal(results["none", "boxes"], results["symmetries", "boxes"])


@pytest.mark.parametrize("part", ["backbone.body.conv1", "rpn.head.cls_logits", "roi_heads.box_predictor.bbox_pred"])
def test_outputs_that_are_not_finite_are_counted_and_make_no_metrics(part, config, val):
    """Finite weights may overflow as well, as after a flipped bit in an exponent."""
    torch.manual_seed(0)
    model = build_model(config.model, config.evaluate, len(CLASSES))
    model.get_submodule(part).weight.data.fill_(3e38)
    evaluation, _ = evaluate(model, val, config, CPU, step=0)
    assert evaluation.not_finite == len(val) == evaluation.images
    assert np.isnan(evaluation.metrics["AP"]) and f"in the batches of {len(val)} of {len(val)} images" in not_finite_note(
        evaluation.not_finite, evaluation.images)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_second_evaluation_gives_the_same_numbers_whatever_random_numbers_were_drawn_before(config, val):
    torch.manual_seed(0)
    model = build_model(config.model, config.evaluate, len(CLASSES)).train()
    first, detections = evaluate(model, val, config, CPU, step=0)
    torch.rand(7)
    second, again = evaluate(model, val, config, CPU, step=0)
    assert first.metrics == second.metrics and first.metrics["loss"] > 0
    assert np.array_equal(detections.boxes, again.boxes) and len(detections) > 0
    assert not model.training


@pytest.mark.parametrize("mistake", ["twice", "never"])
def test_an_image_that_is_evaluated_twice_or_never_is_an_error(mistake, config, val, monkeypatch):
    plan = [np.array([0, 1]), np.array([2, 3]), np.array([4, 4] if mistake == "twice" else [], np.int64)]
    monkeypatch.setattr(evaluate_module, "plan_eval_batches", lambda sizes, batch: [batch for batch in plan if len(batch)])
    with pytest.raises(AssertionError, match="twice, or never"):
        evaluate(Oracle(), val, config, CPU, step=0)


def test_a_stop_request_ends_the_evaluation_after_the_current_batch(config, val):
    calls = []

    def stop_requested() -> bool:
        calls.append(1)
        return len(calls) == 2
    assert evaluate(Oracle(), val, config, CPU, 0, stop_requested) is None
    assert len(calls) == 2  # of three batches


@pytest.mark.parametrize("policy", ["refuse", "grey"])
def test_an_image_that_cannot_be_read_is_named(policy, config, val, shapes_root, tmp_path):
    root = tmp_path / "damaged"
    shutil.copytree(shapes_root, root)
    damaged = root / "val" / "00002.jpg"
    damaged.write_bytes(damaged.read_bytes()[:100])
    data = replace(config.data, root=str(root), unreadable_images=policy)
    config = replace(config, data=data)
    val = read_val(data, CLASSES)
    if policy == "refuse":
        with pytest.raises(BadInput, match=str(damaged)):
            evaluate(Oracle(), val, config, CPU, step=0)
    else:
        evaluation, _ = evaluate(Oracle(), val, config, CPU, step=0)
        assert evaluation.images == 5 and len(evaluation.unreadable) == 1 and str(damaged) in evaluation.unreadable[0]


def test_an_evaluation_without_any_image_is_refused(config, val, shapes_root, tmp_path):
    root = tmp_path / "gone"
    shutil.copytree(shapes_root, root)
    shutil.rmtree(root / "val")
    config = replace(config, data=replace(config.data, root=str(root), unreadable_images="grey"))
    with pytest.raises(BadInput, match="none of the 5 images of coco val could be read: .*no such image file"):
        evaluate(Oracle(), replace(val, root=str(root)), config, CPU, step=0)


def test_gathering_orders_detections_by_image_and_losses_by_batch():
    losses = [batch_losses(2, 1, 0.1, 0.0), batch_losses(0, 2, float("inf"), 1.0)]
    part = RankPredictions(make_detections((9, 1, 0.2), (4, 2, 0.3), (9, 3, 0.9)), losses, np.array([3, 0, 2]), [])
    detections, sorted_losses, indices = gather(part)
    assert list(detections.image_ids) == [4, 9, 9]
    assert list(detections.boxes[:, 0]) == [2, 1, 3]  # within an image in the order in which they were predicted
    assert list(detections.scores) == pytest.approx([0.3, 0.2, 0.9])
    assert sorted_losses == losses[::-1] and sorted(indices) == [0, 2, 3]


def test_gathering_nothing_gives_empty_arrays():
    detections, losses, indices = gather(RankPredictions(concat_detections([]), [], np.zeros(0, np.int64), []))
    assert len(detections) == 0 and detections.boxes.shape == (0, 4) and losses == [] and len(indices) == 0


def test_a_rank_without_a_batch_changes_nothing(config, val):
    """With more ranks than batches, the last ranks take part in each round and contribute nothing."""
    policy = FetchPolicy(lambda: False, True, 60.0)
    idle = predict_rounds(Oracle(), val, config, CPU, policy, iter([]), [], rounds=range(2))
    assert len(idle.detections) == 0 and idle.losses == [] and idle.indices.dtype == np.int64 and idle.unreadable == []
    part = RankPredictions(make_detections((9, 1, 0.2)), [batch_losses(0, 1, 1.0, 2.0)], np.array([0]), [])
    detections, losses, indices = merge([part, idle], [*part.losses, *idle.losses])
    assert list(detections.image_ids) == [9] and list(indices) == [0]
    assert loss_means(losses) == {"loss": 3.0, "loss_a": 1.0, "loss_b": 2.0}


def test_loss_means_by_hand():
    """Three images and one image."""
    means = loss_means([batch_losses(0, 3, 1.0, 0.0), batch_losses(1, 1, 5.0, 4.0)])
    assert means == pytest.approx({"loss": 2 + 1, "loss_a": 2, "loss_b": 1})
    assert loss_means([]) == {}
    assert loss_means([{"batch": 0, "images": 2, "losses": {"only": 0.5}}]) == {"loss": 0.5, "only": 0.5}
