"""metrics.jsonl read back: names of today, the best evaluation, early stopping."""

import math

import pytest

from detector.run.evaluation_history import (
    best_evaluation,
    best_of,
    evaluations_of,
    out_of_patience,
    read_evaluations,
    read_metrics,
)

NAN = math.nan


def test_without_a_metrics_file_there_is_no_evaluation(tmp_path):
    assert read_metrics(tmp_path) == [] and evaluations_of(tmp_path, "AP") == []


def test_metrics_of_older_versions_have_their_name_of_today(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "rate": 0.5}\n'
                                            '{"kind": "train", "step": 2, "lr": 0.25}\n{"kind": "tr')
    assert read_metrics(tmp_path) == [{"kind": "train", "step": 1, "lr": 0.5}, {"kind": "train", "step": 2, "lr": 0.25}]


def test_damaged_lines_are_left_out_and_null_is_not_a_number(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"kind": "train", "step": 1, "loss": 0.5}\n{"kind": "train", "st\xe5p": 2, "loss": 0.5}\n{"kild": "train", "step": 3}\n'
        b'{"kind": "train", "step": 4, "gradient_norm": null}\n[1]\n7\n{"kind": "train", "step": "5"}\n\0\0\0\n')
    first, second = read_metrics(tmp_path)
    assert first == {"kind": "train", "step": 1, "loss": 0.5} and second["step"] == 4 and math.isnan(second["gradient_norm"])


@pytest.mark.parametrize("bad", ["null", "NaN", "Infinity"])
def test_an_evaluation_with_a_metric_that_is_not_finite_is_no_candidate(bad, tmp_path):
    """Neither if it is another metric: the loss of a network that has diverged, while AP is 0.3 by chance."""
    (tmp_path / "metrics.jsonl").write_text('{"kind": "evaluation", "step": 1, "AP": 0.2, "loss": 1.0}\n'
                                            f'{{"kind": "evaluation", "step": 2, "AP": 0.3, "loss": {bad}}}\n')
    evaluations = evaluations_of(tmp_path, "AP")
    assert [step for step, _ in evaluations] == [1, 2] and best_of(evaluations) == (1, 0.2)
    assert out_of_patience(evaluations, 1)


@pytest.mark.parametrize("evaluations, best", [
    ([], None), ([(5, 0.1)], (5, 0.1)), ([(5, 0.1), (10, 0.3), (15, 0.2)], (10, 0.3)),
    ([(5, 0.3), (10, 0.3)], (5, 0.3)),         # the first of equals
    ([(5, -1.0), (10, 0.0)], (10, 0.0)),       # -1: nothing to be found
    ([(5, NAN), (10, 0.1), (15, NAN), (20, 0.0)], (10, 0.1)), ([(5, NAN)], None), ([(5, math.inf)], None)])
def test_best_of(evaluations, best):
    assert best_of(evaluations) == best


@pytest.mark.parametrize("values, patience, over", [
    ([], 2, False), ([1], 1, False), ([1, 2, 3], 1, False),
    ([1, 2, 1], 1, True), ([1, 2, 1], 2, False), ([1, 2, 1, 1], 2, True),
    ([2, 2], 1, True),                         # as good is not better
    ([3, 1, 2], 2, True), ([3, 1, 4], 2, False),
    ([1, NAN], 1, True), ([NAN, 1, NAN], 2, False), ([NAN, NAN, NAN], 2, True), ([NAN, 0.1], 1, False),
    ([1, 0, 0, 0], 0, False)])                 # 0: never
def test_patience_ends_after_as_many_evaluations_without_a_better_one(values, patience, over):
    assert out_of_patience(list(enumerate(values)), patience) is over


def test_evaluations_are_read_back_with_their_classes(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 1, "loss": 2.0}\n{"kind": "evaluation", "step": 1, "AP": 0.25}\n'
        '{"kind": "evaluation", "step": 2, "AP": null, "per_class": {"step": {"AP": null, "AP50": 0.5}}}\n')
    first, second = read_evaluations(tmp_path)
    assert (first.step, first.metrics, first.per_class) == (1, {"AP": 0.25}, {})
    assert math.isnan(second.metrics["AP"]) and math.isnan(second.per_class["step"]["AP"]) and second.per_class["step"]["AP50"] == 0.5
    assert best_evaluation([first, second], "AP") is first and best_evaluation([second], "AP") is None
    assert best_evaluation([first], "AP50") is None and best_evaluation([], "AP") is None and read_evaluations(tmp_path / "nothing") == []
