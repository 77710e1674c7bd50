"""The micro-batches that a trial tries, from the plan of a run, equal those of a slow loop over the run."""

import numpy as np
import pytest
import torch

from detector.checks.trial import memory_problem, saves_early
from detector.config.schema import Augment, Batch, Config, Evaluate, Model, Optim, Run, Schedule
from detector.data.samplers import aspect_groups, epoch_sizes, micro_batches, plan_epoch
from detector.seeding import numpy_random_state
from detector.structures import build_dataset, round_up, scale_and_size
from detector.training.schedule import plan_run
from detector.training.step import draw_resize
from detector.training.trial_batches import heaviest, plan_eval_trial, plan_trial
from detector.training.trial_step import is_out_of_memory


def pixels_of_all_micro_batches(config: Config, sizes: np.ndarray, plan) -> list[int]:
    """Returns the pixels of every micro-batch of the run, computed one by one."""
    pixels, groups = [], aspect_groups(sizes, plan.global_batch)
    for step in range(plan.total_steps):
        epoch, row = divmod(step, plan.steps_per_epoch)
        images = plan_epoch(config.seed, epoch, sizes, plan.global_batch)[row]
        resize = draw_resize(config, step)
        for columns in micro_batches(plan.global_batch, config.batch.micro_batch_size, 0, 1):
            padded_for = [images[column] for column in columns]
            if config.batch.pad_to == "group":
                padded_for = [image for image in range(len(sizes)) if groups[image] in groups[padded_for]]
            shapes = [scale_and_size(*map(int, sizes[image]), resize)[1] for image in padded_for]
            height, width = (round_up(max(lengths), config.model.size_divisor) for lengths in zip(*shapes))
            pixels.append(height * width * len(columns))
    return pixels


@pytest.mark.parametrize("pad_to", ["batch", "group"])
@pytest.mark.parametrize("min_sizes", [(64,), (48, 64, 96)])
@pytest.mark.parametrize("size, micro_batch_size", [(4, 2), (5, 2), (1, 1)])
@pytest.mark.parametrize("mirrored, max_size, divisor", [(False, 150, 32), (True, 150, 16), (False, 0, 1)])  # 0: no limit
def test_largest_and_median_batch_equal_those_of_a_loop_over_the_plan(pad_to, min_sizes, size, micro_batch_size, mirrored, max_size,
                                                                      divisor):
    sizes = numpy_random_state(1).randint(20, 200, (23, 2)).astype(np.int32)
    data = build_dataset("some", "", ["cat"], [1], [(f"{i}.png", i, *sizes[i]) for i in range(23)], np.zeros((0, 8)))
    config = Config(batch=Batch(size, micro_batch_size, pad_to=pad_to), schedule=Schedule(epochs=2.5),
                    model=Model(size_divisor=divisor),
                    augment=Augment(min_size=min_sizes, max_size=max_size, mirrored_copies=mirrored))
    entries = epoch_sizes(data.sizes, mirrored)
    plan = plan_run(config.batch, Optim(lr=0.02), config.schedule, entries, 0, 1)
    batches = plan_trial(config, data, plan)
    largest, median = batches.largest, batches.median
    pixels = pixels_of_all_micro_batches(config, entries, plan)
    assert largest.height * largest.width * len(largest.keys) == max(pixels)
    assert median.height * median.width * len(median.keys) == sorted(pixels)[len(pixels) // 2]
    assert largest.min_size in min_sizes and largest.step < plan.total_steps
    row = plan_epoch(0, largest.step // plan.steps_per_epoch, entries, plan.global_batch)[largest.step % plan.steps_per_epoch]
    assert {index for _, index in largest.keys} <= set(row.tolist())


def test_of_a_single_image_all_batches_are_the_same():
    data = build_dataset("one", "", ["cat"], [1], [("1.png", 1, 30, 40)], np.zeros((0, 8)))
    config = Config(batch=Batch(1, 1), augment=Augment(min_size=(64,), max_size=128), schedule=Schedule(steps=1))
    plan = plan_run(config.batch, Optim(lr=0.02), config.schedule, data.sizes, 0, 1)
    batches = plan_trial(config, data, plan)
    largest = batches.largest
    assert len({*vars(batches).values()}) == 1 and batches.heaviest == [largest]
    assert (largest.height, largest.width) == (64, 96) and largest.keys == ((0, 0),)


def dense_data(counts: list[int], sides: list[int]):
    """Returns square images with these sides and numbers of objects."""
    objects = [[index, 1, 0, 16, 0, 0, 4, 4] for index, count in enumerate(counts) for _ in range(count)]
    return build_dataset("some", "", ["cat"], [1], [(f"{i}.png", i, side, side) for i, side in enumerate(sides)],
                         np.array(objects, float).reshape(-1, 8))


@pytest.mark.parametrize("max_boxes, objects", [(0, 50), (20, 20)])
def test_the_batch_with_most_objects_is_tried_beside_the_largest(max_boxes, objects):
    data = dense_data([0, 3, 50, 1], [64, 64, 64, 64])
    config = Config(batch=Batch(1, 1), schedule=Schedule(epochs=2), augment=Augment(min_size=(64, 128), max_boxes=max_boxes))
    batches = plan_trial(config, data, plan_run(config.batch, Optim(lr=0.02), config.schedule, data.sizes, 0, 1))
    assert batches.largest.height == 128
    assert batches.most_objects.objects == objects and batches.most_objects.keys[0][1] == 2


def test_copies_of_an_image_have_its_objects():
    data = dense_data([0, 7], [64, 64])
    config = Config(batch=Batch(2, 2), schedule=Schedule(epochs=1),
                    augment=Augment(min_size=(64,), mirrored_copies=True))
    sizes = epoch_sizes(data.sizes, True)
    batches = plan_trial(config, data, plan_run(config.batch, Optim(lr=0.02), config.schedule, sizes, 0, 1))
    assert {batch.objects for batch in vars(batches).values()} == {7}


def test_a_batch_that_is_second_by_pixels_and_by_objects_may_need_most_memory():
    areas, counts = np.array([100, 95, 20]), np.array([0, 900, 5000])
    assert heaviest(areas, counts) == (0, 2, 1)


def test_an_evaluation_is_tried_on_its_largest_batch_and_that_with_most_objects():
    data = dense_data([0, 0, 4000, 0], [64, 300, 64, 64])
    config = Config(evaluate=Evaluate(batch_size=1, min_size=64, max_size=0))
    assert [2] in [batch.tolist() for batch in plan_eval_trial(config, data)]
    assert [batch.tolist() for batch in plan_eval_trial(config, dense_data([0], [64]))] == [[0]]


@pytest.mark.parametrize("save_every, evaluates, early", [(500, False, False), (2, False, True), (500, True, True)])
def test_a_checkpoint_is_copied_beside_later_steps_only(save_every, evaluates, early):
    data = dense_data([1] * 4, [64] * 4)
    config = Config(batch=Batch(1, 1), schedule=Schedule(epochs=2), run=Run(save_every_steps=save_every),
                    evaluate=Evaluate(every_epochs=1))
    plan = plan_run(config.batch, Optim(lr=0.02), config.schedule, data.sizes, 0, 1)
    assert saves_early(config, plan, data if evaluates else None) is early


def test_a_lack_of_memory_names_the_batch_and_how_to_shrink_it():
    data = dense_data([900], [64])
    config = Config(batch=Batch(1, 1), augment=Augment(min_size=(64,)), schedule=Schedule(steps=1))
    batch = plan_trial(config, data, plan_run(config.batch, Optim(lr=0.02), config.schedule, data.sizes, 0, 1)).largest
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    assert is_out_of_memory(error) and not is_out_of_memory(RuntimeError("shapes differ"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    problem = memory_problem(config, batch, torch.device("cpu"), error)
    assert "900 objects" in problem.subject and "augment.max_boxes=500" in problem.remedy
    assert "evaluate.batch_size=1" in memory_problem(config, None, torch.device("cpu"), error).remedy
