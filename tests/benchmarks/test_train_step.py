"""train_step.py writes what it has measured before it compiles, and hot_path.py compares two ways to the same losses."""

import json

import hot_path
import pytest
import torch
import train_step

from detector.config.model_schema import Model, Rpn
from detector.config.schema import Evaluate
from detector.model.faster_rcnn import Detector, build_model
from detector.structures import Resize

SMALL = Model(backbone="resnet18_fpn", weights="", frozen_stages=0, roi_pooling_size=3, fpn_channels=16, box_head_dim=32,
              anchor_sizes=((8,), (16,), (32,), (64,), (128,)), rpn=Rpn(pre_nms_top_n_train=100, post_nms_top_n_train=50))
# Name of an operation -> what the own one calls, on a CPU; NMS by rounds is used on GPUs only.
CALLS = {"RoIAlign of all levels at once": "detector.model.poolers.RoiPooling.forward",
         "RPN losses at sampled cells": "detector.model.rpn.convolutions_at_cells",
         "preprocessing of uint8 images": "detector.model.faster_rcnn.to_batch"}


def test_variants_that_are_compiled_are_measured_one_after_the_other_and_after_all_others():
    names = ["bf16, compiled", "bf16", "bf16, torchvision's heads, compiled", "fp32"]
    assert train_step.stages(names) == [["bf16", "fp32"], ["bf16, compiled"], ["bf16, torchvision's heads, compiled"]]
    assert train_step.stages(["bf16, compiled"]) == [["bf16, compiled"]] and train_step.stages([]) == []


def test_what_was_measured_before_compiling_ends_is_written(tmp_path, monkeypatch):
    def compile_model(model, compiled, dynamic):
        if compiled != "off":
            raise TimeoutError
    monkeypatch.setattr(train_step, "compile_model", compile_model)
    with pytest.raises(TimeoutError):
        train_step.measure("tiny", 2, 1, ["bf16, compiled", "fp32"], torch.device("cpu"), str(tmp_path / "out.jsonl"))
    line, = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert {name: len(times) for name, times in line["seconds"].items()} == {"torchvision": 2, "fp32": 2}
    assert line["ratio"].keys() == line["seconds"].keys() and line["peer"] == "torchvision" and line["time"] > 1e9


def gradients(model: Detector) -> dict[str, torch.Tensor]:
    """Returns the losses, stacked, and the gradients of a step on two drawn images, one without objects."""
    torch.manual_seed(1)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((48, 64), (60, 60))]
    targets = [{"boxes": torch.tensor([[4.0, 6, 30, 40], [20, 20, 60, 44]]), "labels": torch.tensor([1, 2])},
               {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]
    losses = torch.stack(list(model(images, targets, Resize(96, 128)).values()))
    losses.sum().backward()
    return {"losses": losses.detach(), **{name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}}


@pytest.mark.parametrize("name", hot_path.OPERATIONS)
def test_torchvisions_operation_gives_the_same_losses_and_gradients_and_the_own_one_does_not_run(name, monkeypatch):
    torch.manual_seed(0)
    own, other = (build_model(SMALL, Evaluate(), 2).train() for _ in range(2))
    other.load_state_dict(own.state_dict())
    expected = gradients(own)
    hot_path.OPERATIONS[name](other)
    if name in CALLS:
        monkeypatch.setattr(CALLS[name], lambda *_: pytest.fail("the own operation runs"))
    else:
        assert other.rpn.config.nms_rounds == 0 != own.rpn.config.nms_rounds
    actual = gradients(other)
    assert actual.keys() == expected.keys() and "rpn.head.bbox_pred.weight" in actual
    # Pixels that are rounded otherwise may change which of two equally good proposals is sampled.
    for key, value in expected.items() if "preprocessing" not in name else [("losses", expected["losses"])]:
        assert (actual[key] - value).norm() <= 0.01 * value.norm(), key
