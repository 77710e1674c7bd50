"""A loss that is not finite is found in the step it is of, and what is known of the step is handed on."""

import math

import pytest
import torch

from detector.model.faster_rcnn import LOSSES
from detector.training.nan_guard import FiniteCheck

CPU = torch.device("cpu")
GOOD = torch.tensor([0.1, 0.2, 0.0, 3.0])


def losses_with(value: float, place: int) -> torch.Tensor:
    losses = GOOD.clone()
    losses[place] = value
    return losses


def test_nothing_noted_is_nothing_failed():
    assert FiniteCheck(CPU).failed() is None


def test_finite_losses_pass_however_large():
    check = FiniteCheck(CPU)
    for losses in (GOOD, torch.zeros(4), torch.full((4,), 3e38), -GOOD):
        check.note(losses, {"step": 1})
        assert check.failed() is None


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_bad_loss_is_enough_and_is_described_by_name(value, place):
    check = FiniteCheck(CPU)
    check.note(losses_with(value, place), {"step": 7, "rate": 0.1, "images": [3, 4]})
    found = check.failed()
    assert (found["step"], found["rate"], found["images"]) == (7, 0.1, [3, 4])
    assert list(found["losses"]) == list(LOSSES)
    bad = [name for name, loss in found["losses"].items() if not math.isfinite(loss)]
    assert bad == [LOSSES[place]]
    assert check.failed() is None  # told once


def test_of_several_steps_the_first_bad_one_is_told():
    check = FiniteCheck(CPU)
    for step, losses in enumerate((GOOD, losses_with(math.nan, 0), losses_with(math.inf, 1))):
        check.note(losses, {"step": step})
    assert check.failed()["step"] == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_a_step_is_told_one_step_later_or_when_waited_for():
    check, gpu = FiniteCheck(torch.device("cuda")), torch.device("cuda")
    check.note(losses_with(math.nan, 2).to(gpu), {"step": 0})
    assert check.failed() is None
    check.note(GOOD.to(gpu), {"step": 1})
    assert check.failed()["step"] == 0
    check.note(losses_with(math.inf, 3).to(gpu), {"step": 2})
    assert check.failed(wait=True)["step"] == 2
