"""The fingerprint of a data set: moved data has the same, and every change of images, sizes or boxes is told as what it is."""

import re
from dataclasses import replace

import numpy as np
import pytest

from detector.data.fingerprint import describe_change, fingerprint
from detector.structures import Dataset, build_dataset, select_images


def dataset(paths=("train/a.jpg", "train/b.jpg", "train/long name.jpg"), boxes=((0, 1, 5), (2, 2, 7))) -> Dataset:
    images = [(path, number, 40, 60) for number, path in enumerate(paths)]
    objects = np.array([[image, label, 0, 9, 0, 0, x2, 8] for image, label, x2 in boxes])
    return build_dataset("train", "/data", ["cat", "dog"], [1, 2], images, objects)


def test_moved_data_has_the_same_fingerprint():
    before = fingerprint(dataset())
    assert before["images"] == 3 and before["objects"] == 2
    for folder in ("", "images/", "/new/disk/train/"):
        assert fingerprint(dataset([folder + name for name in ("a.jpg", "b.jpg", "long name.jpg")])) == before
    assert fingerprint(replace(dataset(), root="/elsewhere", name="other", warnings=("one",))) == before
    padded = dataset(("a.jpg", "b.jpg", "long name.jpg", "one with a much longer name.jpg"))
    assert fingerprint(select_images(padded, np.arange(4) < 3)) == before


def test_no_image_and_one_image_have_fingerprints():
    assert fingerprint(dataset(("/x/a.jpg",), ())) == fingerprint(dataset(("a.jpg",), ()))
    assert fingerprint(dataset((), ()))["images"] == 0


@pytest.mark.parametrize("changed, words", [
    (dataset(("a.jpg", "b.jpg", "c.jpg")),
     "still 3 images with 2 objects, but other images, or the same in another order; the batches hold other images"),
    (dataset(("b.jpg", "a.jpg", "long name.jpg")), "still 3 images .* in another order"),
    (dataset(("a.jpg", "b.jpg"), ((0, 1, 5),)), "3 images with 2 objects before, 2 images with 1 object now; the batches hold other"),
    (dataset(boxes=((0, 1, 5), (2, 2, 6))), "but other boxes or labels; the batches hold the same images, but the weights will not"),
    (dataset(boxes=((0, 2, 5), (2, 2, 7))), "but other boxes or labels"),
    (dataset(boxes=((0, 1, 5), (1, 2, 7))), "but other boxes or labels"),
    (replace(dataset(), sizes=dataset().sizes + 1), "but images of another size; the batches hold other")])
def test_a_change_is_told_as_what_it_is(changed, words):
    before, now = fingerprint(dataset()), fingerprint(changed)
    assert not describe_change("training", before, before, 7) and not describe_change("training", None, now, 7)
    text = describe_change("training", before, now, 7)
    assert re.search(f"the training data has changed since step 7: .*{words}", text), text


def test_changed_validation_data_is_about_evaluations():
    text = describe_change("validation", fingerprint(dataset()), fingerprint(dataset(("a.jpg",), ())), 7)
    assert "1 image with 0 objects now; evaluations up to now, and the choice of best.pt, are of other data" in text
