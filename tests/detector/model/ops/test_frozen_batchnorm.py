"""A folded norm changes nothing but the time: values, gradients, names, copies."""

import copy

import pytest
import torch

from detector.config.model_schema import BACKBONE_NAMES, Model
from detector.config.schema import Evaluate
from detector.model.backbones import build_backbone
from detector.model.faster_rcnn import build_model
from detector.model.ops.frozen_batchnorm import FoldedConv, FrozenBatchNorm, fold_norms, freeze_norms

SMALL = Model(fpn_channels=16, box_head_dim=16, norm="frozen", weights="", frozen_stages=0)


def randomise(module: torch.nn.Module) -> None:
    for norm in (part for part in module.modules() if isinstance(part, FrozenBatchNorm)):
        norm.weight.uniform_(0.5, 0.9)
        norm.bias.normal_(0, 0.2)
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 2)


@pytest.mark.parametrize("body", ["resnet18_c4", "resnet18_fpn", "resnet50_c4", "resnet50_fpn", "mobilenet_v3_large_fpn"])
def test_features_and_gradients_are_those_without_folding(body):
    """In float64: it is the same function, and not only as far as one CPU's float32 tells."""
    torch.manual_seed(0)
    plain = freeze_norms(build_backbone(Model(**{**vars(SMALL), "body": body})).body, True, None).double()
    randomise(plain)
    folded = fold_norms(copy.deepcopy(plain))
    norms = [part for part in folded.modules() if isinstance(part, FrozenBatchNorm)]
    assert norms and all(norm.folded for norm in norms)
    assert folded.state_dict().keys() == plain.state_dict().keys()
    image, found = torch.randn(2, 3, 64, 64, dtype=torch.float64), []
    for model in (plain, folded):
        levels = model(image)
        sum((level ** 2).mean() for level in levels.values()).backward()
        found.append((levels, {name: weight.grad for name, weight in model.named_parameters()}))
    for name, level in found[0][0].items():
        scale = float(level.detach().abs().max())
        torch.testing.assert_close(found[1][0][name], level, atol=1e-12 * scale, rtol=1e-11)
    for name, gradient in found[0][1].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[1][1][name], gradient, atol=1e-11 * scale, rtol=1e-10, msg=name)


@pytest.mark.parametrize("body", BACKBONE_NAMES)
def test_every_frozen_norm_of_every_body_is_folded(body):
    with torch.device("meta"):
        model = build_model(Model(backbone=body), Evaluate(), classes=2)
    norms = [part for part in model.modules() if isinstance(part, FrozenBatchNorm)]
    assert all(norm.folded for norm in norms)
    assert len(norms) == sum(isinstance(part, FoldedConv) for part in model.modules()) and (norms or body == "vgg16")


def test_norms_that_learn_are_left_alone():
    model = build_model(Model(**{**vars(SMALL), "body": "resnet18_c4", "norm": "trained"}), Evaluate(), classes=2)
    assert not any(isinstance(part, FoldedConv) for part in model.modules())


def test_weights_that_are_loaded_later_count_and_a_copy_is_a_copy():
    torch.manual_seed(0)
    conv = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1, bias=False), FrozenBatchNorm(3))
    fold_norms(conv)
    other = copy.deepcopy(conv)
    state = {"0.weight": torch.ones(3, 2, 1, 1), "1.weight": torch.tensor([1.0, 2, 3]), "1.bias": torch.ones(3),
             "1.running_mean": torch.ones(3), "1.running_var": torch.full((3,), 4 - 1e-5)}
    before = conv(torch.ones(1, 2, 1, 1))
    other.load_state_dict(state, strict=True)
    assert other(torch.ones(1, 2, 1, 1)).flatten().tolist() == pytest.approx([1.5, 2, 2.5])  # (2 - 1) / 2 * w + 1
    assert torch.equal(conv(torch.ones(1, 2, 1, 1)), before)
