"""Tensors are found in files of every usual layout."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from detector.config.model_schema import Model
from detector.errors import BadInput
from detector.model.weights.files import read_weights
from detector.model.weights.name_maps import to_model_names

STATE, AVERAGED = {"a": torch.ones(2)}, {"a": torch.zeros(2)}


@pytest.mark.parametrize("content, expected", [
    ({"model_state_dict": STATE, "optimizer_state_dict": {"state": {}}, "epoch": 3}, STATE),  # as PyTorch's tutorial saves
    ({"module": STATE, "optimizer": None}, STATE), ({"state_dict": {"model": STATE}}, STATE),
    ({"model": STATE, "ema": AVERAGED}, AVERAGED), ({"model": STATE, "ema": {"module": AVERAGED, "updates": 7}}, AVERAGED),
    ({"model": STATE, "ema": {"decay": 0.999, "updates": 7}}, STATE), ({"model": STATE, "ema": {}}, STATE),
    ({"model": STATE, "ema": None}, STATE), ({"ema": {"decay": 0.999}, "state_dict": STATE}, STATE), ({"ema": AVERAGED}, AVERAGED)])
def test_tensors_lie_below_the_keys_of_other_programs(content, expected, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    stored = read_weights(str(tmp_path / "w.pth")).tensors
    assert list(stored) == ["a"] and torch.equal(stored["a"], expected["a"])


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": {"a": 1}}, {"epoch": 3}, [STATE], {"ema": {"decay": 0.9}}])
def test_a_file_without_tensors_is_told_how_to_save_them(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=r"w.pth: a dict of tensors expected, .*model_state_dict.* Save it by torch.save\("):
        read_weights(str(tmp_path / "w.pth"))


class Wrapper(nn.Module):
    """A model inside a module, such as one of Lightning."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model


class Detector(nn.Module):
    """The names of a detector at two places, with few numbers."""

    def __init__(self):
        super().__init__()
        self.backbone, self.rpn = nn.Linear(2, 2), nn.Linear(2, 1)


@pytest.mark.parametrize("wrap", [
    lambda model: model, nn.DataParallel, torch.compile, Wrapper, AveragedModel, lambda model: nn.DataParallel(torch.compile(model)),
    lambda model: torch.compile(nn.DataParallel(model)), lambda model: Wrapper(torch.compile(model)),
    lambda model: AveragedModel(Wrapper(model)), lambda model: Wrapper(AveragedModel(model)), lambda model: Wrapper(Wrapper(model))])
def test_the_names_are_those_inside_every_wrapper(wrap):
    model = Detector()
    renamed = to_model_names(wrap(model).state_dict(), Model())
    assert list(renamed) == list(model.state_dict())
    assert all(torch.equal(renamed[key], value) for key, value in model.state_dict().items())


def test_a_part_that_was_compiled_alone_keeps_its_place():
    model = Detector()
    names = list(model.state_dict())
    model.backbone = torch.compile(model.backbone)
    assert set(to_model_names(model.state_dict(), Model())) == set(names) != set(model.state_dict())


def test_a_prefix_of_some_names_is_no_wrapper():
    state = {"model.a": torch.ones(1), "rpn.b": torch.ones(1)}
    assert to_model_names(state, Model()) == state and to_model_names({}, Model()) == {}
