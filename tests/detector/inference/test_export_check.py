"""The comparison of an exported detector with its model: images, matching, tolerance."""

from pathlib import Path

import numpy as np
import pytest
import torch

from detector.config.schema import Evaluate
from detector.inference.export_check import compare, load_check_images, match_detections, model_as_function
from detector.inference.load_detector import find_checkpoint, load_detector
from detector.seeding import numpy_random_state
from detector.structures import Resize


def test_without_validation_data_images_are_drawn(untrained_run):
    (Path(untrained_run) / "config.yaml").unlink()
    images, description = load_check_images(untrained_run, "")
    assert "drawn" in description and len({tuple(image.shape) for image in images}) > 3


def test_boxes_are_compared_in_pixels_of_the_resized_image(untrained_run):
    model, config, _, _ = load_detector(find_checkpoint(untrained_run), torch.device("cpu"))
    pixels = torch.from_numpy(numpy_random_state(1).randint(0, 256, (1, 3, 6, 6)).astype(np.uint8))
    images = [torch.nn.functional.interpolate(pixels, size=(640, 640), mode="bilinear")[0]]  # ten times the resized size

    def with_offset(offset: float):
        def detect(image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            boxes, *rest = model_as_function(model, Resize(64, 128))(image)
            return boxes + offset, *rest
        return compare(model, detect, images, config.evaluate)
    near = with_offset(8e-3)
    assert near.num_unmatched == 0 and near.max_box_difference == pytest.approx(8e-4, abs=5e-5)
    assert with_offset(2e-2).num_unmatched > 0


def detections(*rows) -> tuple[torch.Tensor, ...]:
    boxes = torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return boxes, torch.tensor([row[4] for row in rows]), torch.tensor([row[5] for row in rows])


def test_matches_by_hand():
    evaluate = Evaluate(score_thresh=0.1, max_detections=3)
    cat, dog = (0, 0, 9, 9, 0.9, 1), (0, 0, 9, 9, 0.9, 2)
    near = (0, 0, 9.0005, 9, 0.8999, 1)
    pairs, unmatched = match_detections(detections(cat, dog), detections(dog, near), evaluate)
    assert unmatched == 0 and pairs[:, 0].max() == pytest.approx(5e-4, abs=1e-6)
    assert match_detections(detections(cat), detections(dog), evaluate)[1] == 2                              # another class
    assert match_detections(detections(cat), detections((0, 0, 9.1, 9, 0.9, 1)), evaluate)[1] == 2           # another place
    assert match_detections(detections(cat, (5, 5, 6, 6, 0.1005, 1)), detections(cat), evaluate)[1] == 0     # at the threshold
    weak = (5, 5, 6, 6, 0.3, 1), (6, 6, 7, 7, 0.3005, 1)
    assert match_detections(detections(cat, dog, weak[0]), detections(cat, dog, weak[1]), evaluate)[1] == 0  # in place of each other
    assert match_detections(detections(), detections(), evaluate)[0].shape == (0, 2)
    assert match_detections(detections(cat), detections(), evaluate)[1] == 1
