"""NanGuard finds the step whose loss is not finite, and hands on what is known of the step."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detector.errors import NotFinite
from detector.structures import build_dataset
from detector.training.nan_guard import NanGuard, raise_not_finite
from detector.training.step import StepResult

CPU = torch.device("cpu")
NAMES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
GOOD = torch.tensor([0.1, 0.2, 0.0, 3.0])


def result(losses: torch.Tensor) -> StepResult:
    return StepResult(NAMES, losses, torch.tensor(2.5))


def losses_with(value: float, index: int) -> torch.Tensor:
    losses = GOOD.clone()
    losses[index] = value
    return losses


def test_without_steps_nothing_is_found():
    assert NanGuard(CPU).poll() is None


def test_finite_losses_pass_however_large():
    guard = NanGuard(CPU)
    for losses in (GOOD, torch.zeros(4), torch.full((4,), 3e38), -GOOD):
        guard.watch(result(losses), {"step": 1})
        assert guard.poll() is None


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_bad_loss_is_enough_and_is_named(value, index):
    guard = NanGuard(CPU)
    guard.watch(result(losses_with(value, index)), {"step": 7, "lr": 0.1, "images": [3, 4]})
    details = guard.poll()
    assert (details["step"], details["lr"], details["images"], details["gradient_norm"]) == (7, 0.1, [3, 4], 2.5)
    assert list(details["losses"]) == list(NAMES)
    assert [name for name, loss in details["losses"].items() if not math.isfinite(loss)] == [NAMES[index]]
    assert guard.poll() is None  # reported once


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_found_before_its_weights_are_saved(norm):
    guard, scaled = NanGuard(CPU), NanGuard(CPU, has_loss_scale=True)
    for each in (guard, scaled):
        each.watch(StepResult(NAMES, GOOD, torch.tensor(norm)), {"step": 7})
    assert guard.poll()["step"] == 7
    assert scaled.poll() is None, "a loss scale that is too large: the step was left out"


def test_of_several_steps_the_first_bad_one_is_reported():
    guard = NanGuard(CPU)
    for step, losses in enumerate((GOOD, losses_with(math.nan, 0), losses_with(math.inf, 1))):
        guard.watch(result(losses), {"step": step})
    assert guard.poll()["step"] == 1


@pytest.mark.parametrize("details, step, images", [
    ({"step": 7, "images": [1], "losses": {"loss": math.nan}, "gradient_norm": 1.0}, 7, ["/data/b.jpg"]),
    ({"step": 7, "images": [1], "losses": {"loss": 1.0}, "gradient_norm": math.inf}, 7, ["/data/b.jpg"]),
    (None, 8, [])])
def test_every_rank_writes_what_it_knows_and_raises(details, step, images, tmp_path):
    culprit = "gradient" if details and details["losses"]["loss"] == 1.0 else "loss"
    data = build_dataset("pets", "/data", ["cat"], [1], [("a.jpg", 1, 9, 9), ("b.jpg", 2, 9, 9)], np.zeros((0, 8)))
    with pytest.raises(NotFinite, match=f"the {culprit} is not finite at step {step}.*optim.grad_clip_norm"):
        raise_not_finite(details, 8, data, SimpleNamespace(get_scale=lambda: 1024.0), tmp_path)
    written = json.loads((tmp_path / "not-finite-rank0.json").read_text())
    assert (written["step"], written["images"], written["amp_scale"]) == (step, images, 1024.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_a_step_is_known_one_step_later_or_when_waited_for():
    guard, gpu = NanGuard(torch.device("cuda")), torch.device("cuda")
    guard.watch(result(losses_with(math.nan, 2).to(gpu)), {"step": 0})
    assert guard.poll() is None
    guard.watch(result(GOOD.to(gpu)), {"step": 1})
    assert guard.poll()["step"] == 0
    guard.watch(result(losses_with(math.inf, 3).to(gpu)), {"step": 2})
    assert guard.poll(wait=True)["step"] == 2


def test_the_newest_known_losses_are_kept_for_the_terminal():
    guard = NanGuard(CPU)
    assert guard.latest == {}
    guard.watch(result(GOOD), {"step": 0})
    guard.poll()
    assert guard.latest == pytest.approx(dict(zip(NAMES, [0.1, 0.2, 0.0, 3.0])))
