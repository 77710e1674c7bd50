"""Training steps of this package and of torchvision's reference loop: same network, weights and images, interleaved.

    python tests/benchmarks/train_step.py [--cases resnet18_fpn_320 resnet50_fpn_800] [--rounds 7] [--batch N] [--variants ...]

The peer is torchvision's detector with its own transform, in the loop of references/detection/engine.py: float images, the
loss is read at every step, SGD with PyTorch's defaults; on a GPU also with its AMP (fp16 and a loss scale). torchvision's
FasterRCNN needs a feature pyramid; for a single level its RPN, RoI heads and transform are put around the same backbone,
whose norms are then folded as in this package. This package does what detector/training/step.py does: uint8 images, fused
SGD, fp32 or bf16; once with torchvision's heads (model.heads=torchvision), which shows the part of the heads; channels_last
where that is the faster layout; on a GPU also with torch.compile.

All variants start from the same weights and use the same batch; every round runs one step of each, in an order that rotates.
Prints images/s; the ratio to the peer of the same round (median and spread), on a GPU to the peer with AMP; the peak memory of
a step above that between steps (GPUs). Appends JSON lines to tests/benchmarks/results/train_step.jsonl: for each case one with
all variants that are not compiled, and another with each compiled variant more, as soon as it is measured. Then, in a line of
train_step_parts.jsonl beside it: operations per second, of the whole step and of its convolutions, as a fraction of
those of a matrix product in the same process; and the time of each part of the step.
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
from measuring import append_result, draw_batch, draw_jpegs, format_spread, ratio, run_interleaved, spread
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
from detector.training.nan_guard import NanGuard
from detector.training.optimizer import build_optimizer
from detector.training.step import StepResult, update_weights

CLASSES = 20
C4 = ["coco/resnet50_fpn", "model.backbone=resnet101_c4", "model.roi_pooling_size=14"]
# Images per step on a CPU and on a GPU; config and overrides.
CASES = {"resnet18_fpn_320": (4, 32, ["custom/bccd", "model.norm=frozen"]),
         "resnet50_fpn_800": (2, 16, ["coco/resnet50_fpn"]),
         "resnet101_c4_600": (1, 16, [*C4, "augment.min_size=[600]", "augment.max_size=1000"]),
         "resnet101_c4_800": (1, 16, [*C4]),
         "vgg16_600": (1, 16, ["coco/resnet50_fpn", "model.backbone=vgg16", "augment.min_size=[600]", "augment.max_size=1000"]),
         "tiny": (1, 1, ["custom/bccd", "model.norm=frozen", "augment.min_size=[64]", "augment.max_size=128"])}
ON_CPU, ON_GPU = ["resnet18_fpn_320", "resnet50_fpn_800"], ["resnet50_fpn_800", "resnet101_c4_600", "resnet101_c4_800", "vgg16_600"]
# Variants of this package: model.heads, run.precision, run.compile.
VARIANTS = {"fp32": ("native", "fp32", "off"), "bf16": ("native", "bf16", "off"),
            "fp32, torchvision's heads": ("torchvision", "fp32", "off"),
            "bf16, torchvision's heads": ("torchvision", "bf16", "off"),
            "bf16, compiled": ("native", "bf16", "default"),
            "bf16, torchvision's heads, compiled": ("torchvision", "bf16", "default")}
DEFAULT_VARIANTS = {"cpu": ["fp32", "bf16", "fp32, torchvision's heads"],
                    "cuda": ["fp32", "bf16", "bf16, torchvision's heads", "bf16, compiled"]}
CONVOLUTIONS = ("aten::convolution", "aten::convolution_backward")


def config_of(case: str):
    name, *overrides = CASES[case][2]
    config = load_config(name, ["data.root=none", "optim.lr=1e-5", "model.weights=imagenet", "model.frozen_stages=2", *overrides])
    return dataclasses.replace(config, model=dataclasses.replace(config.model, weights=""))  # random weights suffice


def initial_weights(config) -> dict[str, torch.Tensor]:
    """Returns the weights that all variants start from. Residual branches are scaled down, so that nothing overflows."""
    seed_torch(derive_seed(0, "weights"))
    model = build_model(config.model, config.evaluate, CLASSES)
    for name, module in model.named_modules():
        if name.endswith(("bn3", "bn2")) and hasattr(module, "weight"):
            module.weight.data.fill_(0.3)
    return model.state_dict()


class OwnStep:
    """Runs one training step of this package per call; returns the sum of its losses."""

    def __init__(self, config, weights: dict, variant: str, batch: tuple[list, list], device: torch.device):
        heads, self.precision, compiled = VARIANTS[variant]
        self.config = dataclasses.replace(config, model=dataclasses.replace(config.model, heads=heads))
        model = to_device_and_layout(build_model(self.config.model, config.evaluate, CLASSES), True, device).train()
        model.load_state_dict(weights)
        compile_model(model, compiled, dynamic=False)
        self.state = TrainState(model, build_optimizer(model, config.optim), torch.amp.GradScaler(device.type, enabled=False), None)
        self.nan_guard, self.device, self.batch = NanGuard(device), device, batch
        self.resize = Resize(config.augment.min_size[0], config.augment.max_size)

    def __call__(self, mark: Callable[[str], None] = lambda part: None) -> float:
        images, targets = to_device(*self.batch, self.device)
        mark("transfer")
        seed_torch(derive_seed(0, "sampling", self.state.step))
        with autocast(self.precision, self.device):
            losses = self.state.model(images, targets, self.resize)
        values = torch.stack(list(losses.values()))
        mark("RoI heads")
        values.sum().backward()
        mark("backward")
        assert self.nan_guard.poll() is None, "the loss is not finite"
        result = StepResult(tuple(losses), values.detach(), update_weights(self.state, self.config))
        self.nan_guard.watch(result, {})
        mark("optimiser")
        self.state.step += 1
        return float(result.losses.sum())


class OneLevelPeer(nn.Module):
    """torchvision's training procedure around a backbone of one level, for which it has no builder."""

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


def matmul_speed(precision: str, device: torch.device) -> float:
    """Returns the operations per second of a product of two square matrices, the best of five.

    The matrices are as large as a product of a fifth of a second allows: a CPU without bf16 instructions needs a hundred
    times as long in bf16.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def product_s(size: int, repeats: int) -> float:
        a, b = torch.rand((2, size, size), device=device).to(dtype)
        seconds = []
        for _ in range(repeats + 1):  # the first product sets up
            wait(device)
            started_at = time.perf_counter()
            a @ b
            wait(device)
            seconds.append(time.perf_counter() - started_at)
        return min(seconds[1:])
    size = 256
    while size < (8192 if device.type == "cuda" else 2048) and 8 * product_s(size, 1) < 0.2:
        size *= 2
    return 2 * size ** 3 / product_s(size, 5)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def work_of(step: OwnStep, seconds: float) -> dict[str, float]:
    """Returns the operations of a step, and its speed and that of its convolutions as fractions of a matrix product's."""
    with FlopCounterMode(display=False) as counter:
        step()
    operations = {str(function): count for function, count in counter.get_flop_counts()["Global"].items()}
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if step.device.type == "cuda" else []
    with torch.profiler.profile(activities=activities) as profile:
        step()
    time_attribute = "device_time_total" if step.device.type == "cuda" else "cpu_time_total"
    convolutions_s = sum(getattr(event, time_attribute) for event in profile.key_averages() if event.key in CONVOLUTIONS) / 1e6
    convolutions = sum(count for name, count in operations.items() if "convolution" in name)
    speed, total = matmul_speed(step.precision, step.device), sum(operations.values())
    return {"operations": total, "matmul_rate": speed, "share": total / seconds / speed,
            "convolutions_share": convolutions / convolutions_s / speed}


def part_times(step: OwnStep, repeats: int) -> dict[str, float]:
    """Returns the median milliseconds of each part of a step; waits for the device after each part."""
    times_ms: dict[str, list[float]] = {}
    last = 0.0

    def mark(part: str) -> None:
        nonlocal last
        wait(step.device)
        now = time.perf_counter()
        times_ms.setdefault(part, []).append(1000 * (now - last))
        last = now
    model = step.state.model
    hooks = [model.backbone.register_forward_pre_hook(lambda *_: mark("resizing")),
             model.backbone.register_forward_hook(lambda *_: mark("backbone")),
             model.rpn.register_forward_hook(lambda *_: mark("RPN"))]
    with TemporaryDirectory() as folder:
        paths = draw_jpegs(Path(folder), len(step.batch[0]), 480, 640)
        for _ in range(repeats):
            last = time.perf_counter()
            for path in paths:
                read_image(str(path))
            mark("decoding, one core")
            step(mark)
    for hook in hooks:
        hook.remove()
    return {part: spread(times)["median"] for part, times in times_ms.items()}


def measure(case: str, rounds: int, count: int, names: list[str], device: torch.device, out: str) -> None:
    """Measures a case in stages, prints the results and appends a line for each stage to `out`; then analyses the case."""
    config, (images, targets) = config_of(case), draw_batch(count, CLASSES)
    if device.type == "cuda":
        images = [image.pin_memory() for image in images]
        targets = [{key: value.pin_memory() for key, value in target.items()} for target in targets]
    weights, batch = initial_weights(config), (images, targets)
    peers = {"torchvision": False, **({"torchvision, AMP": True} if device.type == "cuda" else {})}
    steps: dict[str, Callable[[], float]] = {name: peer_step(config, weights, batch, device, amp) for name, amp in peers.items()}
    memory = warm_up(steps, device)
    for stage in stages(names):
        new = {name: OwnStep(config, weights, name, batch, device) for name in stage}
        memory |= warm_up(new, device)
        steps |= new
        print(f"{case}, batch {count}", flush=True)
        seconds = run_interleaved(steps, rounds)
        report({"case": case, "batch": count, "device": device.type, "seconds": seconds, "step_memory_gib": memory,
                "peer": list(peers)[-1]}, out)
    analysed = {name: steps[name] for name in names if VARIANTS[name][0] == "native" and VARIANTS[name][2] == "off"}
    parts_out = str(Path(out).with_name("train_step_parts.jsonl")) if out else ""
    append_result("train_step_parts", {"case": case, "batch": count, **analyse(analysed, seconds)}, parts_out)


def stages(names: list[str]) -> list[list[str]]:
    """Returns which variants are added, before each measurement of all so far: first those that are not compiled, then one
    compiled variant at a time. Compiling takes up to a minute, and a machine may be taken away meanwhile."""
    eager = [name for name in names if VARIANTS[name][2] == "off"]
    return [stage for stage in (eager, *([name] for name in names if name not in eager)) if stage]


def warm_up(steps: dict[str, Callable[[], float]], device: torch.device) -> dict[str, float]:
    """Runs the first steps, which set up memory and are not measured; returns the peak memory of a step on a GPU, GiB."""
    memory = {}
    for name, step in steps.items():
        print(f"  {name:>26}: loss of the first step {step():.3f}", flush=True)
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            step()
            memory[name] = (torch.cuda.max_memory_allocated(device) - before) / 2**30
    return memory


def report(line: dict, out: str) -> None:
    """Appends the line of one stage to `out`, with the ratio of each variant to the peer, and prints it."""
    line["ratio"] = {name: ratio(line["seconds"][line["peer"]], times) for name, times in line["seconds"].items()}
    append_result("train_step", line, out)
    for name, times in line["seconds"].items():
        images_per_s = spread([line["batch"] / s for s in times])
        memory = line["step_memory_gib"].get(name)
        print(f"  {name:>26}: {format_spread(images_per_s, 3)} images/s, ratio {format_spread(line['ratio'][name])}"
              + (f", {memory:.2f} GiB" if memory is not None else ""), flush=True)


def analyse(steps: dict[str, OwnStep], seconds: dict[str, list[float]]) -> dict:
    """Returns operations and times of the parts of each step, by variant, and prints them."""
    line = {"work": {name: work_of(step, spread(seconds[name])["median"]) for name, step in steps.items()}}
    for name, work in line["work"].items():
        print(f"  {name:>26}: {work['operations'] / 1e9:.0f} G operations, {work['share']:.0%} of the speed of a matrix product "
              f"({work['matmul_rate'] / 1e9:.0f} G/s); the convolutions {work['convolutions_share']:.0%}", flush=True)
    line["where_ms"] = {name: part_times(step, 3) for name, step in steps.items()}
    for name, parts in line["where_ms"].items():
        print(f"  {name:>26}: " + ", ".join(f"{part} {ms:.1f}" for part, ms in parts.items()) + " ms", flush=True)
    return line


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=ON_CPU if device.type == "cpu" else ON_GPU)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=0, help="images per step; 0: those of the case")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="of this package", default=DEFAULT_VARIANTS[device.type])
    parser.add_argument("--out", default="", help="file to which the JSON lines are appended")
    args = parser.parse_args()
    for case in args.cases:
        count = args.batch or CASES[case][device.type == "cuda"]
        measure(case, args.rounds, count, args.variants, device, args.out)


if __name__ == "__main__":
    main()
