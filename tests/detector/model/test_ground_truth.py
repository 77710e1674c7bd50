"""Objects of a batch as one tensor."""

import torch

from detector.model.ground_truth import pad_ground_truth


def test_boxes_are_scaled_and_padded():
    targets = [{"boxes": torch.tensor([[10.0, 20, 30, 40]]), "labels": torch.tensor([2])},
               {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
               {"boxes": torch.tensor([[0.0, 0, 8, 4], [2, 1, 4, 3]]), "labels": torch.tensor([1, 3])}]
    truth = pad_ground_truth(targets, [(50, 100), (9, 9), (10, 10)], [(100, 300), (9, 9), (5, 20)], 0)
    assert truth.boxes.tolist() == [[[30, 40, 90, 80], [0] * 4], [[0] * 4] * 2, [[0, 0, 16, 2], [4, 0.5, 8, 1.5]]]
    assert truth.labels.tolist() == [[2, 0], [0, 0], [1, 3]]
    assert truth.real.tolist() == [[True, False], [False, False], [True, True]]
    for mine, target in zip(truth.lists(), targets):
        assert torch.equal(mine["labels"], target["labels"]) and len(mine["boxes"]) == len(target["boxes"])


def test_last_pixels_are_counted_before_scaling():
    """10 ... 30 exclusive ends with pixel 29, which twice as large is at 58."""
    target = {"boxes": torch.tensor([[10.0, 20, 30, 40]]), "labels": torch.tensor([1])}
    truth = pad_ground_truth([target, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}],
                      [(50, 50)] * 2, [(100, 100)] * 2, 1)
    assert truth.boxes.tolist() == [[[20, 40, 58, 78]], [[0] * 4]]


def test_without_any_object_there_is_a_row_that_is_none():
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    truth = pad_ground_truth([none, none], [(5, 5)] * 2, [(5, 5)] * 2, 0)
    assert truth.boxes.shape == (2, 1, 4) and not truth.real.any() and truth.counts == [0, 0]
