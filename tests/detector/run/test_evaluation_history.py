"""metrics.jsonl read back: names of today, the best evaluation, early stopping."""

import pytest

from detector.run.evaluation_history import best_of, evaluations_of, out_of_patience, read_metrics


def test_without_a_metrics_file_there_is_no_evaluation(tmp_path):
    assert read_metrics(tmp_path) == [] and evaluations_of(tmp_path, "AP") == []


def test_metrics_of_older_versions_have_their_name_of_today(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "rate": 0.5}\n'
                                            '{"kind": "train", "step": 2, "lr": 0.25}\n{"kind": "tr')
    assert read_metrics(tmp_path) == [{"kind": "train", "step": 1, "lr": 0.5}, {"kind": "train", "step": 2, "lr": 0.25}]


@pytest.mark.parametrize("evaluations, best", [
    ([], None), ([(5, 0.1)], (5, 0.1)), ([(5, 0.1), (10, 0.3), (15, 0.2)], (10, 0.3)),
    ([(5, 0.3), (10, 0.3)], (5, 0.3)),         # the first of equals
    ([(5, -1.0), (10, 0.0)], (10, 0.0))])      # -1: nothing to be found
def test_best_of(evaluations, best):
    assert best_of(evaluations) == best


@pytest.mark.parametrize("values, patience, over", [
    ([], 2, False), ([1], 1, False), ([1, 2, 3], 1, False),
    ([1, 2, 1], 1, True), ([1, 2, 1], 2, False), ([1, 2, 1, 1], 2, True),
    ([2, 2], 1, True),                         # as good is not better
    ([3, 1, 2], 2, True), ([3, 1, 4], 2, False),
    ([1, 0, 0, 0], 0, False)])                 # 0: never
def test_patience_ends_after_as_many_evaluations_without_a_better_one(values, patience, over):
    assert out_of_patience(list(enumerate(values)), patience) is over
