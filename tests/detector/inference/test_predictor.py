"""`from detector import load`: accepts every kind of image, returns boxes with class names."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPO
from PIL import Image

from detector import load
from detector.errors import BadInput
from detector.inference.predictor import to_image_tensor


@pytest.fixture
def detect(untrained_run):
    return load(untrained_run, device="cpu")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (40, 56, 3)).astype(np.uint8)


def test_importing_the_package_does_not_import_torch():
    code = "import sys; from detector import load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0


def test_every_kind_of_image_has_the_same_detections(detect, pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels,
             torch.from_numpy(pixels).permute(2, 0, 1)]
    single = [detect(form, score=0.0) for form in forms]
    for detections in [*single, *detect(forms, score=0.0)]:
        assert len(detections) == len(single[0]) > 0
        np.testing.assert_allclose(detections.boxes, single[0].boxes, atol=0.01)
        np.testing.assert_allclose(detections.scores, single[0].scores, atol=1e-4)
        assert detections.names == tuple("cat" if label == 1 else "dog" for label in detections.labels)


def test_a_list_returns_a_list_in_its_order_and_an_empty_list_an_empty_one(detect, pixels):
    images = [pixels, pixels[:, :20], pixels[:10], pixels]
    results = detect(images, score=0.0)
    for detections, image in zip(results, images, strict=True):
        assert detections.boxes[:, 2].max() <= image.shape[1] + 0.01
        assert detections.boxes[:, 3].max() <= image.shape[0] + 0.01
    np.testing.assert_array_equal(results[0].labels, results[3].labels)
    assert detect([]) == []


def test_only_detections_of_the_minimum_score_are_returned(detect, pixels):
    everything = detect(pixels, score=0.0)
    middle = float(np.sort(everything.scores)[len(everything) // 2])
    upper = detect(pixels, score=middle)
    assert len(upper) == (everything.scores >= middle).sum() < len(everything)
    for score in (50, -0.1, float("nan")):
        with pytest.raises(BadInput, match="a score is from 0 to 1"):
            detect(pixels, score=score)
    none = detect(pixels, score=1.0)
    assert len(none) == 0 and none.boxes.shape == (0, 4) and none.names == () and repr(none) == "0 objects"


def test_the_repr_of_predictor_and_detections(detect, pixels):
    assert "resnet18_fpn, step 7" in repr(detect) and "cat, dog" in repr(detect)
    detections = detect(pixels, score=0.0)
    lines = repr(detections).splitlines()
    assert lines[0] == f"{len(detections)} objects"
    assert f"{detections.names[0]} {detections.scores[0]:.2f} at" in lines[1]


def test_grey_images_become_three_channels():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert torch.equal(to_image_tensor(grey), to_image_tensor(Image.fromarray(grey)))
    assert to_image_tensor(grey).shape == (3, 2, 3)


@pytest.mark.parametrize("image, message", [
    (np.zeros((4, 5, 5), np.uint8), r"uint8 \[4, 5, 5\]"), (np.zeros((4, 5, 3), complex), "complex128"), (7, "int is no image"),
    (np.zeros((0, 5, 3), np.uint8), "no image"), (torch.zeros(0, 3, 4, 5), "float32"), ("none.jpg", "no such image"),
    (torch.full((3, 4, 5), -1.5), "range from -1.5 to -1.5"), (np.full((4, 5), np.nan), "NaN"), (torch.zeros(3, 0, 5), "no image"),
    *[(Image.new(mode, size), f"mode {mode}, {size[0]}x{size[1]} pixels: it has no pixels. Pass an image of 1x1 pixels or more")
      for mode, size in (("RGB", (0, 5)), ("L", (5, 0)), ("F", (0, 0)))]])
def test_a_value_that_is_no_image_is_bad_input(image, message):
    with pytest.raises(BadInput, match=message):
        to_image_tensor(image)


def test_a_folder_is_no_image_and_the_error_says_what_to_pass(tmp_path):
    with pytest.raises(BadInput, match="is a folder: pass a list of its images, or run `fleet-rcnn predict`"):
        to_image_tensor(tmp_path)


def test_an_array_that_may_not_be_written_is_read_without_a_warning(pixels, recwarn):
    pixels.flags.writeable = False
    assert to_image_tensor(pixels).shape == (3, 40, 56) and not recwarn.list


def test_without_a_gpu_the_error_names_an_argument_of_load(untrained_run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(BadInput, match="no GPU that PyTorch can use; name the device cpu or auto"):
        load(untrained_run, device="cuda")


def test_no_such_run_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no such run folder"):
        load(tmp_path / "none")
