"""The plan of a run and the learning rate of every step: tables to check by hand."""

from dataclasses import replace

import numpy as np
import pytest

from detector.config.schema import Batch, Optim, Schedule
from detector.errors import BadInput
from detector.training.schedule import learning_rate, plan_run

SIZES = np.full((100, 2), 64, np.int32)  # a hundred square images
OPTIM = Optim(lr=0.02, reference_batch_size=16)
SCHEDULE = Schedule(epochs=4800, milestones=(3200, 4400), warmup_steps=1000, warmup_factor=0.001)


@pytest.mark.parametrize("size, micro_batch_size, world, expected", [
    # global batch, lr, warm-up steps, steps an epoch (100 images); reference: 16 images, lr 0.02, 1000 steps
    (16, 2, 8, (16, 0.02, 1000, 7)),
    (16, 2, 1, (16, 0.02, 1000, 7)),   # fewer processes accumulate: nothing changes
    (32, 2, 8, (32, 0.04, 500, 4)),
    (8, 2, 4, (8, 0.01, 2000, 13)),
    (1, 1, 1, (1, 0.00125, 16000, 100)),
    (0, 2, 8, (16, 0.02, 1000, 7)),    # 0: what the processes hold at once
    (0, 4, 2, (8, 0.01, 2000, 13))])
def test_lr_and_warm_up_follow_the_batch(size, micro_batch_size, world, expected):
    plan = plan_run(Batch(size, micro_batch_size), OPTIM, SCHEDULE, SIZES, 0, world)
    batch, lr, warmup, steps = expected
    assert (plan.global_batch, plan.warmup_steps, plan.steps_per_epoch) == (batch, warmup, steps)
    assert plan.lr == pytest.approx(lr)
    assert plan.total_steps == 4800 * steps
    assert plan.milestones == (3200 * steps, 4400 * steps)  # milestones are epochs


@pytest.mark.parametrize("schedule, warmup, reason", [
    (Schedule(epochs=12, milestones=(8, 11)), 8, " of warm-up, limited to a tenth of the run;"),
    (Schedule(steps=9, milestones=(8, 11)), 0, " of warm-up, limited to a tenth of the run;"),
    (Schedule(epochs=1200, milestones=(100, 800)), 700, " of warm-up, limited by the step at which the learning rate falls;"),
    (Schedule(epochs=1200, milestones=(100,), lr_schedule="cosine"), 840, " of warm-up, limited to a tenth of the run;"),
    (Schedule(epochs=12, milestones=(8,), warmup_steps=8), 8, " of warm-up; 7 steps an epoch"),
    (Schedule(epochs=12, milestones=(8,), warmup_steps=0), 0, " of warm-up; 7 steps an epoch")])
def test_warm_up_is_at_most_a_tenth_of_the_run_and_ends_before_the_lr_falls(schedule, warmup, reason):
    plan = plan_run(Batch(16), OPTIM, schedule, SIZES, 0, 1)
    assert plan.warmup_steps == warmup and reason in plan.summary


@pytest.mark.parametrize("schedule, total", [
    (Schedule(steps=5), 5), (Schedule(epochs=2.5), 18), (Schedule(epochs=0.001), 1), (Schedule(epochs=3, steps=2), 2)])
def test_steps_decide_before_epochs_and_there_is_one_at_least(schedule, total):
    assert plan_run(Batch(16), OPTIM, replace(schedule, milestones=()), SIZES, 0, 1).total_steps == total  # 7 steps an epoch


@pytest.mark.parametrize("size, micro_batch_size, world", [(16, 2, 1), (16, 2, 8), (16, 4, 3), (5, 2, 2), (7, 3, 3), (1, 1, 1)])
def test_each_image_of_a_step_is_taken_once(size, micro_batch_size, world):
    plans = [plan_run(Batch(size, micro_batch_size), OPTIM, SCHEDULE, SIZES, rank, world) for rank in range(world)]
    taken = [column for plan in plans for columns in plan.micro_batches for column in columns]
    assert taken == list(range(size))
    assert all(0 < len(columns) <= micro_batch_size for plan in plans for columns in plan.micro_batches)
    assert len({(plan.summary, plan.lr, plan.total_steps, plan.forward_passes) for plan in plans}) == 1  # all ranks plan the same
    assert plans[0].forward_passes == max(len(plan.micro_batches) for plan in plans)


@pytest.mark.parametrize("size, micro_batch_size, world, expected_start", [
    (16, 2, 8, "a step is 16 images: 8 processes x 2; lr 0.02 x 16/16 = 0.02 after 1000 steps of warm-up; "
               "7 steps an epoch"),
    (16, 4, 2, "a step is 16 images: 2 processes x 8, accumulated over 2 micro-batches of 4; lr 0.02 x 16/16 = 0.02"),
    (16, 16, 1, "a step is 16 images: 1 process x 16; "),
    (32, 2, 1, "a step is 32 images: 1 process x 32, accumulated over 16 micro-batches of 2; lr 0.02 x 32/16 = 0.04 after "
               "500 steps")])
def test_the_summary_describes_a_step(size, micro_batch_size, world, expected_start):
    assert plan_run(Batch(size, micro_batch_size), OPTIM, SCHEDULE, SIZES, 0, world).summary.startswith(expected_start)


def test_more_processes_than_images_are_refused_with_a_remedy():
    with pytest.raises(BadInput, match="batch.size=4 cannot be shared by 8 processes.*at most 4.*batch.size=16"):
        plan_run(Batch(4, 2), OPTIM, SCHEDULE, SIZES, 0, 8)
    assert plan_run(Batch(8, 2), OPTIM, SCHEDULE, SIZES, 7, 8).micro_batches == [range(7, 8)]  # as many is allowed


def plan_of(schedule: Schedule, warmup: int, total: int, milestones: tuple[int, ...] = ()):
    plan = plan_run(Batch(16), Optim(lr=1.0, reference_batch_size=16), schedule, SIZES, 0, 1)
    return replace(plan, warmup_steps=warmup, total_steps=total, milestones=milestones)


def test_warm_up_is_linear_and_ends_at_the_full_lr():
    plan = plan_of(SCHEDULE, warmup=10, total=100)
    lrs = [learning_rate(step, plan, replace(SCHEDULE, warmup_factor=0.1)) for step in range(12)]
    assert lrs == pytest.approx([0.1, 0.19, 0.28, 0.37, 0.46, 0.55, 0.64, 0.73, 0.82, 0.91, 1, 1])
    assert learning_rate(0, plan_of(SCHEDULE, warmup=0, total=100), SCHEDULE) == 1  # none


def test_each_milestone_multiplies_the_lr_by_gamma():
    schedule = replace(SCHEDULE, gamma=0.1)
    plan = plan_of(schedule, warmup=0, total=12, milestones=(8, 11))
    lrs = [learning_rate(step, plan, schedule) for step in range(12)]
    assert lrs == pytest.approx([1] * 8 + [0.1] * 3 + [0.01])
    assert learning_rate(11, replace(plan, milestones=()), schedule) == 1


def test_a_cosine_falls_from_the_full_lr_to_zero():
    schedule = replace(SCHEDULE, lr_schedule="cosine")
    plan = plan_of(schedule, warmup=0, total=12, milestones=(8, 11))  # milestones belong to the other schedule
    lrs = [learning_rate(step, plan, schedule) for step in (0, 4, 6, 8, 12, 13)]
    assert lrs == pytest.approx([1, 3 / 4, 1 / 2, 1 / 4, 0, 0], abs=1e-12)
    warm = replace(plan, warmup_steps=6)
    assert learning_rate(3, warm, replace(schedule, warmup_factor=0)) == pytest.approx(
        0.5 * learning_rate(3, plan, schedule))


# The rule of the published tables: batch, epochs, lr_decay, lr -> lr of each epoch (jwyang/faster-rcnn.pytorch).
PUBLISHED = [
    (1, 6, 5, 1e-3, [1e-3] * 5 + [1e-4]), (4, 9, 8, 4e-3, [4e-3] * 8 + [4e-4]),
    (16, 10, 8, 1e-2, [1e-2] * 8 + [1e-3] * 2), (24, 11, 10, 1e-2, [1e-2] * 10 + [1e-3]),
    (1, 7, 5, 1e-3, [1e-3] * 5 + [1e-4] * 2), (4, 10, 8, 4e-3, [4e-3] * 8 + [4e-4] * 2),
    (24, 12, 10, 1e-2, [1e-2] * 10 + [1e-3] * 2), (16, 6, 4, 1e-2, [1e-2] * 4 + [1e-3] * 2),
    (16, 10, 4, 1e-2, [1e-2] * 4 + [1e-3] * 5 + [1e-4]),
    (4, 20, 5, 1e-3, [1e-3] * 5 + [1e-4] * 6 + [1e-5] * 6 + [1e-6] * 3)]


@pytest.mark.parametrize("size, epochs, decay, lr, expected", PUBLISHED)
def test_the_lr_of_every_epoch_is_that_of_the_published_tables(size, epochs, decay, lr, expected):
    """Checks the first and the last step of each epoch, also against a loop that multiplies as the original does."""
    schedule = Schedule(epochs=epochs, lr_schedule="periodic", period=decay, warmup_steps=0)
    plan = plan_run(Batch(size, 1, aspect_ratio_groups="static"), Optim(lr=lr, reference_batch_size=size), schedule, SIZES, 0, 1)
    assert plan.steps_per_epoch == 100 // size and plan.total_steps == epochs * plan.steps_per_epoch
    slow = lr
    for epoch in range(1, epochs + 1):
        if epoch % (decay + 1) == 0:
            slow *= 0.1
        for step in ((epoch - 1) * plan.steps_per_epoch, epoch * plan.steps_per_epoch - 1):
            assert learning_rate(step, plan, schedule) == pytest.approx(expected[epoch - 1]) == pytest.approx(slow)


def test_static_groups_name_the_images_that_are_never_trained_on():
    plan = plan_run(Batch(24, 2, aspect_ratio_groups="static"), OPTIM, SCHEDULE, SIZES, 0, 2)
    assert plan.steps_per_epoch == 4 and plan.summary.endswith("the 4 widest of 100 images are never trained on")
    assert "never" not in plan_run(Batch(25, 2, aspect_ratio_groups="static"), OPTIM, SCHEDULE, SIZES, 0, 2).summary
    with pytest.raises(BadInput, match="100 images are fewer than one batch"):
        plan_run(Batch(101, 2, aspect_ratio_groups="static"), OPTIM, SCHEDULE, SIZES, 0, 2)
