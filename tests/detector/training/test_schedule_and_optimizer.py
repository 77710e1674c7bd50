"""What a step is, its rate and what decays: tables to check by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from detector.config.schema import Batch, Optim, Schedule
from detector.errors import BadInput
from detector.training.optimizer import build_optimizer, parameter_groups, set_rate, update_average
from detector.training.schedule import learning_rate, plan_run

SIZES = np.full((100, 2), 64, np.int32)  # a hundred square images
OPTIM = Optim(lr=0.02, reference_batch_size=16)
SCHEDULE = Schedule(epochs=12, milestones=(8, 11), warmup_steps=1000, warmup_factor=0.001)


@pytest.mark.parametrize("size, per_process, world, expected", [
    # global batch, rate, warm-up steps, steps an epoch (100 images); reference: 16 images, rate 0.02, 1000 steps
    (16, 2, 8, (16, 0.02, 1000, 7)),
    (16, 2, 1, (16, 0.02, 1000, 7)),   # fewer processes accumulate: nothing changes
    (32, 2, 8, (32, 0.04, 500, 4)),
    (8, 2, 4, (8, 0.01, 2000, 13)),
    (1, 1, 1, (1, 0.00125, 16000, 100)),
    (0, 2, 8, (16, 0.02, 1000, 7)),    # 0: what the processes hold at once
    (0, 4, 2, (8, 0.01, 2000, 13))])
def test_rate_and_warm_up_follow_the_batch(size, per_process, world, expected):
    plan = plan_run(Batch(size, per_process), OPTIM, SCHEDULE, SIZES, 0, world)
    batch, rate, warmup, steps = expected
    assert (plan.global_batch, plan.warmup_steps, plan.steps_per_epoch) == (batch, warmup, steps)
    assert plan.rate == pytest.approx(rate)
    assert plan.total_steps == 12 * steps
    assert plan.milestones == (8 * steps, 11 * steps)  # milestones are epochs


@pytest.mark.parametrize("schedule, total", [
    (Schedule(steps=5), 5), (Schedule(epochs=2.5), 18), (Schedule(epochs=0.001), 1), (Schedule(epochs=3, steps=2), 2)])
def test_steps_decide_before_epochs_and_there_is_one_at_least(schedule, total):
    assert plan_run(Batch(16), OPTIM, schedule, SIZES, 0, 1).total_steps == total  # 7 steps an epoch


@pytest.mark.parametrize("size, per_process, world", [(16, 2, 1), (16, 2, 8), (5, 2, 2), (7, 3, 3), (1, 1, 1)])
def test_each_image_of_a_step_is_taken_once(size, per_process, world):
    plans = [plan_run(Batch(size, per_process), OPTIM, SCHEDULE, SIZES, rank, world) for rank in range(world)]
    taken = [column for plan in plans for columns in plan.micro for column in columns]
    assert taken == list(range(size))
    assert all(0 < len(columns) <= per_process for plan in plans for columns in plan.micro)
    assert len({(plan.sentence, plan.rate, plan.total_steps) for plan in plans}) == 1  # all ranks say the same


@pytest.mark.parametrize("size, per_process, world, said", [
    (16, 2, 8, "a step is 16 images: 8 processes x 2; rate 0.02 x 16/16 = 0.02 after 1000 steps of warm-up; "
               "7 steps an epoch"),
    (16, 4, 2, "a step is 16 images: 2 processes x 8, accumulated over 2 turns of 4; rate 0.02 x 16/16 = 0.02"),
    (16, 16, 1, "a step is 16 images: 1 process x 16; "),
    (32, 2, 1, "a step is 32 images: 1 process x 32, accumulated over 16 turns of 2; rate 0.02 x 32/16 = 0.04 after "
               "500 steps")])
def test_one_sentence_says_what_a_step_is(size, per_process, world, said):
    assert plan_run(Batch(size, per_process), OPTIM, SCHEDULE, SIZES, 0, world).sentence.startswith(said)


def test_more_processes_than_images_are_refused_with_a_remedy():
    with pytest.raises(BadInput, match="batch.size=4 cannot be shared by 8 processes.*at most 4.*batch.size=16"):
        plan_run(Batch(4, 2), OPTIM, SCHEDULE, SIZES, 0, 8)
    assert plan_run(Batch(8, 2), OPTIM, SCHEDULE, SIZES, 7, 8).micro == [range(7, 8)]  # as many is allowed


def plan_of(schedule: Schedule, warmup: int, total: int, milestones: tuple[int, ...] = ()):
    plan = plan_run(Batch(16), Optim(lr=1.0, reference_batch_size=16), schedule, SIZES, 0, 1)
    return replace(plan, warmup_steps=warmup, total_steps=total, milestones=milestones)


def test_warm_up_is_linear_and_ends_at_the_rate():
    plan = plan_of(SCHEDULE, warmup=10, total=100)
    rates = [learning_rate(step, plan, replace(SCHEDULE, warmup_factor=0.1)) for step in range(12)]
    assert rates == pytest.approx([0.1, 0.19, 0.28, 0.37, 0.46, 0.55, 0.64, 0.73, 0.82, 0.91, 1, 1])
    assert learning_rate(0, plan_of(SCHEDULE, warmup=0, total=100), SCHEDULE) == 1  # none


def test_each_milestone_multiplies_the_rate_by_gamma():
    schedule = replace(SCHEDULE, gamma=0.1)
    plan = plan_of(schedule, warmup=0, total=12, milestones=(8, 11))
    rates = [learning_rate(step, plan, schedule) for step in range(12)]
    assert rates == pytest.approx([1] * 8 + [0.1] * 3 + [0.01])
    assert learning_rate(11, replace(plan, milestones=()), schedule) == 1


def test_a_cosine_falls_from_the_rate_to_zero():
    schedule = replace(SCHEDULE, shape="cosine")
    plan = plan_of(schedule, warmup=0, total=12, milestones=(8, 11))  # milestones are the other shape's
    rates = [learning_rate(step, plan, schedule) for step in (0, 4, 6, 8, 12, 13)]
    assert rates == pytest.approx([1, 3 / 4, 1 / 2, 1 / 4, 0, 0], abs=1e-12)
    warm = replace(plan, warmup_steps=6)
    assert learning_rate(3, warm, replace(schedule, warmup_factor=0)) == pytest.approx(
        0.5 * learning_rate(3, plan, schedule))


class Small(nn.Module):
    """One of each: convolution, batch norm, group norm, layer with bias, and parts that do not learn."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn, self.gn = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
        self.frozen_norm = FrozenBatchNorm2d(4)
        self.still = nn.Linear(2, 2).requires_grad_(False)
        self.fc = nn.Linear(4, 2)


@pytest.mark.parametrize("optim, table", [
    # (decay, relative rate) -> names; by default everything decays alike
    (Optim(weight_decay=0.1), {(0.1, 1.0): "conv.weight conv.bias bn.weight bn.bias gn.weight gn.bias fc.weight fc.bias"}),
    (Optim(weight_decay=0.1, weight_decay_norm=0),
     {(0.1, 1.0): "conv.weight conv.bias fc.weight fc.bias", (0.0, 1.0): "bn.weight bn.bias gn.weight gn.bias"}),
    (Optim(weight_decay=0.1, weight_decay_bias=0, bias_lr_factor=2),  # as py-faster-rcnn: biases twice as fast and without decay
     {(0.1, 1.0): "conv.weight bn.weight bn.bias gn.weight gn.bias fc.weight", (0.0, 2.0): "conv.bias fc.bias"}),
    (Optim(weight_decay=0.1, weight_decay_norm=0, weight_decay_bias=0),
     {(0.1, 1.0): "conv.weight fc.weight", (0.0, 1.0): "conv.bias bn.weight bn.bias gn.weight gn.bias fc.bias"})])
def test_groups_by_decay_and_relative_rate(optim, table):
    model = Small()
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = {(group["weight_decay"], group["relative"]): " ".join(names[id(weight)] for weight in group["params"])
              for group in parameter_groups(model, optim)}
    assert groups == table


def test_a_model_that_learns_nothing_has_no_groups():
    assert parameter_groups(Small().requires_grad_(False), Optim()) == []


def test_the_rate_reaches_each_group_with_its_factor():
    model = Small()
    optimizer = build_optimizer(model, Optim(momentum=0.8, weight_decay=0.1, weight_decay_bias=0, bias_lr_factor=2))
    set_rate(optimizer, 0.05)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.1]
    assert all(group["momentum"] == 0.8 for group in optimizer.param_groups)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    before = model.fc.bias.detach().clone(), model.still.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model.fc.bias.detach(), before[0] - 0.1)
    assert torch.equal(model.still.weight, before[1])


@pytest.mark.parametrize("step, decay, share_of_old", [
    (0, 0.99, 1 / 10), (8, 0.99, 9 / 18), (90, 0.99, 91 / 100), (10_000, 0.99, 0.99), (5, 0.2, 0.2)])
def test_the_average_forgets_faster_while_it_is_young(step, decay, share_of_old):
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    for tensor in average.state_dict().values():
        tensor.fill_(4)
    for tensor in model.state_dict().values():
        tensor.fill_(8)
    update_average(average, model, decay, step)
    state = average.state_dict()
    assert state.pop("num_batches_tracked") == 8  # a count is no average
    assert {name for name in state} == {"weight", "bias", "running_mean", "running_var"}
    for tensor in state.values():
        torch.testing.assert_close(tensor, torch.full((2,), share_of_old * 4 + (1 - share_of_old) * 8))
    assert all((tensor == 8).all() for tensor in model.state_dict().values())


def test_fp16_may_skip_the_first_step_and_the_second_is_a_plain_one():
    """The fused step is told of an infinite gradient, leaves the weights alone, and must not remember anything."""
    weight = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(weight.weight)
    optimizer = build_optimizer(weight, Optim(lr=1, momentum=0.9, weight_decay=0))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for gradient in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(weight(torch.full((1, 1), gradient)).sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert weight.weight.item() == -1


# The rule of the published tables: batch, epochs, lr_decay, rate -> rate of each epoch (RECIPE 5).
PUBLISHED = [
    (1, 6, 5, 1e-3, [1e-3] * 5 + [1e-4]), (4, 9, 8, 4e-3, [4e-3] * 8 + [4e-4]),
    (16, 10, 8, 1e-2, [1e-2] * 8 + [1e-3] * 2), (24, 11, 10, 1e-2, [1e-2] * 10 + [1e-3]),
    (1, 7, 5, 1e-3, [1e-3] * 5 + [1e-4] * 2), (4, 10, 8, 4e-3, [4e-3] * 8 + [4e-4] * 2),
    (24, 12, 10, 1e-2, [1e-2] * 10 + [1e-3] * 2), (16, 6, 4, 1e-2, [1e-2] * 4 + [1e-3] * 2),
    (16, 10, 4, 1e-2, [1e-2] * 4 + [1e-3] * 5 + [1e-4]),
    (4, 20, 5, 1e-3, [1e-3] * 5 + [1e-4] * 6 + [1e-5] * 6 + [1e-6] * 3)]


@pytest.mark.parametrize("size, epochs, decay, rate, expected", PUBLISHED)
def test_the_rate_of_every_epoch_is_that_of_the_published_tables(size, epochs, decay, rate, expected):
    """At the first and the last step of each epoch; and a loop that multiplies as the original's does says the same."""
    schedule = Schedule(epochs=epochs, lr_schedule="periodic", period=decay, warmup_steps=0)
    plan = plan_run(Batch(size, 1, aspect_ratio_groups="static"), Optim(lr=rate, reference_batch_size=size), schedule, SIZES, 0, 1)
    assert plan.steps_per_epoch == 100 // size and plan.total_steps == epochs * plan.steps_per_epoch
    slow = rate
    for epoch in range(1, epochs + 1):
        if epoch % (decay + 1) == 0:
            slow *= 0.1
        for step in ((epoch - 1) * plan.steps_per_epoch, epoch * plan.steps_per_epoch - 1):
            assert learning_rate(step, plan, schedule) == pytest.approx(expected[epoch - 1]) == pytest.approx(slow)


def test_static_chunks_say_what_never_trains():
    plan = plan_run(Batch(24, 2, aspect_ratio_groups="static"), OPTIM, SCHEDULE, SIZES, 0, 2)
    assert plan.steps_per_epoch == 4 and plan.sentence.endswith("in which the 4 widest of 100 images never train")
    assert "never" not in plan_run(Batch(25, 2, aspect_ratio_groups="static"), OPTIM, SCHEDULE, SIZES, 0, 2).sentence
    with pytest.raises(BadInput, match="100 images make no whole batch"):
        plan_run(Batch(101, 2, aspect_ratio_groups="static"), OPTIM, SCHEDULE, SIZES, 0, 2)


def test_the_originals_groups_biases_learn_twice_as_fast_and_do_not_decay():
    """VGG16 of the published tables, two steps beside torch's SGD on two groups made by hand; and its clip at 10."""
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    config = Optim(lr=0.1, weight_decay=5e-4, weight_decay_bias=0, bias_lr_factor=2)
    mine = build_optimizer(ours, config)
    other = torch.optim.SGD([{"params": [theirs.weight], "lr": 0.1, "weight_decay": 5e-4},
                             {"params": [theirs.bias], "lr": 0.2, "weight_decay": 0}], momentum=0.9)
    for step in range(2):
        x = torch.randn(4, 3) * 50
        for model, optimizer in ((ours, mine), (theirs, other)):
            optimizer.zero_grad()
            (model(x) ** 2).mean().backward()
            set_rate(mine, 0.1)
            nn.utils.clip_grad_norm_(model.parameters(), 10)
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)
