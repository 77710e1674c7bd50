"""`from detector import load`: every kind of image in, boxes with names out."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPO
from PIL import Image

from detector import load
from detector.errors import BadInput
from detector.inference.predictor import pixels_of


@pytest.fixture
def detect(untrained_run):
    return load(untrained_run, device="cpu")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (40, 56, 3)).astype(np.uint8)


def test_importing_the_package_does_not_import_torch():
    code = "import sys; from detector import load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0


def test_an_image_in_any_form_gives_the_same(detect, pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels,
             torch.from_numpy(pixels).permute(2, 0, 1)]
    alone = [detect(form, score=0.0) for form in forms]
    for found in [*alone, *detect(forms, score=0.0)]:
        assert len(found) == len(alone[0]) > 0
        np.testing.assert_allclose(found.boxes, alone[0].boxes, atol=0.01)
        np.testing.assert_allclose(found.scores, alone[0].scores, atol=1e-4)
        assert found.names == tuple("cat" if label == 1 else "dog" for label in found.labels)


def test_a_list_gives_a_list_in_its_order_and_an_empty_one_an_empty_one(detect, pixels):
    images = [pixels, pixels[:, :20], pixels[:10], pixels]
    found = detect(images, score=0.0)
    for one, image in zip(found, images, strict=True):
        assert one.boxes[:, 2].max() <= image.shape[1] + 0.01 and one.boxes[:, 3].max() <= image.shape[0] + 0.01
    np.testing.assert_array_equal(found[0].labels, found[3].labels)
    assert detect([]) == []


def test_the_score_is_the_least_that_comes(detect, pixels):
    everything = detect(pixels, score=0.0)
    middle = float(np.sort(everything.scores)[len(everything) // 2])
    some = detect(pixels, score=middle)
    assert len(some) == (everything.scores >= middle).sum() < len(everything)
    none = detect(pixels, score=1.0)
    assert len(none) == 0 and none.boxes.shape == (0, 4) and none.names == () and repr(none) == "0 objects"


def test_it_reads_well(detect, pixels):
    assert "resnet18_fpn, step 7" in repr(detect) and "cat, dog" in repr(detect)
    found = detect(pixels, score=0.0)
    first = repr(found).splitlines()
    assert first[0] == f"{len(found)} objects" and f"{found.names[0]} {found.scores[0]:.2f} at" in first[1]


def test_grey_pictures_become_three_channels():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert torch.equal(pixels_of(grey), pixels_of(Image.fromarray(grey)))
    assert pixels_of(grey).shape == (3, 2, 3)


@pytest.mark.parametrize("image, said", [
    (np.zeros((4, 5, 4), np.uint8), r"uint8 \[4, 5, 4\]"), (np.zeros((4, 5, 3)), "float64"), (7, "int is no image"),
    (np.zeros((0, 5, 3), np.uint8), "no image"), (torch.zeros(3, 4, 5), "float32"), ("none.jpg", "no such image")])
def test_what_is_no_image_is_bad_input(image, said):
    with pytest.raises(BadInput, match=said):
        pixels_of(image)


def test_no_such_run_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no such run folder"):
        load(tmp_path / "none")
