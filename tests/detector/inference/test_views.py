"""Test-time augmentation: views are undone exactly, and the detections of all views are merged."""

import dataclasses
import types

import numpy as np
import pytest
import torch

from detector import load
from detector.config.schema import Evaluate
from detector.inference.predictor import predict_batch
from detector.inference.views import VIEWS, boxes_in_image, merge_views, view_of
from detector.structures import Resize

A, LIKE_A, OTHER = (0., 0., 100., 100.), (10., 0., 110., 100.), (200., 0., 300., 100.)
CPU = torch.device("cpu")


def detections(*rows: tuple) -> dict[str, torch.Tensor]:
    """Rows: (box, score, label)."""
    boxes, scores, labels = zip(*rows) if rows else ((), (), ())
    return {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), "scores": torch.tensor(scores, dtype=torch.float32),
            "labels": torch.tensor(labels, dtype=torch.int64)}


def image_with_object(height: int, width: int, box: tuple[int, int, int, int]) -> torch.Tensor:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    x1, y1, x2, y2 = box
    image[:, y1:y2, x1:x2] = 255
    return image


class OneObject:
    """A detector of one white rectangle, whose score is higher on the left than on the right."""

    def __init__(self):
        self.roi_heads = types.SimpleNamespace(score_thresh=0.05)

    def predict(self, images, resize, targets=None):
        found = []
        for image in images:
            rows, columns = torch.where(image[0] > 0)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            found.append(detections((box, 0.9 if box[0] < image.shape[2] / 2 else 0.5, 1)))
        return found, None if targets is None else {"loss": torch.tensor(float(len(images)))}


def test_each_kind_has_its_number_of_different_views_and_the_image_first():
    assert {name: len(set(views)) for name, views in VIEWS.items()} == {"none": 1, "hflip": 2, "flips": 4, "symmetries": 8}
    assert all(not any(views[0]) for views in VIEWS.values())
    tta, = (field for field in dataclasses.fields(Evaluate) if field.name == "tta")
    assert tta.metadata["choices"] == tuple(VIEWS)


@pytest.mark.parametrize("view", VIEWS["symmetries"])
def test_a_box_of_a_view_comes_back_to_its_place_in_the_image(view):
    box = (3, 5, 10, 9)
    image = image_with_object(20, 30, box)
    seen = OneObject().predict([view_of(image, view)], None)[0][0]["boxes"]
    assert boxes_in_image(seen, view, image).tolist() == [list(box)]
    assert boxes_in_image(seen[:0], view, image).shape == (0, 4)


def test_all_views_together_detect_the_same_in_an_image_and_in_its_mirror_image():
    model, image = OneObject(), image_with_object(20, 30, (3, 5, 10, 9))
    for tta, scores in (("none", (0.9, 0.5)), ("hflip", (0.7, 0.7)), ("flips", (0.7, 0.7))):
        (seen, mirrored), _ = predict_batch(model, [image, image.flip(-1)], None, Resize(20, 0), "fp32", CPU, Evaluate(tta=tta))
        assert seen["boxes"].round(decimals=3).tolist() == [[3, 5, 10, 9]]
        assert mirrored["boxes"].round(decimals=3).tolist() == [[20, 5, 27, 9]]
        assert (seen["scores"].item(), mirrored["scores"].item()) == pytest.approx(scores)


def test_losses_are_those_of_the_images_themselves():
    images, target = [image_with_object(20, 30, (3, 5, 10, 9))] * 2, detections((A, 1.0, 1))
    for tta in VIEWS:
        _, losses = predict_batch(OneObject(), images, [target, target], Resize(20, 0), "fp32", CPU, Evaluate(tta=tta))
        assert losses == {"loss": 2.0}


@pytest.mark.parametrize("views, merged", [
    ([[(A, .6, 1)], [(A, .6, 1)]], [(A, .6, 1)]),
    ([[(A, .6, 1)], [(LIKE_A, .2, 1)]], [((2.5, 0, 102.5, 100), .4, 1)]),         # averaged, weighted by the scores
    ([[(A, .6, 1)], []], [(A, .3, 1)]),                                          # one view saw nothing
    ([[(A, .6, 1)], [(A, .8, 2)]], [(A, .4, 2), (A, .3, 1)]),                    # classes are apart
    ([[(OTHER, .5, 1), (A, .1, 1)], [(A, .7, 1)]], [(A, .4, 1), (OTHER, .25, 1)]),
    ([[(A, .6, 1), (LIKE_A, .6, 1)], [(A, .6, 1)]], [((10 / 3, 0, 310 / 3, 100), .6, 1)]),  # a view counts once
    ([[(A, .01, 1)], []], []),                                                   # below the threshold, once merged
    ([[], []], [])])
def test_detections_of_one_object_are_averaged_over_the_views(views, merged):
    result = merge_views([detections(*rows) for rows in views], nms_thresh=0.5, score_thresh=0.05, max_detections=10)
    expected = detections(*merged)
    assert result["labels"].tolist() == expected["labels"].tolist()
    for key in ("boxes", "scores"):
        torch.testing.assert_close(result[key], expected[key], rtol=1e-5, atol=1e-4)


def test_at_most_so_many_detections_remain_those_with_the_best_scores():
    rows = [((20. * n, 0., 20. * n + 10, 10.), (n + 1) / 20, 1) for n in range(10)]
    result = merge_views([detections(*rows), detections(*rows)], 0.5, 0.0, 3)
    assert result["scores"].tolist() == pytest.approx([0.5, 0.45, 0.4])


def test_detections_without_an_area_count_too():
    result = merge_views([detections(((5., 5., 5., 5.), .4, 1), ((9., 9., 9., 9.), .3, 2)), detections()], 0.5, 0.0, 3)
    assert result["boxes"].tolist() == [[5, 5, 5, 5], [9, 9, 9, 9]] and result["scores"].tolist() == pytest.approx([0.2, 0.15])


def test_a_loaded_detector_uses_the_views_of_its_config(untrained_run):
    pixels = np.random.RandomState(0).randint(0, 256, (40, 56, 3)).astype(np.uint8)
    detect = load(untrained_run, device="cpu")
    merging = dataclasses.replace(detect, config=dataclasses.replace(
        detect.config, evaluate=dataclasses.replace(detect.config.evaluate, tta="flips")))
    plain, merged = detect(pixels, score=0.0), merging(pixels, score=0.0)
    assert 0 < merged.scores[0] < plain.scores[0] and (np.diff(merged.scores) <= 0).all()
    for score in (0.01, 0.2, float(merged.scores[2])):
        np.testing.assert_array_equal(merging(pixels, score=score).scores, merged.scores[merged.scores >= score])
