"""Evaluating: every image once, losses weighted by images, and the road from images to results.json."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from detector.config.load import load_config, to_yaml
from detector.data.formats.shapes import CLASSES
from detector.data.read import read_val
from detector.errors import BadInput
from detector.evaluation import evaluate as evaluate_module
from detector.evaluation.evaluate import RankPredictions, evaluate, evaluate_run, gather
from detector.evaluation.scoring import AT_ONCE, Evaluation, format_metrics, loss_means, write_results
from detector.model.faster_rcnn import LOSSES, build_model
from detector.run import checkpoint_files
from detector.structures import Detections, concat_detections
from detector.training import checkpoint
from detector.training.checkpoint import TrainState
from detector.training.optimizer import build_optimizer

CPU = torch.device("cpu")


class Oracle(nn.Module):
    """Answers with the truth; each of its losses is the number of images in the batch."""

    def predict(self, images, side, targets):
        return ([{"boxes": target["boxes"], "labels": target["labels"], "scores": torch.ones(len(target["labels"]))}
                 for target in targets], torch.full((len(LOSSES),), float(len(images))))


@pytest.fixture
def config(tiny, config_file):
    return load_config(str(config_file), tiny)


@pytest.fixture
def val(config):
    return read_val(config.data, CLASSES)


def evaluation_of(metrics: dict, per_class: dict) -> Evaluation:
    return Evaluation(step=20, metrics=metrics, per_class=per_class, images=5, images_per_s=2.5, elapsed_s=2.0,
                      peak_memory_gib=0.5, unreadable=())


def found(*rows: tuple) -> Detections:
    """Rows: (image id, x1, score)."""
    return Detections(np.array([row[0] for row in rows], np.int64),
                      np.array([(row[1], 0, row[1] + 5, 5) for row in rows], np.float32).reshape(-1, 4),
                      np.array([row[2] for row in rows], np.float32), np.ones(len(rows), np.int32))


@pytest.mark.parametrize("metric, headline", [("coco", "AP"), ("voc", "AP_11point")])
def test_a_detector_that_knows_the_truth_scores_one(metric, headline, config, val):
    config = replace(config, evaluate=replace(config.evaluate, metric=metric))
    evaluation, detections, stopped = evaluate(Oracle(), val, config, CPU, step=3)
    assert not stopped and (evaluation.step, evaluation.images, evaluation.unreadable) == (3, 5, ())
    assert evaluation.metrics[headline] == pytest.approx(1)
    assert len(detections) == len(val.boxes) > 0
    assert list(detections.image_ids) == sorted(detections.image_ids)
    assert set(evaluation.per_class) == set(CLASSES)


def test_losses_are_means_over_images_not_over_batches(config, val):
    """Five images in batches of 2, 2 and 1, whose losses are 2, 2 and 1: (2 * 2 + 2 * 2 + 1 * 1) / 5."""
    assert config.evaluate.batch_size == 2
    evaluation, _, _ = evaluate(Oracle(), val, config, CPU, step=0)
    assert {name: evaluation.metrics[name] for name in LOSSES} == pytest.approx(dict.fromkeys(LOSSES, 1.8))
    assert evaluation.metrics["loss"] == pytest.approx(4 * 1.8)


def test_without_losses_there_are_only_metrics(config, val):
    torch.manual_seed(0)
    config = replace(config, evaluate=replace(config.evaluate, compute_loss=False))
    evaluation, _, _ = evaluate(build_model(config.model, config.evaluate, len(CLASSES)), val, config, CPU, step=0)
    assert "AP" in evaluation.metrics and not set(evaluation.metrics) & {"loss", *LOSSES}


def test_evaluating_again_gives_the_same_numbers_whatever_was_drawn_before(config, val):
    torch.manual_seed(0)
    model = build_model(config.model, config.evaluate, len(CLASSES)).train()
    first, detections, _ = evaluate(model, val, config, CPU, step=0)
    torch.rand(7)
    second, again, _ = evaluate(model, val, config, CPU, step=0)
    assert first.metrics == second.metrics and first.metrics["loss"] > 0
    assert np.array_equal(detections.boxes, again.boxes) and len(detections) > 0
    assert not model.training


@pytest.mark.parametrize("wrong", ["twice", "never"])
def test_an_image_that_is_evaluated_twice_or_never_is_an_error(wrong, config, val, monkeypatch):
    plan = [np.array([0, 1]), np.array([2, 3]), np.array([4, 4] if wrong == "twice" else [], np.int64)]
    monkeypatch.setattr(evaluate_module, "plan_eval_batches", lambda sizes, batch: [batch for batch in plan if len(batch)])
    with pytest.raises(AssertionError, match="twice, or never"):
        evaluate(Oracle(), val, config, CPU, step=0)


def test_asked_to_stop_ends_after_the_batch_under_way(config, val):
    calls = []

    def asked() -> bool:
        calls.append(1)
        return len(calls) == 2
    assert evaluate(Oracle(), val, config, CPU, step=0, requested=asked) == (None, None, True)
    assert len(calls) == 2  # of three batches


@pytest.mark.parametrize("policy", ["refuse", "grey"])
def test_an_image_that_cannot_be_read_is_named(policy, config, val, shapes_root, tmp_path):
    root = tmp_path / "spoiled"
    shutil.copytree(shapes_root, root)
    spoiled = root / "val" / "00002.jpg"
    spoiled.write_bytes(spoiled.read_bytes()[:100])
    data = replace(config.data, root=str(root), unreadable_images=policy)
    config = replace(config, data=data)
    val = read_val(data, CLASSES)
    if policy == "refuse":
        with pytest.raises(BadInput, match=str(spoiled)):
            evaluate(Oracle(), val, config, CPU, step=0)
    else:
        evaluation, _, _ = evaluate(Oracle(), val, config, CPU, step=0)
        assert evaluation.images == 5 and len(evaluation.unreadable) == 1 and str(spoiled) in evaluation.unreadable[0]


def test_gathering_orders_detections_by_image_and_losses_by_batch():
    losses = np.array([[2.0, 1, 0, 0, 0, 0], [0, 2, 1, 1, 1, 1]])
    share = RankPredictions(found((9, 1, 0.2), (4, 2, 0.3), (9, 3, 0.9)), losses, np.array([3, 0, 2]), [])
    detections, sorted_losses, seen = gather(share)
    assert list(detections.image_ids) == [4, 9, 9]
    assert list(detections.boxes[:, 0]) == [2, 1, 3]  # in the order they were found in, within an image
    assert list(detections.scores) == pytest.approx([0.3, 0.2, 0.9])
    assert list(sorted_losses[:, 0]) == [0, 2] and sorted(seen) == [0, 2, 3]
    nothing = gather(RankPredictions(concat_detections([]), np.zeros((0, 6)), np.zeros(0, np.int64), []))
    assert len(nothing[0]) == 0 and nothing[0].boxes.shape == (0, 4) and nothing[1].shape == (0, 6)


def test_loss_means_by_hand():
    rows = np.array([[0, 3, 1.0, 0, 2, 0], [1, 1, 5.0, 0, 2, 4]])  # three images and one
    means = loss_means(rows)
    assert means == pytest.approx({"loss": 2 + 0 + 2 + 1, **dict(zip(LOSSES, (2, 0, 2, 1)))})
    assert loss_means(np.zeros((0, 6))) == {}


def test_the_table_shows_every_metric_and_every_class():
    said = format_metrics({"AP": 0.12344, "loss": 1.5}, {"cat": {"AP": 0.25, "objects": 12},
                                                "traffic light": {"AP": -1.0, "objects": 0}})
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines == ["AP 0.1234", "loss 1.5000", "", "class AP objects", "cat 0.2500 12",
                     "traffic light - 0"]
    assert len({len(line) for line in said.splitlines()[-3:]}) == 1  # columns stand below each other
    assert format_metrics({"AP": -1.0}, {}).split("\n")[0].split() == ["AP", "-"]


def test_results_are_written_as_they_are(val, tmp_path):
    evaluation = evaluation_of({"AP": 0.5}, {"star": {"AP": 0.5}})
    detections = found((int(val.image_ids[0]), 3, 0.75))
    write_results(tmp_path, evaluation, detections, val)
    said = json.loads((tmp_path / "results.json").read_text())
    assert (said["metrics"], said["per_class"], said["step"], said["images"]) == (
        {"AP": 0.5}, {"star": {"AP": 0.5}}, 20, 5)
    assert json.loads((tmp_path / "detections.json").read_text()) == [
        {"image_id": int(val.image_ids[0]), "category_id": 1, "bbox": [3.0, 0.0, 5.0, 5.0], "score": 0.75}]
    many = found(*((int(val.image_ids[0]), x, 0.5) for x in range(2 * AT_ONCE + 1)))
    write_results(tmp_path, evaluation, many, val)
    assert [row["bbox"][0] for row in json.loads((tmp_path / "detections.json").read_text())] == \
        list(range(2 * AT_ONCE + 1))
    write_results(tmp_path, evaluation, concat_detections([]), val)
    assert json.loads((tmp_path / "detections.json").read_text()) == []


def test_a_run_is_evaluated_from_its_folder_alone(config, tmp_path, capsys):
    folder = tmp_path / "runs" / "tiny"
    torch.manual_seed(0)
    model = build_model(config.model, config.evaluate, len(CLASSES))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = TrainState(model, build_optimizer(model, config.optim), scaler, None, step=12)
    checkpoint_files.write_checkpoint(folder, checkpoint.content_of(state, config, CLASSES, 4))
    (folder / "config.yaml").write_text(to_yaml(config))
    evaluate_run(str(folder), ["evaluate.metric=voc", "evaluate.best_metric=AP"], "best")
    said = capsys.readouterr().out
    assert "step-00000012.pt, step 12" in said and "AP_11point" in said and "triangle" in said
    results = json.loads((folder / "results.json").read_text())
    assert results["step"] == 12 and set(results["per_class"]) == set(CLASSES) and "AP_11point" in results["metrics"]
    for which, message in (("last.pt", "no such checkpoint: last.pt"), ("best", "no such run folder")):
        with pytest.raises(BadInput, match=message):
            evaluate_run(str(folder) if which == "last.pt" else str(tmp_path / "none"), [], which)
