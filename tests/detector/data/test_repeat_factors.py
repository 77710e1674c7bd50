"""Images of rare classes are drawn more often: as a pure function of seed and epoch, on any number of processes."""

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image

from detector.config.load import load_config
from detector.config.schema import Augment, Batch, Config, Optim, Schedule
from detector.data.dataset import DetectionDataset
from detector.data.repeat_factors import class_factors, describe_repeats, image_factors, repeat_factors
from detector.data.samplers import (
    TrainBatchSampler,
    aspect_groups,
    epoch_sizes,
    micro_batches,
    number_draws,
    plan_epoch,
    steps_per_epoch,
)
from detector.errors import BadInput
from detector.seeding import numpy_random_state
from detector.structures import Dataset, build_dataset
from detector.training.schedule import plan_run

CLASSES = ["person", "dog", "newt"]
USUAL_SIZES = [(480, 640), (427, 640), (640, 480), (500, 500)]


def dataset_of(labels: list[tuple[int, ...]], shapes: list[tuple[int, int]] = USUAL_SIZES, root: str = "") -> Dataset:
    """Returns a data set whose images have objects with these labels; the sizes follow each other in turn."""
    images = [(f"{n}.png", n + 1, *shapes[n % len(shapes)]) for n in range(len(labels))]
    objects = [(n, label, 0, 100, 0, 0, 10, 10) for n, of_image in enumerate(labels) for label in of_image]
    return build_dataset("some", root, CLASSES, [1, 2, 3], images, np.array(objects, float).reshape(-1, 8))


def with_rare(images: int, newts: int) -> Dataset:
    """Returns images with a person each, of which the first `newts` have two newts, too."""
    return dataset_of([(1, 3, 3) if n < newts else (1,) for n in range(images)])


def config_of(threshold: float, **augment) -> Config:
    return Config(batch=Batch(4, 2, repeat_threshold=threshold), augment=Augment(**augment))


# Factors

def test_factors_of_classes_and_images_by_hand():
    data = dataset_of([(1, 1), (1, 2), (1, 3), (), *[(1,)] * 96])  # person in 99 of 100 images, dog and newt in one each
    assert class_factors(data, 0.04).tolist() == pytest.approx([1, 2, 2])
    assert image_factors(data, 0.04).tolist() == pytest.approx([1, 2, 2, 1] + [1] * 96)
    assert class_factors(dataset_of([(1,), (1, 2)]), 0.5).tolist() == [1, 1, 1]  # as frequent as the threshold; none
    assert image_factors(dataset_of([(2, 3)] + [(2,)] * 99), 0.09)[0] == pytest.approx(3)  # the largest of its classes
    assert image_factors(dataset_of([]), 0.1).shape == (0,)


@pytest.mark.parametrize("threshold", [0, 0.001, 0.01])
def test_where_no_class_is_rarer_than_the_threshold_the_plan_is_that_without_repeats(threshold):
    assert repeat_factors(with_rare(100, 1), config_of(threshold)) is None


def test_mirrored_copies_are_repeated_like_their_images():
    factors = repeat_factors(with_rare(100, 4), config_of(0.16, mirrored_copies=True, hflip_prob=0))
    assert factors.tolist() == pytest.approx([2] * 4 + [1] * 96 + [2] * 4 + [1] * 96)


def test_check_and_log_tell_which_classes_are_repeated_how_often():
    data = with_rare(100, 1)
    assert describe_repeats(data, 0) == ""
    assert describe_repeats(data, 0.09) == (
        "batch.repeat_threshold=0.09: 1 of 100 images have rare classes and are drawn more often in each epoch: newt 3 "
        "times (in 1% of the images)")
    assert describe_repeats(data, 0.001) == (
        "batch.repeat_threshold=0.001 repeats no image: the rarest class, newt, is in 1% of the images")
    assert describe_repeats(dataset_of([()]), 0.5).endswith("no class has an object")


def test_fixed_chunks_cannot_repeat_images(config_file):
    with pytest.raises(BadInput, match="batch.repeat_threshold=0.1 with batch.aspect_ratio_groups=static.*=shuffled"):
        load_config(str(config_file), [*TINY, "data.root=/", "batch.repeat_threshold=0.1",
                                       "batch.aspect_ratio_groups=static"])


# The plan of an epoch

CASES = [(with_rare(100, 1), 4, 0.1), (with_rare(100, 7), 16, 0.2), (with_rare(37, 2), 8, 0.9), (with_rare(7, 1), 8, 1.0),
         (with_rare(1, 1), 1, 1.0), (with_rare(300, 3), 1, 0.5)]


@pytest.mark.parametrize("data, batch, threshold", CASES)
def test_every_epoch_has_as_many_steps_and_draws_each_image_as_often_as_its_factor_says(data, batch, threshold):
    factors, groups = image_factors(data, threshold), aspect_groups(data.sizes, batch)
    plans = [plan_epoch(3, epoch, data.sizes, batch, repeat_factors=factors) for epoch in range(200)]
    steps = steps_per_epoch(data.sizes, batch, repeat_factors=factors)
    assert all(plan.shape == (steps, batch) and plan.dtype == np.int64 for plan in plans)
    assert all((groups[plan] == groups[plan[:, :1]]).all() for plan in plans), "no step mixes groups"
    counts = np.stack([np.bincount(plan.ravel(), minlength=len(data)) for plan in plans])
    scaled = factors.copy()  # each group is filled up to whole batches, and no further
    for group in np.unique(groups):
        total = factors[groups == group].sum()
        scaled[groups == group] *= np.ceil(total / batch - 1e-9) * batch / total
    assert (counts >= np.floor(scaled + 1e-9)).all() and (counts <= np.ceil(scaled - 1e-9)).all()
    assert np.abs(counts.mean(axis=0) - scaled).max() < 0.15  # of 200 draws: four standard deviations


@pytest.mark.parametrize("data, batch, threshold", CASES)
def test_the_draws_of_an_image_are_spread_over_the_steps_of_its_group(data, batch, threshold):
    """None is twice in a step unless it is drawn more often than its group has steps."""
    factors, groups = image_factors(data, threshold), aspect_groups(data.sizes, batch)
    for epoch in range(20):
        plan = plan_epoch(0, epoch, data.sizes, batch, repeat_factors=factors)
        steps = np.bincount(groups[plan[:, 0]], minlength=groups.max() + 1)
        most = np.ceil(np.bincount(plan.ravel(), minlength=len(data)) / steps[groups])
        assert all((np.bincount(row, minlength=len(data)) <= most).all() for row in plan)


def test_the_plan_depends_on_seed_and_epoch_and_on_nothing_else():
    data = with_rare(64, 2)
    factors = image_factors(data, 0.5)
    plans = {(seed, epoch): plan_epoch(seed, epoch, data.sizes, 4, repeat_factors=factors).tobytes()
             for seed in range(4) for epoch in range(4)}
    assert len(set(plans.values())) == len(plans)
    assert all(plan_epoch(seed, epoch, data.sizes, 4, repeat_factors=factors.copy()).tobytes() == plan
               for (seed, epoch), plan in plans.items())


def test_no_image_gives_no_step():
    assert steps_per_epoch(np.zeros((0, 2), np.int32), 4, repeat_factors=np.ones(0)) == 0
    assert plan_epoch(0, 0, np.zeros((0, 2), np.int32), 4, repeat_factors=np.ones(0)).shape == (0, 4)


def test_number_draws_counts_the_draws_of_each_entry():
    assert number_draws(np.array([[5, 2], [2, 5], [7, 2]])).tolist() == [[0, 0], [1, 1], [0, 2]]
    assert number_draws(np.zeros((0, 4), np.int64)).shape == (0, 4)


def test_epochs_of_the_schedule_are_epochs_with_repeats():
    data, schedule = with_rare(100, 4), Schedule(epochs=3, milestones=(2.0,), warmup_steps=0)
    factors = repeat_factors(data, config_of(0.36))  # four images thrice: 108 draws
    plan = plan_run(Batch(4, 2), Optim(lr=0.1), schedule, data.sizes, 0, 1, factors)
    assert plan.steps_per_epoch == 28  # of four groups with 27 draws each
    assert (plan.total_steps, plan.milestones) == (84, (56,)) and "28 steps an epoch" in plan.summary


# The keys of a rank

def keys_of(data: Dataset, first: int, last: int, rank: int = 0, world: int = 1, mirrored: bool = False) -> list:
    config = config_of(0.5, mirrored_copies=mirrored, hflip_prob=0)
    sizes, factors = epoch_sizes(data.sizes, mirrored), repeat_factors(data, config)
    return list(TrainBatchSampler(3, sizes, 8, micro_batches(8, 2, rank, world), first, last,
                                  steps_per_epoch(sizes, 8, repeat_factors=factors), repeat_factors=factors))


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_a_resumed_run_goes_on_with_the_same_images_on_any_number_of_processes(world):
    data = with_rare(40, 1)
    steps = steps_per_epoch(data.sizes, 8, repeat_factors=image_factors(data, 0.5))
    total = 2 * steps + 1
    whole = [sum(keys_of(data, step, step + 1), []) for step in range(total)]
    assert sum(whole, []) == sum(keys_of(data, 0, total), [])
    for first in (0, 1, steps - 1, steps, steps + 2, total):
        ranks = [keys_of(data, first, total, rank, world) for rank in range(world)]
        per_step = [len(keys) // max(total - first, 1) for keys in ranks]
        resumed = [sum((sum(keys[count * step:count * (step + 1)], []) for keys, count in zip(ranks, per_step)), [])
                   for step in range(total - first)]
        assert resumed == whole[first:]


@pytest.mark.parametrize("mirrored", [False, True])
def test_each_draw_of_an_image_in_an_epoch_has_a_key_and_an_augmentation_of_its_own(mirrored, tmp_path):
    data = dataset_of([(1, 3)] + [(1,)] * 24, [(12, 16)], str(tmp_path))
    for n in range(len(data)):
        Image.fromarray(numpy_random_state(n).randint(0, 256, (12, 16, 3)).astype(np.uint8)).save(tmp_path / f"{n}.png")
    steps = steps_per_epoch(epoch_sizes(data.sizes, mirrored), 8, repeat_factors=repeat_factors(
        data, config_of(0.5, mirrored_copies=mirrored, hflip_prob=0)))
    keys = sum(keys_of(data, 0, steps, mirrored=mirrored), [])
    assert len(set(keys)) == len(keys)
    drawn = sorted(entry for _, entry in keys if entry % len(data) == 0)  # of the image with the rare class
    entries = (2 if mirrored else 1) * len(data)
    assert len(drawn) >= 3 * entries / len(data) and min(np.bincount(np.array(drawn) % entries)[[0, -1]]) >= 3
    plain = DetectionDataset(data, 0, Augment(hflip_prob=0, mirrored_copies=mirrored))
    for entry in drawn:  # which of them are the mirrored copies
        is_mirrored = entry % entries >= len(data)
        image = plain[(0, 0)][0].flip(-1) if is_mirrored else plain[(0, 0)][0]
        assert torch.equal(plain[(0, entry)][0], image)
    jittered = DetectionDataset(data, 0, Augment(hflip_prob=0, color_jitter_prob=1.0, mirrored_copies=mirrored))
    assert len({jittered[(0, entry)][0].numpy().tobytes() for entry in drawn}) == len(drawn)


# What a rare class gains; tests/whole/test_rare_class.py trains with it

def test_a_class_of_one_percent_is_drawn_as_often_as_its_factor_says():
    data = with_rare(1000, 10)
    shares = []
    for factors in (None, image_factors(data, 0.25)):  # sqrt(0.25 / 0.01): five times
        drawn = np.concatenate([plan_epoch(0, epoch, data.sizes, 16, repeat_factors=factors).ravel() for epoch in range(5)])
        shares.append((drawn < 10).mean())
    assert shares[0] == pytest.approx(0.01, rel=0.2)
    assert shares[1] == pytest.approx(50 / 1040, rel=0.1)
