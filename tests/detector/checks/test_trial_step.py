"""The largest canvas that a run contains: found in the plan, equal to what a slow loop over the run sees."""

import numpy as np
import pytest

from detector.checks.trial_step import canvases
from detector.config.schema import Augment, Batch, Config, Model, Optim, Schedule
from detector.data.samplers import aspect_groups, epoch_sizes, micro_batches, plan_epoch
from detector.data.transforms import draw_short_side
from detector.seeding import derive_seed, generator, numpy_random_state
from detector.structures import Resize, build_dataset, scale_and_size
from detector.training.schedule import plan_run


def slowly(config: Config, sizes: np.ndarray, plan) -> list[int]:
    """The pixels of every turn of the run."""
    found, multiple, groups = [], config.model.size_divisor, aspect_groups(sizes, plan.global_batch)
    for step in range(plan.total_steps):
        epoch, row = divmod(step, plan.steps_per_epoch)
        images = plan_epoch(config.seed, epoch, sizes, plan.global_batch)[row]
        short = draw_short_side(config.augment.min_size, generator(derive_seed(config.seed, "side", step)))
        for columns in micro_batches(plan.global_batch, config.batch.micro_batch_size, 0, 1):
            seen = [images[c] for c in columns]
            if config.batch.pad_to == "group":
                seen = [image for image in range(len(sizes)) if groups[image] in groups[seen]]
            shapes = [scale_and_size(*map(int, sizes[image]), Resize(short, config.augment.max_size))[1] for image in seen]
            height, width = (-(-max(side) // multiple) * multiple for side in zip(*shapes))
            found.append(height * width * len(columns))
    return found


@pytest.mark.parametrize("own_or_group", ["own", "group"])
@pytest.mark.parametrize("short_sides", [(64,), (48, 64, 96)])
@pytest.mark.parametrize("size, per_process", [(4, 2), (5, 2), (1, 1)])
@pytest.mark.parametrize("mirrored, long_side, multiple", [(False, 150, 32), (True, 150, 16), (False, 0, 1)])  # 0: no cap
def test_it_is_that_of_the_plan(own_or_group, short_sides, size, per_process, mirrored, long_side, multiple):
    sizes = numpy_random_state(1).randint(20, 200, (23, 2)).astype(np.int32)
    data = build_dataset("some", "", ["cat"], [1], [(f"{i}.png", i, *sizes[i]) for i in range(23)], np.zeros((0, 8)))
    config = Config(batch_size_per_image=Batch(size, per_process, pad_to=own_or_group), schedule=Schedule(epochs=2.5),
                    model=Model(size_divisor=multiple),
                    augment=Augment(min_size=short_sides, max_size=long_side, mirrored_copies=mirrored))
    entries = epoch_sizes(data.sizes, mirrored)
    plan = plan_run(config.batch, Optim(), config.schedule, entries, 0, 1)
    largest, middle = canvases(config, data, plan)
    pixels = slowly(config, entries, plan)
    assert largest.height * largest.width * len(largest.keys) == max(pixels)
    assert middle.height * middle.width * len(middle.keys) == sorted(pixels)[len(pixels) // 2]
    assert largest.min_size in short_sides and largest.step < plan.total_steps
    row = plan_epoch(0, largest.step // plan.steps_per_epoch, entries, plan.global_batch)[largest.step % plan.steps_per_epoch]
    assert {index for _, index in largest.keys} <= set(row.tolist())


def test_one_image_is_its_own_largest_canvas():
    data = build_dataset("one", "", ["cat"], [1], [("1.png", 1, 30, 40)], np.zeros((0, 8)))
    config = Config(batch_size_per_image=Batch(1, 1), augment=Augment(min_size=(64,), max_size=128), schedule=Schedule(steps=1))
    largest, middle = canvases(config, data, plan_run(config.batch, Optim(), config.schedule, data.sizes, 0, 1))
    assert largest == middle and (largest.height, largest.width) == (64, 96) and largest.keys == ((0, 0),)
