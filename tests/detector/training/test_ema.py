"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from detector.training.ema import update_ema


@pytest.mark.parametrize("step, decay, weight_of_old", [
    (0, 0.99, 1 / 10), (8, 0.99, 9 / 18), (90, 0.99, 91 / 100), (10_000, 0.99, 0.99), (5, 0.2, 0.2)])
def test_a_young_average_forgets_faster(step, decay, weight_of_old):
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    for tensor in average.state_dict().values():
        tensor.fill_(4)
    for tensor in model.state_dict().values():
        tensor.fill_(8)
    update_ema(average, model, decay, step)
    state = average.state_dict()
    assert state.pop("num_batches_tracked") == 8  # a counter is copied
    assert {name for name in state} == {"weight", "bias", "running_mean", "running_var"}
    for tensor in state.values():
        torch.testing.assert_close(tensor, torch.full((2,), weight_of_old * 4 + (1 - weight_of_old) * 8))
    assert all((tensor == 8).all() for tensor in model.state_dict().values())
