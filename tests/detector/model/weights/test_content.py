"""Tensors and class names are found in files of every usual layout."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from detector.config.model_schema import Model
from detector.errors import BadInput
from detector.model.weights.content import find_class_names
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


@pytest.mark.parametrize("classes", [
    ["a", "b", "c"], ("a", "b", "c"), ["__background__", "a", "b", "c"], ["background", "a", "b", "c"], {2: "b", 1: "a", 3: "c"},
    {0: "a", 1: "b", 2: "c"}, {"10": "c", "9": "b", "1": "a"}, {0: "__background__", 1: "a", 2: "b", 3: "c"}, {"c": 2, "a": 0, "b": 1},
    {"a": 1, "b": 2, "BG": 0, "c": 3}])
def test_class_names_of_every_form_are_in_the_order_of_the_rows(classes):
    assert find_class_names(classes, {"x.cls_score.bias": torch.ones(4)}) == ["__background__", "a", "b", "c"]
    assert find_class_names(classes, {}) == ["__background__", "a", "b", "c"]


@pytest.mark.parametrize("classes", [None, 3, "abc", [], {}, [1, 2], [["a"]], {1: 2}, {"a": "b"}, {"a": 0, "b": 0}, {"1": "a", 1: "b"},
                                     {1, 2}, torch.ones(2), {"a": [1]}, {1: ["a"]}])
def test_what_is_no_list_of_class_names_is_passed_over(classes, tmp_path):
    assert find_class_names(classes, STATE) == []


def test_a_number_as_classes_does_not_stop_the_reading_of_a_file(tmp_path):
    for classes in (None, 3, "abc"):
        torch.save({"model": STATE, "classes": classes}, tmp_path / "w.pth")
        assert read_weights(str(tmp_path / "w.pth")).class_names == []


def test_an_object_that_is_called_background_is_a_class_where_the_rows_say_so():
    names = ["background", "a"]
    assert find_class_names(names, {"cls_score.bias": torch.ones(3)}) == ["__background__", "background", "a"]
    assert find_class_names(names, {"cls_score.bias": torch.ones(2)}) == ["__background__", "a"]


@pytest.mark.parametrize("labels, expected", [('{"2": "b", "1": "a"}', ["__background__", "a", "b"]), ("a, b", []), ("7", [])])
def test_labels_of_another_form_in_a_file_of_safetensors(labels, expected, tmp_path):
    save_file(STATE, tmp_path / "w.safetensors", metadata={"labels": labels})
    stored = read_weights(str(tmp_path / "w.safetensors"))
    assert stored.class_names == expected and torch.equal(stored.tensors["a"], STATE["a"])
