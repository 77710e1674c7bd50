"""The largest and the median micro-batch of a run, from its plan, equal those of a slow loop over the run."""

import numpy as np
import pytest

from detector.checks.trial_step import largest_and_median_batch
from detector.config.schema import Augment, Batch, Config, Model, Optim, Schedule
from detector.data.samplers import aspect_groups, epoch_sizes, micro_batches, plan_epoch
from detector.data.transforms import draw_min_size
from detector.seeding import derive_seed, generator, numpy_random_state
from detector.structures import Resize, build_dataset, round_up, scale_and_size
from detector.training.schedule import plan_run


def pixels_of_all_micro_batches(config: Config, sizes: np.ndarray, plan) -> list[int]:
    """Returns the pixels of every micro-batch of the run, computed one by one."""
    pixels, groups = [], aspect_groups(sizes, plan.global_batch)
    for step in range(plan.total_steps):
        epoch, row = divmod(step, plan.steps_per_epoch)
        images = plan_epoch(config.seed, epoch, sizes, plan.global_batch)[row]
        min_size = draw_min_size(config.augment.min_size, generator(derive_seed(config.seed, "side", step)))
        resize = Resize(min_size, config.augment.max_size)
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
def test_both_batches_equal_those_of_a_loop_over_the_plan(pad_to, min_sizes, size, micro_batch_size, mirrored, max_size, divisor):
    sizes = numpy_random_state(1).randint(20, 200, (23, 2)).astype(np.int32)
    data = build_dataset("some", "", ["cat"], [1], [(f"{i}.png", i, *sizes[i]) for i in range(23)], np.zeros((0, 8)))
    config = Config(batch=Batch(size, micro_batch_size, pad_to=pad_to), schedule=Schedule(epochs=2.5),
                    model=Model(size_divisor=divisor),
                    augment=Augment(min_size=min_sizes, max_size=max_size, mirrored_copies=mirrored))
    entries = epoch_sizes(data.sizes, mirrored)
    plan = plan_run(config.batch, Optim(), config.schedule, entries, 0, 1)
    largest, median = largest_and_median_batch(config, data, plan)
    pixels = pixels_of_all_micro_batches(config, entries, plan)
    assert largest.height * largest.width * len(largest.keys) == max(pixels)
    assert median.height * median.width * len(median.keys) == sorted(pixels)[len(pixels) // 2]
    assert largest.min_size in min_sizes and largest.step < plan.total_steps
    row = plan_epoch(0, largest.step // plan.steps_per_epoch, entries, plan.global_batch)[largest.step % plan.steps_per_epoch]
    assert {index for _, index in largest.keys} <= set(row.tolist())


def test_of_a_single_image_both_batches_are_the_same():
    data = build_dataset("one", "", ["cat"], [1], [("1.png", 1, 30, 40)], np.zeros((0, 8)))
    config = Config(batch=Batch(1, 1), augment=Augment(min_size=(64,), max_size=128), schedule=Schedule(steps=1))
    plan = plan_run(config.batch, Optim(), config.schedule, data.sizes, 0, 1)
    largest, median = largest_and_median_batch(config, data, plan)
    assert largest == median and (largest.height, largest.width) == (64, 96) and largest.keys == ((0, 0),)
