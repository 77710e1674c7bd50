"""The objects of a batch as tensors of one shape."""

import torch

from detector.model.box_coder import BoxCoder
from detector.model.ground_truth import pad_ground_truth
from detector.py_faster_rcnn.inclusive_boxes import InclusiveBoxCoder

EMPTY = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def test_boxes_are_scaled_and_padded():
    targets = [{"boxes": torch.tensor([[10.0, 20, 30, 40]]), "labels": torch.tensor([2])}, EMPTY,
               {"boxes": torch.tensor([[0.0, 0, 8, 4], [2, 1, 4, 3]]), "labels": torch.tensor([1, 3])}]
    padded = pad_ground_truth(targets, [(50, 100), (9, 9), (10, 10)], [(100, 300), (9, 9), (5, 20)])
    assert padded.boxes.tolist() == [[[30, 40, 90, 80], [0] * 4], [[0] * 4] * 2, [[0, 0, 16, 2], [4, 0.5, 8, 1.5]]]
    assert padded.labels.tolist() == [[2, 0], [0, 0], [1, 3]]
    assert padded.valid.tolist() == [[True, False], [False, False], [True, True]]
    for objects, target in zip(padded.per_image(), targets):
        assert torch.equal(objects["labels"], target["labels"]) and len(objects["boxes"]) == len(target["boxes"])


def test_boxes_become_inclusive_before_they_are_scaled():
    """10 ... 30 exclusive ends with pixel 29, which twice as large is at 58."""
    target = {"boxes": torch.tensor([[10.0, 20, 30, 40]]), "labels": torch.tensor([1])}
    padded = pad_ground_truth([target, EMPTY], [(50, 50)] * 2, [(100, 100)] * 2, InclusiveBoxCoder(BoxCoder()))
    assert padded.boxes.tolist() == [[[20, 40, 58, 78]], [[0] * 4]]


def test_a_batch_without_objects_has_one_row_that_is_not_valid():
    padded = pad_ground_truth([EMPTY, EMPTY], [(5, 5)] * 2, [(5, 5)] * 2)
    assert padded.boxes.shape == (2, 1, 4) and not padded.valid.any() and padded.counts == [0, 0]
