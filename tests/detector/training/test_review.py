"""The review of a run: objects that are too small for the network's input, runs that are too short."""

import re
from dataclasses import replace

import numpy as np
import pytest

from detector.config.load import load_config
from detector.config.schema import Augment, Batch, Config, Evaluate, Model, Optim, Schedule
from detector.structures import CROWD, Resize, build_dataset
from detector.training import review
from detector.training.review import object_sizes, review_files, review_length, review_object_sizes, review_training
from detector.training.schedule import plan_run


def dataset(sides, height=100, width=200, flags=0, name="coco train", root="root"):
    """Returns one image with a square object of each side."""
    rows = [[0, 1, flags, side * side, 0, 0, side, side] for side in sides]
    return build_dataset(name, str(root), ["cat"], [1], [("a.png", 1, height, width)], np.array(rows, float).reshape(-1, 8))


def config(min_size=100, max_size=0, backbone="resnet18_fpn", **options) -> Config:
    return Config(augment=Augment(min_size=(min_size,), max_size=max_size), model=Model(backbone=backbone),
                  **{"evaluate": Evaluate(min_size=min_size), **options})


def plan(config: Config, data):
    return plan_run(config.batch, config.optim, config.schedule, data.sizes, 0, 1)


def apply(config: Config, note: str, tmp_path) -> Config:
    """Returns the config with the options that a note proposes."""
    options = re.findall(r"((?:augment|model)\.\w+=[^\s,;]*(?:,[\[\d][^\s;]*)*)", note)
    assert options
    (tmp_path / "c.yaml").write_text("data: {root: d}")
    loaded = load_config(str(tmp_path / "c.yaml"), [option.rstrip(",") for option in options])
    model = replace(config.model, anchor_sizes=loaded.model.anchor_sizes)
    augment = loaded.augment if any(option.startswith("augment.min_size") for option in options) else config.augment
    return replace(config, model=model, augment=augment)


def test_sizes_are_square_roots_of_areas_after_the_resize():
    assert object_sizes(dataset([10, 20]), Resize(50, 0)).tolist() == [5, 10]
    assert object_sizes(dataset([10, 20]), Resize(100, 100)).tolist() == [5, 10]  # the long side decides
    assert len(object_sizes(dataset([]), Resize(50, 0))) == 0


@pytest.mark.parametrize("backbone, form", [("resnet18_fpn", r"=\[\[20\],\[\d+\],\[\d+\],\[\d+\],\[\d+\]\]"),
                                            ("vgg16", r"=\[\[20,\d+,\d+,\d+,\d+\]\]")])
def test_objects_below_the_smallest_anchor_are_noted_with_anchors_that_are_small_enough(backbone, form, tmp_path):
    options = config(backbone=backbone)
    note, = review_object_sizes(options, dataset([20, 20, 50, 60]))
    assert "2 of 4 objects (50%) are smaller than the smallest anchor, 32 pixels" in note and re.search(form, note)
    anchors = re.sub(r", or resize.*", "", note)
    assert review_object_sizes(apply(options, anchors, tmp_path), dataset([20, 20, 50, 60])) == []


@pytest.mark.parametrize("max_size", [0, 200])
def test_a_larger_input_is_proposed_that_is_large_enough(max_size, tmp_path):
    options = config(max_size=max_size)
    tiny, small = review_object_sizes(options, dataset([5, 50]))
    assert "1 of 2 objects (50%) are smaller than 8 pixels" in tiny and "smallest anchor" in small
    assert not any("than 8 pixels" in note for note in review_object_sizes(apply(options, tiny, tmp_path), dataset([5, 50])))
    larger = re.sub(r"Set smaller anchors.*, or resize", "resize", small)
    assert review_object_sizes(apply(options, larger, tmp_path), dataset([5, 50])) == []


def test_a_zoom_of_the_augmentation_enlarges_objects():
    zoomed = replace(config(), augment=Augment(min_size=(100,), max_size=0, scale_jitter=(2, 2)))
    assert review_object_sizes(config(), dataset([20, 20])) and not review_object_sizes(zoomed, dataset([20, 20]))


def test_crops_and_evaluation_grow_by_the_same_factor():
    augment, evaluate = Augment(min_size=(224,), max_size=224, scale_jitter=(2.5, 2.5)), Evaluate(min_size=560, max_size=560)
    note, = review_object_sizes(replace(config(), augment=augment, evaluate=evaluate), dataset([10, 40], 640, 640))
    assert "resized to augment.min_size=224 and enlarged 2.5 times" in note
    assert note.endswith("augment.min_size=[832] evaluate.min_size=2080 augment.max_size=832 evaluate.max_size=2080")


def test_where_no_input_is_large_enough_tiles_are_proposed():
    notes = review_object_sizes(config(min_size=800), dataset([1, 1], 8000, 8000))
    assert len(notes) == 2 and all("cut the images into tiles" in note.lower() for note in notes)


@pytest.mark.parametrize("data", [dataset([]), dataset([40, 50]), dataset([2], flags=CROWD), dataset([20] + [40] * 99)])
def test_no_objects_large_ones_ignored_ones_and_a_few_small_ones_are_not_noted(data):
    assert review_object_sizes(config(), data) == []


@pytest.mark.parametrize("schedule, size, remedy", [(Schedule(epochs=3), 1, "schedule.epochs=400"),
                                                    (Schedule(steps=3), 2, "schedule.steps=200"),
                                                    (Schedule(epochs=400), 1, ""), (Schedule(steps=200), 2, "")])
def test_a_short_run_is_noted_with_a_length_that_suffices(schedule, size, remedy):
    options = config(schedule=schedule, batch=Batch(size, size), optim=Optim(reference_batch_size=size))
    notes = review_length(options, plan(options, dataset([1])))
    assert len(notes) == bool(remedy) and remedy in "".join(notes)


def test_the_review_has_problems_or_notes():
    options = config(schedule=Schedule(epochs=1), batch=Batch(1, 1))
    data = dataset([20])
    result = review_training(options, data, data, plan(options, data))
    assert result.problems == () and len(result.notes) == 3 and "(by path)" in result.notes[0]
    empty = review_training(options, dataset([]), None, plan(options, data))
    assert len(empty.problems) == 1 and empty.notes == ()


def test_training_compares_the_files_of_moderate_data_sets_only(tmp_path, monkeypatch):
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(b"same")
    train, val = dataset([1], root=tmp_path / "train"), dataset([1], root=tmp_path / "val", name="coco val")
    assert "(by content)" in review_files(train, val)[0] and review_files(train, None) == []
    monkeypatch.setattr(review, "MAX_COMPARED_FILES", 1)
    assert review_files(train, val) == []
