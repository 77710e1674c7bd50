"""Folding a norm changes nothing but the time: values, gradients, names and copies stay."""

import copy
from dataclasses import replace

import pytest
import torch

from detector.config.model_schema import Model
from detector.config.schema import Evaluate
from detector.model.backbones import BACKBONES
from detector.model.faster_rcnn import build_model
from detector.model.ops.frozen_batchnorm import FoldedConv, FrozenBatchNorm, fold_norms, freeze_norms

NO_BATCH_NORMS = ("vgg16", "convnext_tiny_fpn", "swin_t_fpn")
SMALL = Model(fpn_channels=16, box_head_dim=16, norm="frozen", weights="", frozen_stages=0)


def randomise(module: torch.nn.Module) -> None:
    for norm in (part for part in module.modules() if isinstance(part, FrozenBatchNorm)):
        norm.weight.uniform_(0.5, 0.9)
        norm.bias.normal_(0, 0.2)
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 2)


@pytest.mark.parametrize("name", ["resnet18_c4", "resnet18_fpn", "resnet50_c4", "resnet50_fpn", "resnet50_fpn_v2",
                                  "mobilenet_v3_large_fpn"])
def test_features_and_gradients_are_those_without_folding(name):
    """In float64, so that the rounding of a CPU's float32 does not decide; tolerances are relative to the largest value."""
    torch.manual_seed(0)
    plain = freeze_norms(BACKBONES[name].build(replace(SMALL, backbone=name)).backbone, True, None).double()
    randomise(plain)
    folded = fold_norms(copy.deepcopy(plain))
    norms = [part for part in folded.modules() if isinstance(part, FrozenBatchNorm)]
    assert norms and all(norm.folded for norm in norms)
    assert folded.state_dict().keys() == plain.state_dict().keys()
    image, results = torch.randn(2, 3, 64, 64, dtype=torch.float64), []
    for model in (plain, folded):
        levels = model(image)
        sum((level ** 2).mean() for level in levels.values()).backward()
        results.append((levels, {name: weight.grad for name, weight in model.named_parameters()}))
    (levels, gradients), (folded_levels, folded_gradients) = results
    for key, level in levels.items():
        scale = float(level.detach().abs().max())
        torch.testing.assert_close(folded_levels[key], level, atol=1e-12 * scale, rtol=1e-11)
    for key, gradient in gradients.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(folded_gradients[key], gradient, atol=1e-11 * scale, rtol=1e-10, msg=key)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_frozen_norm_of_every_backbone_is_folded(name):
    with torch.device("meta"):
        model = build_model(Model(backbone=name), Evaluate(), classes=2)
    norms = [part for part in model.modules() if isinstance(part, FrozenBatchNorm)]
    assert all(norm.folded for norm in norms)
    assert len(norms) == sum(isinstance(part, FoldedConv) for part in model.modules()) and (norms or name in NO_BATCH_NORMS)


def test_trained_norms_are_not_folded():
    model = build_model(replace(SMALL, backbone="resnet18_c4", norm="trained"), Evaluate(), classes=2)
    assert not any(isinstance(part, FoldedConv) for part in model.modules())


def test_weights_that_are_loaded_later_count_and_a_copy_is_independent():
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
