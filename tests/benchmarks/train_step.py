"""Our training step beside torchvision's reference loop: same network, weights, images and threads, turn by turn.

    python tests/benchmarks/train_step.py [--cases resnet18_fpn_320 resnet50_fpn_800] [--rounds 7] [--batch N] [--sides ...]

The peer is torchvision's detector with its own transform, in the loop of references/detection/engine.py: float images, the
loss read at every step, SGD as PyTorch sets it up; on a GPU also with its AMP (fp16 and a loss scale). Its FasterRCNN takes
pyramids; for one level its RPN, RoI heads and transform stand around the same body, whose norms are then folded as ours are.
Ours is what detector/training/step.py does: uint8 images, fused SGD, fp32 or bf16; and once with torchvision's heads in
it (model.heads=torchvision), to tell what the heads bring; channels_last where that is the faster layout. On a GPU also with
torch.compile.

All start from the same weights and take the same batch; in every round each takes one step, in an order that changes. Prints
images/s, the ratio to the peer of the same round (median and spread), the memory that a step takes beside what lies there
between steps (GPUs), the operations a second as a share of what a matrix product reaches in the same run, in the whole step
and in its convolutions, and where the time of our step goes. Appends a JSON line for each case to
tests/benchmarks/results/train_step.jsonl.
"""

import argparse
import dataclasses
import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Callable

import torch
from against_torchvision import peer_model
from measuring import append, in_turns, photographs, ratio, scene, spread, told
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detector.config.load import load_config
from detector.data.image_io import read_image
from detector.model.compile import compile_model
from detector.model.faster_rcnn import build_model, to_device_and_layout
from detector.model.precision import autocast, to_device
from detector.seeding import derive_seed, seed_torch
from detector.structures import Resize
from detector.training.checkpoint import TrainState
from detector.training.nan_guard import FiniteCheck
from detector.training.optimizer import build_optimizer
from detector.training.step import update_weights

CLASSES = 20
C4 = ["coco/resnet50_fpn", "model.backbone=resnet101_c4", "model.roi_pooling_size=14"]
# Images a step on a CPU and on a GPU, config and overrides.
CASES = {"resnet18_fpn_320": (4, 32, ["custom/bccd", "model.norm=frozen"]),
         "resnet50_fpn_800": (2, 16, ["coco/resnet50_fpn"]),
         "resnet101_c4_600": (1, 16, [*C4, "augment.min_size=[600]", "augment.max_size=1000"]),
         "resnet101_c4_800": (1, 16, [*C4]),
         "vgg16_600": (1, 16, ["coco/resnet50_fpn", "model.backbone=vgg16", "augment.min_size=[600]", "augment.max_size=1000"]),
         "tiny": (1, 1, ["custom/bccd", "model.norm=frozen", "augment.min_size=[64]", "augment.max_size=128"])}
ON_CPU, ON_GPU = ["resnet18_fpn_320", "resnet50_fpn_800"], ["resnet50_fpn_800", "resnet101_c4_600", "resnet101_c4_800", "vgg16_600"]
# Name -> heads, precision, torch.compile.
OURS = {"fp32": ("ours", "fp32", "off"), "bf16": ("ours", "bf16", "off"), "fp32, torchvision's heads": ("torchvision", "fp32", "off"),
        "bf16, compiled": ("ours", "bf16", "default")}
CONVOLUTIONS = ("aten::convolution", "aten::convolution_backward")


def config_of(case: str):
    name, *overrides = CASES[case][2]
    config = load_config(name, ["data.root=none", "optim.lr=1e-5", "model.weights=imagenet", "model.frozen_stages=2", *overrides])
    return dataclasses.replace(config, model=dataclasses.replace(config.model, weights=""))  # random ones will do


def start(config) -> dict[str, torch.Tensor]:
    """Weights that all sides start from; shortcuts weigh most, as in trained networks, so that nothing overflows."""
    seed_torch(derive_seed(0, "weights"))
    model = build_model(config.model, config.evaluate, CLASSES)
    for name, module in model.named_modules():
        if name.endswith(("bn3", "bn2")) and hasattr(module, "weight"):
            module.weight.data.fill_(0.3)
    return model.state_dict()


class OurStep:
    """One step a call; gives the sum of its losses, fetched."""

    def __init__(self, config, weights: dict, side: str, batch: tuple[list, list], device: torch.device):
        heads, self.precision, compiled = OURS[side]
        self.config = dataclasses.replace(config, model=dataclasses.replace(config.model, heads=heads))
        model = to_device_and_layout(build_model(self.config.model, config.evaluate, CLASSES), True, device).train()
        model.load_state_dict(weights)
        compile_model(model, compiled, dynamic=False)
        self.state = TrainState(model, build_optimizer(model, config.optim), torch.amp.GradScaler(device.type, enabled=False), None)
        self.check, self.device, self.batch = FiniteCheck(device), device, batch
        self.side = Resize(config.augment.min_size[0], config.augment.max_size)

    def __call__(self, mark: Callable[[str], None] = lambda part: None) -> float:
        images, targets = to_device(*self.batch, self.device)
        mark("transfer")
        seed_torch(derive_seed(0, "sampling", self.state.step))
        with autocast(self.precision, self.device):
            losses = self.state.model(images, targets, self.side)
        mark("RoI heads")
        losses.sum().backward()
        mark("backward")
        self.check.note(losses.detach(), {})
        assert self.check.failed() is None, "the loss is not finite"
        update_weights(self.state, self.config)
        mark("optimiser")
        self.state.step += 1
        return float(losses.detach().sum())


class OneLevelPeer(nn.Module):
    """torchvision's procedure around a body that it has no builder for."""

    def __init__(self, config):
        super().__init__()
        model = build_model(dataclasses.replace(config.model, heads="torchvision"), config.evaluate, CLASSES)
        self.backbone, self.rpn, self.roi_heads = model.backbone, model.rpn, model.roi_heads
        self.transform = GeneralizedRCNNTransform(config.augment.min_size[0], config.augment.max_size,
                                                  [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    def forward(self, images: list, targets: list) -> dict[str, torch.Tensor]:
        images, targets = self.transform(images, targets)
        features = self.backbone(images.tensors)
        proposals, rpn = RegionProposalNetwork.forward(self.rpn, images, features, targets)
        _, roi = RoIHeads.forward(self.roi_heads, features, proposals, images.image_sizes, targets)
        return {**rpn, **roi}


def peer_step(config, weights: dict, batch: tuple[list, list], device: torch.device, amp: bool) -> Callable[[], float]:
    model = (peer_model(config, CLASSES) if config.model.backbone.endswith("_fpn") else OneLevelPeer(config)).train()
    model.load_state_dict(weights)
    model = model.to(device)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad],
                                lr=config.optim.lr, momentum=config.optim.momentum, weight_decay=config.optim.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=amp)

    def step() -> float:
        images = [image.to(device).float() / 255 for image in batch[0]]
        targets = [{key: value.to(device) for key, value in target.items()} for target in batch[1]]
        with torch.autocast(device.type, torch.float16, enabled=amp):
            losses = model(images, targets)
            loss = sum(losses.values())
        value = loss.item()
        assert math.isfinite(value), "the peer's loss is not finite"
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return value
    return step


def matmul_rate(precision: str, device: torch.device) -> float:
    """Operations a second of a product of two square matrices, of the largest that takes no longer than a fifth of a second
    (a CPU without bf16 is a hundred times slower in it): the best of five."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32

    def lasting(size: int, tries: int) -> float:
        a, b = torch.rand((2, size, size), device=device).to(kind)
        times = []
        for _ in range(tries + 1):  # the first one sets up
            wait(device)
            started_at = time.perf_counter()
            a @ b
            wait(device)
            times.append(time.perf_counter() - started_at)
        return min(times[1:])
    size = 256
    while size < (8192 if device.type == "cuda" else 2048) and 8 * lasting(size, 1) < 0.2:
        size *= 2
    return 2 * size ** 3 / lasting(size, 5)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def work_of(step: OurStep, seconds: float) -> dict[str, float]:
    """Operations of a step, and the shares of a matrix product's rate that the whole of it and its convolutions reach."""
    with FlopCounterMode(display=False) as counted:
        step()
    each = {str(function): count for function, count in counted.get_flop_counts()["Global"].items()}
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if step.device.type == "cuda" else []
    with torch.profiler.profile(activities=activities) as profile:
        step()
    time_of = "device_time_total" if step.device.type == "cuda" else "cpu_time_total"
    convolving_s = sum(getattr(event, time_of) for event in profile.key_averages() if event.key in CONVOLUTIONS) / 1e6
    convolving = sum(count for name, count in each.items() if "convolution" in name)
    rate = matmul_rate(step.precision, step.device)
    return {"operations": sum(each.values()), "matmul_rate": rate, "share": sum(each.values()) / seconds / rate,
            "convolutions_share": convolving / convolving_s / rate}


def where_time_goes(step: OurStep, turns: int) -> dict[str, float]:
    """Milliseconds of each part of our step, one after the other: the device is waited for after each. Medians."""
    found: dict[str, list[float]] = {}
    last = 0.0

    def mark(part: str) -> None:
        nonlocal last
        wait(step.device)
        now = time.perf_counter()
        found.setdefault(part, []).append(1000 * (now - last))
        last = now
    model = step.state.model
    hooks = [model.backbone.register_forward_pre_hook(lambda *_: mark("resizing")),
             model.backbone.register_forward_hook(lambda *_: mark("backbone")),
             model.rpn.register_forward_hook(lambda *_: mark("RPN"))]
    with TemporaryDirectory() as folder:
        paths = photographs(Path(folder), len(step.batch[0]), 480, 640)
        for _ in range(turns):
            last = time.perf_counter()
            for path in paths:
                read_image(str(path))
            mark("decoding, one core")
            step(mark)
    for hook in hooks:
        hook.remove()
    return {part: spread(times)["median"] for part, times in found.items()}


def measure(case: str, rounds: int, count: int, ours: list[str], device: torch.device) -> dict:
    """The JSON line of a case, printed on the way."""
    config, (images, targets) = config_of(case), scene(count, CLASSES)
    if device.type == "cuda":
        images = [image.pin_memory() for image in images]
        targets = [{key: value.pin_memory() for key, value in target.items()} for target in targets]
    weights, batch = start(config), (images, targets)
    sides = {"torchvision": peer_step(config, weights, batch, device, amp=False)}
    if device.type == "cuda":
        sides["torchvision, AMP"] = peer_step(config, weights, batch, device, amp=True)
    sides |= {side: OurStep(config, weights, side, batch, device) for side in ours}
    losses, memory = {}, {}
    for side, step in sides.items():
        losses[side] = step()  # not measured: what only a first step does
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            step()
            memory[side] = (torch.cuda.max_memory_allocated(device) - before) / 2**30
    print(f"{case}, batch {count}; loss of the first step: "
          + ", ".join(f"{side} {loss:.3f}" for side, loss in losses.items()), flush=True)
    seconds = in_turns(sides, rounds)
    line = {"case": case, "batch": count, "device": device.type, "seconds": seconds, "step_memory_gib": memory,
            "ratio": {side: ratio(seconds["torchvision"], own) for side, own in seconds.items()}}
    for side, own in seconds.items():
        print(f"  {side:>26}: {told(spread([count / s for s in own]), 3)} images/s, ratio {told(line['ratio'][side])}"
              + (f", {memory[side]:.2f} GiB" if memory else ""), flush=True)
    told_of = [side for side in ours if OURS[side][0] == "ours" and OURS[side][2] == "off"]
    line["work"] = {side: work_of(sides[side], spread(seconds[side])["median"]) for side in told_of}
    for side, work in line["work"].items():
        print(f"  {side:>26}: {work['operations'] / 1e9:.0f} G operations, {work['share']:.0%} of the rate of a matrix product "
              f"({work['matmul_rate'] / 1e9:.0f} G/s); the convolutions {work['convolutions_share']:.0%}", flush=True)
    line["where_ms"] = {side: where_time_goes(sides[side], 3) for side in told_of}
    for side, parts in line["where_ms"].items():
        print(f"  {side:>26}: " + ", ".join(f"{part} {ms:.1f}" for part, ms in parts.items()) + " ms", flush=True)
    return line


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=ON_CPU if device.type == "cpu" else ON_GPU)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=0, help="images a step; 0: those of the case")
    parser.add_argument("--sides", nargs="+", choices=OURS, help="of ours", default=list(OURS)[:3 if device.type == "cpu" else 4])
    parser.add_argument("--out", default="", help="where the JSON lines are appended")
    said = parser.parse_args()
    for case in said.cases:
        count = said.batch or CASES[case][device.type == "cuda"]
        append("train_step", measure(case, said.rounds, count, said.sides, device), said.out)


if __name__ == "__main__":
    main()
