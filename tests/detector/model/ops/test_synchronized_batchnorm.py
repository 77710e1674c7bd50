"""Synchronized norms: two processes compute what one does, a whole detector with its losses included, and resume exactly."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import REPO, TINY
from torch import nn

from detector.config.load import load_config
from detector.config.model_schema import Model
from detector.config.schema import Evaluate
from detector.errors import BadInput
from detector.model.faster_rcnn import build_model
from detector.model.ops.frozen_batchnorm import FrozenBatchNorm
from detector.model.ops.synchronized_batchnorm import SynchronizedBatchNorm, use_pytorchs_synchronization
from detector.training import setup
from launcher.rank_env import free_port, local_environment

SMALL = Model(backbone="resnet50_fpn_v2", weights="", norm="synchronized", frozen_stages=0, roi_pooling_size=3,
              fpn_channels=16, box_head_dim=32)


@pytest.mark.parametrize("backbone", ["vgg16", "resnet18_c4", "resnet50_fpn_v2", "mobilenet_v3_large_fpn", "swin_t_fpn"])
def test_every_norm_that_is_trained_is_synchronized_under_the_same_names(backbone):
    with torch.device("meta"):
        trained, synchronized = (build_model(replace(SMALL, backbone=backbone, norm=norm, frozen_stages=2), Evaluate(), 2)
                                 for norm in ("trained", "synchronized"))
    kinds = {name: type(module) for name, module in trained.named_modules()}
    for name, module in synchronized.named_modules():
        assert type(module) is (SynchronizedBatchNorm if kinds[name] is nn.BatchNorm2d else kinds[name])
    assert synchronized.state_dict().keys() == trained.state_dict().keys()
    assert (FrozenBatchNorm in kinds.values()) == (nn.BatchNorm2d in kinds.values())


def test_on_gpus_the_norms_are_pytorchs():
    model = build_model(replace(SMALL, backbone="resnet18_fpn", frozen_stages=2), Evaluate(), 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = set(map(id, model.parameters()))
    use_pytorchs_synchronization(model)
    kinds = {type(module) for module in model.modules() if "BatchNorm" in type(module).__name__}
    assert kinds == {nn.SyncBatchNorm, FrozenBatchNorm} and set(map(id, model.parameters())) == weights
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_one_process_computes_the_same_bits_as_with_trained_norms():
    results = []
    for norm in ("trained", "synchronized"):
        torch.manual_seed(0)
        model = build_model(replace(SMALL, backbone="resnet18_fpn", norm=norm), Evaluate(), 2).train()
        loss = sum(level.square().mean() for level in model.backbone(torch.randn(2, 3, 64, 64)).values())
        loss.backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        results.append([loss, *gradients, *model.state_dict().values()])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


TWO = """
import os, shutil, sys, torch
from functools import partial
from torch import nn
from detector import load_config, train
from detector.config.model_schema import Model, Roi, Rpn
from detector.config.schema import Evaluate
from detector.distributed import data_parallel, process_group, rank_info
from detector.model.backbones import BACKBONES, FPN, Backbone, build_resnet_fpn_v2
from detector.model.faster_rcnn import build_model
from detector.model.ops.synchronized_batchnorm import SynchronizedBatchNorm
from detector.structures import Resize
from tests.in_float64 import in_float64

class Network(nn.Module):
    '''Backbone and box head: all norms. Returns a mean over images, so that the mean over ranks is that of the batch.'''

    def __init__(self, config):
        super().__init__()
        torch.manual_seed(0)
        model = build_model(config, Evaluate(), 2).double().train()
        self.backbone, self.box_head = model.backbone, model.roi_heads.box_head
        for norm in self.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(norm.weight, 0.4, 0.9)
                nn.init.normal_(norm.bias, 0, 0.2)

    def forward(self, images, pooled):
        levels = self.backbone(images)
        return sum(level.sin().mean() for level in levels.values()) + self.box_head(pooled).square().mean()

def close(actual, expected, name):
    assert (actual - expected).abs().max() <= 1e-9 * (1 + expected.abs().max()), (name, actual, expected)

def network_of_two_ranks(config, rank):
    torch.manual_seed(2)
    images, pooled = torch.rand(4, 3, 64, 64, dtype=torch.double), torch.rand(40, 16, 3, 3, dtype=torch.double)
    whole, shared = (Network(Model(norm=norm, **config)) for norm in ("trained", "synchronized"))
    expected = whole(images, pooled)
    expected.backward()
    wrapped = data_parallel.wrap_ddp(shared, torch.device("cpu"))
    part = wrapped(images[2 * rank:2 * rank + 2], pooled[20 * rank:20 * rank + 20])
    part.backward()
    total = part.detach().clone()
    torch.distributed.all_reduce(total)
    close(total / 2, expected.detach(), "loss")
    for (name, weight), other in zip(shared.named_parameters(), whole.parameters(), strict=True):
        close(weight.grad, other.grad, name)
    for (name, value), other in zip(shared.state_dict().items(), whole.state_dict().values(), strict=True):
        close(value, other, name)
    shared.eval(), whole.eval()
    close(shared(images, pooled), whole(images, pooled), "evaluation waits for nobody")

@in_float64()
def detector_of_two_ranks(config, rank):
    '''A step from images to the losses of RPN and RoI heads. All boxes are sampled, equally many of each image: the losses of a
    rank are means over them, and nothing is drawn.'''
    torch.manual_seed(3)
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(4)]
    boxes = [torch.cat([first, first + 10 + 20 * torch.rand(2, 2)], dim=1) for first in 30 * torch.rand(4, 2, 2)]
    targets = [{"boxes": of_image, "labels": torch.tensor([1, 2])} for of_image in boxes]
    everything = dict(batch_size_per_image=4096, positive_fraction=1.0)
    config = dict(config, anchor_sizes=((8,), (16,), (32,), (64,), (128,)), roi=Roi(**everything), rpn=Rpn(
        fg_iou_thresh=0.5, bg_iou_thresh=0.5, pre_nms_top_n_train=200, post_nms_top_n_train=20, **everything))
    whole, shared = (build_model(Model(norm=norm, **config), Evaluate(), 2).train() for norm in ("trained", "synchronized"))
    shared.load_state_dict(whole.state_dict())
    expected = whole(images, targets, Resize(64, 64))
    sum(expected.values()).backward()
    own = slice(2 * rank, 2 * rank + 2)
    wrapped = data_parallel.wrap_ddp(shared, torch.device("cpu"))
    losses = wrapped(images[own], targets[own], Resize(64, 64))
    sum(losses.values()).backward()
    for name, loss in losses.items():
        total = loss.detach().clone()
        torch.distributed.all_reduce(total)
        close(total / 2, expected[name].detach(), name)
        assert total > 0 and total.dtype is torch.float64, name
    for (name, weight), other in zip(shared.named_parameters(), whole.parameters(), strict=True):
        close(weight.grad, other.grad, name)
    for (name, value), other in zip(shared.state_dict().items(), whole.state_dict().values(), strict=True):
        close(value, other, name)

def images_of_different_sizes(rank, dtype, tolerance):
    '''A norm of features around 1000, of which one rank has three times as many; in bf16, around 4.'''
    torch.manual_seed(1)
    offset = 1000 if dtype is torch.float32 else 4
    parts = [(offset + torch.randn(*shape)).to(dtype) for shape in ((1, 2, 3, 4), (3, 2, 6, 2))]
    plain, norm = nn.BatchNorm2d(2), SynchronizedBatchNorm(2)
    flat = torch.cat([part.float().transpose(0, 1).flatten(1) for part in parts], dim=1)[None, ..., None].requires_grad_()
    expected = plain(flat)
    (expected * torch.linspace(-1, 1, expected.numel()).view_as(expected)).sum().backward()
    x = parts[rank].clone().requires_grad_()
    y = norm(x)
    weight = torch.linspace(-1, 1, expected.numel()).view_as(expected)[0, :, :, 0].split([12, 36], dim=1)[rank]
    rows = lambda value: value.float().transpose(0, 1).flatten(1)
    (rows(y) * weight).sum().backward()
    assert y.dtype is dtype and y.shape == x.shape
    for actual, other in ((y, expected), (x.grad, flat.grad)):
        difference = rows(actual) - other[0, :, :, 0].split([12, 36], dim=1)[rank]
        assert difference.abs().max() <= tolerance, (dtype, difference.abs().max())
    for actual, other in ((norm.running_mean, plain.running_mean), (norm.running_var, plain.running_var)):
        torch.testing.assert_close(actual, other, rtol=1e-5, atol=1e-5)

with process_group.process_group("cpu", 1.0):
    rank = rank_info.rank()
    BACKBONES["resnet18_fpn_v2"] = Backbone(partial(build_resnet_fpn_v2, "resnet18"), **FPN)
    small = dict(backbone="resnet18_fpn_v2", weights="", frozen_stages=0, roi_pooling_size=3, fpn_channels=16, box_head_dim=32)
    network_of_two_ranks(small, rank)
    detector_of_two_ranks(small, rank)
    images_of_different_sizes(rank, torch.float32, 2e-3)
    images_of_different_sizes(rank, torch.bfloat16, 4e-2)

# A run that is resumed after step 2 has the weights of one that is not; two micro-batches of each rank make a step.
folder, ports = sys.argv[1], sys.argv[2].split()  # a port for each group: rank 1 would find the store of the group before
options = [*sys.argv[3:], "model.norm=synchronized", "batch.size=8", "data.val=[]", "optim.optimizer=adamw", "optim.lr=0.001",
           "schedule.steps=3", "run.save_every_steps=2"]
os.environ["MASTER_PORT"] = ports[0]
train(load_config("shapes/demo", [*options, "run.name=uncut"]))
if rank == 0:  # rank 1 waits for it in the next run
    shutil.copytree(folder + "/uncut", folder + "/cut", ignore=shutil.ignore_patterns("step-00000003.pt"))
os.environ["MASTER_PORT"] = ports[1]
train(load_config("shapes/demo", [*options, "run.name=cut"]))
print("done")
"""


@pytest.mark.slow
def test_two_processes_compute_what_one_computes_for_the_same_batch_and_resume_exactly(tiny, tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    port, path = free_port(), os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(tmp_path / "two.py"), str(tmp_path / "runs"), f"{free_port()} {free_port()}", *tiny]
    running = [subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env={**local_environment(rank, 2, port), "PYTHONPATH": path}) for rank in range(2)]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(outputs)
    uncut, cut = (torch.load(tmp_path / "runs" / name / "checkpoints" / "step-00000003.pt", weights_only=True)
                  for name in ("uncut", "cut"))
    assert any("running_var" in name for name in uncut["model"])
    assert "resuming from" in outputs[0] and "after step 2" in outputs[0]
    for name, value in uncut["model"].items():
        assert torch.equal(cut["model"][name], value), name
    for name, moments in uncut["moments"].items():
        assert all(torch.equal(cut["moments"][name][key], value) for key, value in moments.items()), name


@pytest.mark.parametrize("size, micro_batch_size, processes, fits", [
    (8, 2, 2, True), (8, 2, 4, True), (6, 2, 2, False), (3, 2, 2, True), (1, 2, 2, False), (6, 2, 1, True)])
def test_processes_that_wait_for_each_other_need_as_many_passes(size, micro_batch_size, processes, fits, monkeypatch):
    monkeypatch.setattr(setup, "world_size", lambda: processes)
    setup.refuse_uneven_statistics("trained", size, micro_batch_size)
    if fits:
        setup.refuse_uneven_statistics("synchronized", size, micro_batch_size)
        return
    with pytest.raises(BadInput, match=f"Set batch.size to a multiple of {micro_batch_size * processes}"):
        setup.refuse_uneven_statistics("synchronized", size, micro_batch_size)


def test_random_weights_are_trained_with_synchronized_norms(config_file):
    config = load_config(str(config_file), [*TINY, "model.norm=synchronized", "data.root=/data"])
    assert config.model.norm == "synchronized"
