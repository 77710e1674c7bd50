"""Dataset and Detections: selecting and joining flat arrays keeps every row with its image."""

import numpy as np
import pytest

from detector import structures
from detector.structures import (
    CROWD,
    DIFFICULT,
    Detections,
    build_dataset,
    concat_detections,
    select_boxes,
    select_images,
)

IMAGES = [("a.jpg", 11, 100, 200), ("b.jpg", 12, 50, 60), ("ordner/ä.png", 13, 70, 80)]  # path, id, height, width
#           image label flags   area  x1 y1  x2  y2
OBJECTS = [(2, 1, 0, 100, 0, 0, 10, 10),
           (0, 2, CROWD, 55, 1, 2, 3, 4),
           (2, 2, DIFFICULT, 25, 5, 5, 10, 10),
           (0, 1, 0, 8, 0, 0, 2, 4)]


@pytest.fixture
def three():
    """Three images: two objects, none, two."""
    return build_dataset("three", "/data", ["cat", "dog"], [3, 7], IMAGES, np.array(OBJECTS))


def none(images: int = 0):
    return build_dataset("none", "/data", [], [], IMAGES[:images], np.zeros((0, 8)))


def test_objects_in_any_order_are_grouped_by_image(three):
    assert three.offsets.tolist() == [0, 2, 2, 4]
    assert three.boxes.tolist() == [[1, 2, 3, 4], [0, 0, 2, 4], [0, 0, 10, 10], [5, 5, 10, 10]]
    assert three.labels.tolist() == [2, 1, 1, 2]
    assert three.flags.tolist() == [CROWD, 0, 0, DIFFICULT]
    assert three.areas.tolist() == [55, 8, 100, 25]


def test_images_and_classes_are_as_given(three):
    assert len(three) == 3
    assert [three.path(i) for i in range(3)] == ["/data/a.jpg", "/data/b.jpg", "/data/ordner/ä.png"]
    assert three.image_ids.tolist() == [11, 12, 13]
    assert three.sizes.tolist() == [[100, 200], [50, 60], [70, 80]]
    assert three.classes == ("cat", "dog") and three.category_ids.tolist() == [3, 7]


DTYPES = {"category_ids": "int64", "image_ids": "int64", "sizes": "int32", "offsets": "int64", "boxes": "float32",
         "labels": "int32", "flags": "uint8", "areas": "float32"}


def test_every_array_has_the_documented_dtype(three):
    mask = np.array([True, False, True])
    for dataset in (three, none(), none(2), select_images(three, mask), select_images(three, ~mask),
                    select_boxes(three, three.labels == 1), select_boxes(three, three.labels == 9)):
        assert {name: str(getattr(dataset, name).dtype) for name in DTYPES} == DTYPES
        assert dataset.paths.dtype.kind == "S", "one flat array, no Python object for each path"
        assert dataset.boxes.shape == (len(dataset.labels), 4)
        assert dataset.sizes.shape == (len(dataset), 2)
        assert dataset.offsets.shape == (len(dataset) + 1,)


def test_rows_and_counts(three):
    assert [three.rows(i) for i in range(3)] == [slice(0, 2), slice(2, 2), slice(2, 4)]
    assert three.boxes_per_image().tolist() == [2, 0, 2]
    assert three.image_of_box().tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize("images", [0, 1, 3])
def test_no_objects(images):
    dataset = none(images)
    assert len(dataset) == images
    assert dataset.offsets.tolist() == [0] * (images + 1)
    assert dataset.boxes_per_image().tolist() == [0] * images
    assert dataset.image_of_box().tolist() == []
    kept = select_images(dataset, np.zeros(images, bool))
    assert len(kept) == 0 and kept.offsets.tolist() == [0]
    assert len(select_boxes(dataset, np.zeros(0, bool))) == images


@pytest.mark.parametrize("mask", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
def test_keeping_images_keeps_their_objects_and_no_others(three, mask):
    kept = select_images(three, np.array(mask, bool))
    selected = [i for i in range(3) if mask[i]]
    assert kept.image_ids.tolist() == [IMAGES[i][1] for i in selected]
    assert [kept.path(n) for n in range(len(kept))] == [three.path(i) for i in selected]
    assert kept.sizes.tolist() == [list(IMAGES[i][2:]) for i in selected]
    for n, i in enumerate(selected):
        for name in ("boxes", "labels", "flags", "areas"):
            assert getattr(kept, name)[kept.rows(n)].tolist() == getattr(three, name)[three.rows(i)].tolist()


@pytest.mark.parametrize("mask", [(1, 1, 1, 1), (0, 0, 0, 0), (0, 1, 1, 0), (1, 1, 0, 0), (0, 0, 0, 1)])
def test_keeping_objects_keeps_all_images(three, mask):
    kept = select_boxes(three, np.array(mask, bool))
    assert kept.image_ids.tolist() == [11, 12, 13]
    for i in range(3):
        rows = [row for row in range(4)[three.rows(i)] if mask[row]]
        assert kept.boxes[kept.rows(i)].tolist() == three.boxes[rows].tolist()
        assert kept.areas[kept.rows(i)].tolist() == three.areas[rows].tolist()


def test_selecting_does_not_change_the_original(three):
    select_images(three, np.array([False, True, False]))
    select_boxes(three, np.zeros(4, bool))
    assert len(three) == 3 and three.boxes_per_image().tolist() == [2, 0, 2]


@pytest.mark.parametrize("counts, offsets", [([], [0]), ([0], [0, 0]), ([2, 0, 3], [0, 2, 2, 5])])
def test_offsets(counts, offsets):
    computed = structures.offsets_from_counts(np.array(counts, np.int64))
    assert computed.tolist() == offsets and computed.dtype == np.int64


def detections(*image_ids: int) -> Detections:
    count = len(image_ids)
    return Detections(np.array(image_ids, np.int64), np.arange(4 * count, dtype=np.float32).reshape(count, 4),
                      np.linspace(0, 1, count, dtype=np.float32), np.arange(1, count + 1, dtype=np.int32))


def test_detections_are_joined_one_after_another():
    joined = concat_detections([detections(5, 5), detections(), detections(2)])
    assert joined.image_ids.tolist() == [5, 5, 2] and len(joined) == 3
    assert joined.boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]
    assert joined.scores.tolist() == [0, 1, 0]
    assert joined.labels.tolist() == [1, 2, 1]


@pytest.mark.parametrize("parts", [[], [detections()], [detections(), detections()], [detections(1), detections()]])
def test_joined_detections_keep_their_dtypes_even_without_any_row(parts):
    joined = concat_detections(parts)
    assert len(joined) == sum(len(part) for part in parts)
    assert joined.boxes.shape == (len(joined), 4)
    kinds = [str(getattr(joined, name).dtype) for name in ("image_ids", "boxes", "scores", "labels")]
    assert kinds == ["int64", "float32", "float32", "int32"]
