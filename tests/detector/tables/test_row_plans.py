"""The rows' configs give the steps per epoch and the learning rate of every epoch of the published tables."""

import numpy as np
import pytest

from detector.config.load import load_config
from detector.data.samplers import epoch_sizes
from detector.tables.published import leading_number, read_published_rows, select_rows
from detector.training.schedule import learning_rate, plan_run

# images that a row trains on: VOC 2007 trainval; COCO 2014 with annotations; Visual Genome (inferred)
IMAGES = {"voc07": 5011, "coco800": 117266, "coco600": 117266, "vg2500": 97224}
# row -> steps per epoch, total steps, and (last epoch, learning rate) of each stage, as in the original's logs and checkpoints
PLANS = {
    "voc07-vgg16-g1-b1": (10022, 60132, [(5, 1e-3), (6, 1e-4)]),
    "voc07-vgg16-g1-b4": (2505, 22545, [(8, 4e-3), (9, 4e-4)]),
    "voc07-vgg16-g8-b16": (626, 6260, [(8, 1e-2), (10, 1e-3)]),
    "voc07-vgg16-g8-b24": (417, 4587, [(10, 1e-2), (11, 1e-3)]),
    "voc07-res101-g1-b1": (10022, 70154, [(5, 1e-3), (7, 1e-4)]),
    "voc07-res101-g1-b4": (2505, 25050, [(8, 4e-3), (10, 4e-4)]),
    "voc07-res101-g8-b16": (626, 6260, [(8, 1e-2), (10, 1e-3)]),
    "voc07-res101-g8-b24": (417, 5004, [(10, 1e-2), (12, 1e-3)]),
    "coco800-vgg16-g8-b16": (14658, 87948, [(4, 1e-2), (6, 1e-3)]),
    "coco800-res101-g8-b16-e6": (14658, 87948, [(4, 1e-2), (6, 1e-3)]),
    "coco800-res101-g8-b16-e10": (14658, 146580, [(4, 1e-2), (9, 1e-3), (10, 1e-4)]),
    "coco600-res101-g8-b24-e6": (9772, 58632, [(4, 1e-2), (6, 1e-3)]),
    "coco600-res101-g8-b24-e10": (9772, 97720, [(4, 1e-2), (9, 1e-3), (10, 1e-4)]),
    "vg2500-vgg16-g1-b4": (48612, 972240, [(5, 1e-3), (11, 1e-4), (17, 1e-5), (20, 1e-6)])}


def plan_of(row: str, processes: int = 1):
    config = load_config(f"tables/{row}")
    state = np.random.RandomState(0)
    sizes = state.randint(200, 600, (IMAGES[row.split("-")[0]], 2)).astype(np.int32)
    sizes = epoch_sizes(sizes, config.augment.mirrored_copies)
    return config, plan_run(config.batch, config.optim, config.schedule, sizes, 0, processes)


def test_there_is_a_plan_for_every_published_row():
    assert list(PLANS) == [row.row for row in read_published_rows() if row.table != "Further rows"]


@pytest.mark.parametrize("row", PLANS)
def test_steps_and_the_learning_rate_of_every_epoch_are_those_of_the_table(row):
    config, plan = plan_of(row)
    steps, total, stages = PLANS[row]
    assert (plan.steps_per_epoch, plan.total_steps) == (steps, total)
    expected = [lr for (last, lr), (before, _) in zip(stages, [(0, 0), *stages]) for _ in range(last - before)]
    assert len(expected) * steps == total
    for epoch, lr in enumerate(expected):
        for step in (epoch * steps, epoch * steps + 1, (epoch + 1) * steps - 1):
            assert learning_rate(step, plan, config.schedule) == pytest.approx(lr, rel=1e-9), f"epoch {epoch + 1}"


@pytest.mark.parametrize("row", PLANS)
def test_the_config_holds_the_printed_settings(row):
    printed, = select_rows(read_published_rows(), row)
    config, plan = plan_of(row)
    assert plan.global_batch == leading_number(printed.batch) and plan.lr == pytest.approx(leading_number(printed.lr))
    assert config.schedule.epochs == leading_number(printed.epochs) and config.schedule.period == leading_number(printed.lr_decay)
    assert config.schedule.warmup_steps == 0 and config.schedule.lr_schedule == "periodic"
    assert config.batch.micro_batch_size * int(leading_number(printed.gpus)) == config.batch.size
    min_size = int(printed.table.rsplit(" ", 1)[1])
    assert config.augment.min_size == (min_size,) and config.evaluate.min_size == min_size
    assert config.model.inclusive_boxes and config.batch.aspect_ratio_groups == "static", "recipe/original is the base"
    assert config.evaluate.every_epochs == 0, "no checkpoint is selected by the test images"


@pytest.mark.parametrize("row, processes", [("voc07-res101-g8-b16", 8), ("voc07-res101-g8-b16", 1), ("vg2500-vgg16-g1-b4", 4)])
def test_the_steps_do_not_depend_on_the_number_of_gpus(row, processes):
    assert plan_of(row, processes)[1].total_steps == PLANS[row][1]


@pytest.mark.parametrize("backbone, roi, decay, bias, clip", [("vgg16", 256, 5e-4, 2, 10), ("res101", 128, 1e-4, 1, 0)])
def test_optimizer_and_sampling_of_each_backbone(backbone, roi, decay, bias, clip):
    for row in (row for row in PLANS if backbone in row):
        config = load_config(f"tables/{row}")
        optim = config.optim
        assert (config.model.roi.batch_size_per_image, optim.weight_decay) == (roi, decay)
        assert (optim.bias_lr_factor, optim.grad_clip_norm) == (bias, clip)
        assert optim.momentum == 0.9 and not optim.weight_decay_bias and config.model.norm == "frozen"


@pytest.mark.parametrize("start, sizes, proposals, boxes", [
    ("voc07", (128, 256, 512), 300, 20), ("coco600", (64, 128, 256, 512), 300, 50),
    ("coco800", (64, 128, 256, 512), 1000, 50), ("vg2500", (64, 128, 256, 512), 300, 50)])
def test_anchors_proposals_and_boxes_of_each_table(start, sizes, proposals, boxes):
    for row in (row for row in PLANS if row.startswith(start)):
        config = load_config(f"tables/{row}")
        assert config.model.anchor_sizes == (sizes,) and config.model.anchor_ratios == (0.5, 1, 2)
        assert config.model.rpn.post_nms_top_n_eval == proposals and config.augment.max_boxes == boxes
