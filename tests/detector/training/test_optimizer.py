"""Parameter groups, SGD and OPTIMIZERS: tables to check by hand."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from detector.config.schema import Evaluate, Model, Optim
from detector.errors import BadInput
from detector.model.backbones import BACKBONES
from detector.model.faster_rcnn import build_model
from detector.training.optimizer import OPTIMIZERS, build_optimizer, find_optimizer, parameter_groups, set_lr


class Small(nn.Module):
    """One of each: convolution, batch norm, group norm, linear layer with bias, and parts that are not trained."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn, self.gn = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
        self.frozen_norm = FrozenBatchNorm2d(4)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.fc = nn.Linear(4, 2)


@pytest.mark.parametrize("optim, table", [
    # (weight decay, lr factor) -> names; by default all parameters have the same weight decay
    (Optim(weight_decay=0.1), {(0.1, 1.0): "conv.weight conv.bias bn.weight bn.bias gn.weight gn.bias fc.weight fc.bias"}),
    (Optim(weight_decay=0.1, weight_decay_norm=0),
     {(0.1, 1.0): "conv.weight conv.bias fc.weight fc.bias", (0.0, 1.0): "bn.weight bn.bias gn.weight gn.bias"}),
    (Optim(weight_decay=0.1, weight_decay_bias=0, bias_lr_factor=2),  # as in py-faster-rcnn
     {(0.1, 1.0): "conv.weight bn.weight bn.bias gn.weight gn.bias fc.weight", (0.0, 2.0): "conv.bias fc.bias"}),
    (Optim(weight_decay=0.1, weight_decay_norm=0, weight_decay_bias=0),
     {(0.1, 1.0): "conv.weight fc.weight", (0.0, 1.0): "conv.bias bn.weight bn.bias gn.weight gn.bias fc.bias"})])
def test_groups_by_weight_decay_and_lr_factor(optim, table):
    model = Small()
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = {(group["weight_decay"], group["lr_factor"]): " ".join(names[id(weight)] for weight in group["params"])
              for group in parameter_groups(model, optim)}
    assert groups == table


class Parts(nn.Module):
    """The names of a detector's parts, one layer each."""

    def __init__(self):
        super().__init__()
        self.backbone, self.rpn = nn.Module(), nn.Linear(2, 2)
        for name in ("body", "norms", "fpn"):
            self.backbone.add_module(name, nn.Linear(2, 2))


def test_the_backbone_below_its_pyramid_and_the_norms_between_have_a_learning_rate_of_its_own():
    model = Parts()
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = {group["lr_factor"]: " ".join(names[id(weight)] for weight in group["params"])
              for group in parameter_groups(model, Optim(backbone_lr_factor=0.1, bias_lr_factor=2))}
    assert groups == {0.1: "backbone.body.weight backbone.norms.weight", 0.2: "backbone.body.bias backbone.norms.bias",
                      1.0: "backbone.fpn.weight rpn.weight", 2.0: "backbone.fpn.bias rpn.bias"}
    assert len(parameter_groups(model, Optim())) == 1


def test_adamw_has_weight_decay_and_learning_rate_by_group():
    model = Parts()
    optimizer = build_optimizer(model, Optim(optimizer="adamw", lr=1e-3, weight_decay=0.05, backbone_lr_factor=0.1))
    set_lr(optimizer, 1e-4)
    before = [weight.detach().clone() for weight in (model.backbone.body.weight, model.rpn.weight)]
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    for weight, old, lr in zip((model.backbone.body.weight, model.rpn.weight), before, (1e-5, 1e-4)):
        torch.testing.assert_close(weight.detach(), old * (1 - 0.05 * lr) - lr)  # the first step of Adam is of size lr


@pytest.mark.parametrize("backbone", BACKBONES)
def test_all_weights_of_a_backbone_s_classifier_have_the_backbone_s_learning_rate(backbone):
    """Those of the body; ResNet-C4 and VGG16 have the last layers of theirs in the box head."""
    with torch.device("meta"):
        model = build_model(Model(backbone=backbone, norm="trained", frozen_stages=0), Evaluate(), 2)
    factor_of = {id(weight): group["lr_factor"] for group in parameter_groups(model, Optim(backbone_lr_factor=0.1))
                 for weight in group["params"]}
    pretrained = tuple(name for _, name in BACKBONES[backbone].classifier_prefixes if name.startswith("backbone."))
    slow = {name for name, weight in model.named_parameters() if factor_of.get(id(weight)) == 0.1}
    loaded = {name for name, weight in model.named_parameters() if name.startswith(pretrained) and id(weight) in factor_of}
    assert loaded and loaded <= slow and not any(name.startswith(("backbone.fpn.", "rpn.", "roi_heads.")) for name in slow)


def test_a_frozen_model_has_no_groups():
    assert parameter_groups(Small().requires_grad_(False), Optim(lr=0.02)) == []


def test_the_lr_reaches_each_group_with_its_factor():
    model = Small()
    optimizer = build_optimizer(model, Optim(lr=0.02, momentum=0.8, weight_decay=0.1, weight_decay_bias=0, bias_lr_factor=2))
    set_lr(optimizer, 0.05)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.1]
    assert all(group["momentum"] == 0.8 for group in optimizer.param_groups)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    before = model.fc.bias.detach().clone(), model.frozen.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model.fc.bias.detach(), before[0] - 0.1)
    assert torch.equal(model.frozen.weight, before[1])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_after_a_skipped_fp16_step_the_next_is_a_plain_one(optimizer):
    """A step with an infinite gradient is skipped and must leave no momentum behind."""
    weight = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(weight.weight)
    optimizer = build_optimizer(weight, Optim(optimizer, lr=1, momentum=0.9, weight_decay=0))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for gradient in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(weight(torch.full((1, 1), gradient)).sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert weight.weight.item() == pytest.approx(-1)


def test_an_unknown_optimizer_is_refused_with_those_there_are():
    with pytest.raises(BadInput, match="optim.optimizer=sgdd: one of sgd, adamw .did you mean sgd"):
        build_optimizer(Small(), Optim(optimizer="sgdd"))


def test_another_optimizer_is_one_entry(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "nadam", lambda groups, config: torch.optim.NAdam(groups, lr=config.lr))
    optimizer = build_optimizer(Small(), Optim(optimizer="nadam", lr=0.3))
    set_lr(optimizer, 0.2)
    assert find_optimizer("nadam").lr_of_16 is None
    assert isinstance(optimizer, torch.optim.NAdam) and [group["lr"] for group in optimizer.param_groups] == [0.2]


def test_the_originals_biases_have_twice_the_lr_and_no_weight_decay():
    """Two steps beside torch's SGD on two hand-made groups, with the gradient clipped at 10."""
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
            set_lr(mine, 0.1)
            nn.utils.clip_grad_norm_(model.parameters(), 10)
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)
