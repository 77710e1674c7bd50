"""The images of each step: equal on every rank, every image at least once, one aspect-ratio group a step."""

import time

import numpy as np
import pytest

from detector.data.samplers import (
    ASPECT_RATIO_EDGES,
    aspect_groups,
    micro_batches,
    plan_epoch,
    plan_eval_batches,
    rank_part,
    steps_per_epoch,
)
from detector.seeding import numpy_random_state
from detector.structures import ceil_div

WORLDS = (1, 2, 3, 5, 8)


def sizes_of(*ratios: float) -> np.ndarray:
    """Images of these ratios of height to width: int32 [I, 2]"""
    return np.array([(round(1000 * ratio), 1000) for ratio in ratios], np.int32).reshape(-1, 2)


def photographs(seed: int, count: int) -> np.ndarray:
    """Sizes like those of COCO: mostly landscape, some upright, a few extreme."""
    state = numpy_random_state(seed)
    usual = np.array([(480, 640), (427, 640), (640, 480), (640, 427), (500, 500), (333, 500), (120, 640), (640, 120)])
    return usual[state.choice(len(usual), count, p=[0.4, 0.25, 0.12, 0.08, 0.07, 0.05, 0.02, 0.01])].astype(np.int32)


CASES = [(photographs(seed, count), batch) for seed, (count, batch) in enumerate(
    [(1, 1), (1, 2), (1, 16), (2, 16), (3, 2), (5, 4), (7, 8), (16, 16), (17, 16), (100, 1), (100, 3), (257, 16),
     (500, 64)])]
IDS = [f"{len(sizes)} images, batch {batch}" for sizes, batch in CASES]


# Groups

def test_the_groups_by_hand():
    #                a third  half  0.6  0.7  1.0  1.2  1.5  1.9  2.0  3.0
    sizes = sizes_of(0.333, 0.5, 0.6, 0.7, 1.0, 1.2, 1.5, 1.9, 2.0, 3.0)  # the edges are 0.5, 0.63, 0.79, 1, 1.26, ...
    assert aspect_groups(sizes, 1).tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 6, 7]


def test_a_landscape_and_the_same_image_upright_are_in_opposite_groups():
    assert ASPECT_RATIO_EDGES == pytest.approx(1 / ASPECT_RATIO_EDGES[::-1])
    assert ASPECT_RATIO_EDGES[3] == 1


@pytest.mark.parametrize("counts, batch, groups", [
    ((4, 5, 4), 4, [[4], [5], [4]]),
    ((3, 5, 4), 4, [[3, 5], [4]]),        # too few join their neighbour
    ((4, 3, 4), 4, [[4], [3, 4]]),
    ((4, 4, 3), 4, [[4], [4, 3]]),        # the last ones join the one before
    ((3, 5, 2), 4, [[3, 5, 2]]),
    ((1, 1, 1), 4, [[1, 1, 1]]),          # all of them are fewer than a batch
    ((0, 9, 0), 4, [[9]]),
    ((1, 0, 1), 1, [[1], [1]]),
    ((0, 0, 0), 4, []),
])
def test_a_group_with_fewer_images_than_a_batch_joins_its_neighbour(counts, batch, groups):
    kinds = np.repeat([0, 1, 2], counts)  # wide, square, tall
    result = aspect_groups(sizes_of(*np.array([0.4, 1.0, 2.5])[kinds]), batch)
    members = [np.bincount(kinds[result == group], minlength=3) for group in np.unique(result)]
    assert [[int(n) for n in row if n] for row in members] == groups


@pytest.mark.parametrize("sizes, batch", CASES, ids=IDS)
def test_a_group_is_a_range_of_shapes_and_has_a_batch_of_images_where_there_are_enough(sizes, batch):
    groups = aspect_groups(sizes, batch)
    order = np.argsort(sizes[:, 0] / sizes[:, 1], kind="stable")
    assert (np.diff(groups[order]) >= 0).all()
    assert np.bincount(groups)[np.unique(groups)].min() >= min(batch, len(sizes))


# The plan of an epoch

@pytest.mark.parametrize("sizes, batch", CASES, ids=IDS)
def test_every_image_is_in_every_epoch_and_no_step_mixes_groups(sizes, batch):
    groups = aspect_groups(sizes, batch)
    for epoch in range(3):
        plan = plan_epoch(7, epoch, sizes, batch)
        assert plan.dtype == np.int64 and plan.shape == (steps_per_epoch(sizes, batch), batch)
        assert set(plan.ravel().tolist()) == set(range(len(sizes)))
        assert all(len(set(groups[row])) == 1 for row in plan)


@pytest.mark.parametrize("sizes, batch", CASES, ids=IDS)
def test_few_images_are_repeated_and_none_twice_in_a_step_where_there_are_enough(sizes, batch):
    plan, groups = plan_epoch(0, 0, sizes, batch), aspect_groups(sizes, batch)
    counts = np.bincount(groups)
    whole_batches = sum(ceil_div(int(count), batch) for count in counts)
    assert plan.size == whole_batches * batch, "each group is filled up to whole batches, and no further"
    if len(sizes) >= batch:
        assert np.bincount(plan.ravel()).max() <= 2
        assert all(len(set(row)) == batch for row in plan.tolist())
    else:  # all images as often as each other, but for one
        assert np.ptp(np.bincount(plan.ravel())) <= 1


def test_batches_without_a_rest_repeat_nothing():
    plan = plan_epoch(0, 0, sizes_of(*[1.0] * 12), 4)
    assert sorted(plan.ravel().tolist()) == list(range(12))


def test_no_images_give_no_steps():
    assert steps_per_epoch(sizes_of(), 4) == 0
    assert plan_epoch(0, 0, sizes_of(), 4).shape == (0, 4)


def test_epochs_and_seeds_differ_and_each_is_the_same_when_asked_again():
    sizes = photographs(1, 50)
    plans = {(seed, epoch): plan_epoch(seed, epoch, sizes, 4).tobytes() for seed in range(4) for epoch in range(4)}
    assert len(set(plans.values())) == 16
    assert all(plan_epoch(seed, epoch, sizes, 4).tobytes() == plan for (seed, epoch), plan in plans.items())


def test_steps_of_all_groups_are_mixed():
    sizes = sizes_of(*[0.4] * 64, *[2.5] * 64)
    wide = [plan_epoch(0, epoch, sizes, 4)[0, 0] < 64 for epoch in range(40)]
    assert 5 < sum(wide) < 35, "an epoch opens with either"


def test_an_image_meets_others_in_another_epoch():
    sizes = sizes_of(*[1.0] * 64)
    batches = [frozenset(row) for epoch in range(3) for row in plan_epoch(0, epoch, sizes, 4).tolist()]
    assert len(set(batches)) == len(batches)


def test_sizes_alone_decide_and_not_how_they_are_stored():
    sizes = photographs(2, 40)
    for kind in (np.int32, np.int64, np.uint16, np.float32):
        assert np.array_equal(plan_epoch(0, 0, sizes.astype(kind), 4), plan_epoch(0, 0, sizes, 4))


def test_an_image_without_width_is_no_division_by_zero():
    assert plan_epoch(0, 0, np.array([[10, 0], [0, 10], [0, 0]], np.int32), 2).shape[1] == 2


def test_the_largest_public_data_set_is_planned_in_under_a_second():
    sizes = np.tile(photographs(0, 1000), (1200, 1))  # 1.2 million images
    cpu_s = []
    for epoch in range(3):
        started_at = time.process_time()
        plan_epoch(0, epoch, sizes, 16)
        cpu_s.append(time.process_time() - started_at)
    assert min(cpu_s) < 1


# Parts of ranks and micro-batches

@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("batch", [1, 2, 7, 8, 16])
def test_the_parts_of_all_ranks_make_up_the_step_at_any_world_size(world, batch):
    plan = plan_epoch(0, 0, photographs(3, 60), batch)
    parts = [rank_part(batch, rank, world) for rank in range(world)]
    assert np.array_equal(np.concatenate([plan[:, columns] for columns in parts], axis=1), plan)
    lengths = [len(columns) for columns in parts]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("per_process", [1, 2, 3, 100])
def test_the_micro_batches_of_all_ranks_make_up_the_step_at_any_world_size(world, per_process):
    plan = plan_epoch(5, 2, photographs(4, 60), 8)
    for step in (0, 3, len(plan) - 1):
        ranks = [micro_batches(8, per_process, rank, world) for rank in range(world)]
        rows = [plan_epoch(5, 2, photographs(4, 60), 8)[step, columns] for ranges in ranks for columns in ranges]
        assert np.concatenate(rows).tolist() == plan[step].tolist()


@pytest.mark.parametrize("size, per_process, ranks", [
    (8, 2, [[[0, 1], [2, 3], [4, 5], [6, 7]]]),
    (8, 2, [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]),
    (8, 2, [[[0, 1]], [[2, 3]], [[4, 5], [6, 7]]]),           # the same micro-batches for three
    (5, 2, [[[0, 1]], [[2, 3], [4]]]), (5, 8, [[[0, 1, 2, 3, 4]]]),
    (5, 8, [[[0, 1]], [[2, 3, 4]]]),                          # fewer micro-batches than ranks: each takes its part
    (3, 2, [[[0]], [[1]], [[2]]]), (1, 1, [[[0]]])])
def test_micro_batches_by_hand(size, per_process, ranks):
    assert [[list(columns) for columns in micro_batches(size, per_process, rank, len(ranks))]
            for rank in range(len(ranks))] == ranks


@pytest.mark.parametrize("size", [1, 2, 7, 8, 16, 33])
@pytest.mark.parametrize("per_process", [1, 2, 3, 100])
def test_micro_batches_do_not_depend_on_the_world_size_and_no_rank_has_more_than_needed(size, per_process):
    alone = micro_batches(size, per_process, 0, 1)
    for world in range(1, size + 1):
        ranks = [micro_batches(size, per_process, rank, world) for rank in range(world)]
        assert all(ranks) and max(map(len, ranks)) == ceil_div(size, per_process * world)
        if world <= len(alone):
            assert [columns for ranges in ranks for columns in ranges] == alone


# Evaluation

@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 50])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_each_image_is_evaluated_exactly_once_by_exactly_one_rank(world, count, batch):
    batches = plan_eval_batches(photographs(5, count), batch)
    images = [image for rank in range(world) for part in batches[rank::world] for image in part.tolist()]
    assert sorted(images) == list(range(count))
    assert all(1 <= len(part) <= batch for part in batches)
    assert len(batches) == ceil_div(count, batch)


def test_the_largest_batch_comes_first():
    sizes = photographs(6, 60)
    pixels = [int(sizes[part, 0].max()) * int(sizes[part, 1].max()) for part in plan_eval_batches(sizes, 4)]
    assert pixels == sorted(pixels, reverse=True)


def test_images_of_like_shape_are_evaluated_together():
    sizes = sizes_of(0.4, 2.5, 1.0, 2.5, 0.4, 1.0)
    assert sorted(sorted(part.tolist()) for part in plan_eval_batches(sizes, 2)) == [[0, 4], [1, 3], [2, 5]]


def test_the_order_of_evaluation_is_the_same_when_asked_again():
    sizes = photographs(7, 30)
    first, second = ([part.tolist() for part in plan_eval_batches(sizes, 4)] for _ in range(2))
    assert first == second
