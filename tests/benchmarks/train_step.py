"""Our training step beside torchvision's reference loop: same network, weights, images and threads, turn by turn.

    python tests/benchmarks/train_step.py [--cases resnet18_fpn_320 resnet50_fpn_800] [--rounds 7] [--sides fp32 bf16]

The peer is torchvision's FasterRCNN with its own transform, in the loop of references/detection/engine.py: float images,
the loss read at every step, SGD as PyTorch sets it up. Ours is what detector/step.py does: uint8 images, channels_last,
fused SGD, fp32 or bf16; and once with torchvision's heads in it (model.heads=torchvision), to tell what the heads bring.
All start from the same weights and take the same batch; in every round each takes one step, in an order that changes.
Prints images/s, and the ratio to the peer of the same round: median and spread. Appends a JSON line for each case to
tests/benchmarks/results/.
"""

import argparse
import dataclasses
import json
import math
import statistics
import time
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from against_torchvision import peer_model

from detector.checkpoint import TrainState
from detector.config.load import load_config
from detector.finite import FiniteCheck
from detector.inference import autocast
from detector.model.build import build_model, use_channels_last
from detector.model.input import Side
from detector.optim import build_optimizer
from detector.randomness import drawing_state, seed_for, seed_torch
from detector.step import update_weights
from detector.surroundings import surroundings

RESULTS = Path(__file__).parent / "results" / "train_step.jsonl"
CASES = {"resnet18_fpn_320": (4, ["custom/bccd", "model.norm=frozen"]),
         "resnet50_fpn_800": (2, ["coco/resnet50_fpn"])}  # images a step, config and overrides
CLASSES = 20
OURS = {"fp32": ("ours", "fp32"), "bf16": ("ours", "bf16"), "fp32, torchvision's heads": ("torchvision", "fp32")}


def scene(count: int) -> tuple[list, list]:
    """Pictures of 640 x 480 with 3 to 12 objects each: smooth, as photographs are."""
    chance = drawing_state(seed_for(0, "train_step"))
    images, targets = [], []
    for _ in range(count):
        coarse = torch.from_numpy(chance.rand(1, 3, 15, 20).astype("float32")) * 255
        images.append(torch.nn.functional.interpolate(coarse, (480, 640), mode="bicubic")[0].clamp(0, 255).byte())
        number = chance.randint(3, 13)
        first = chance.rand(number, 2) * [560, 400]
        boxes = torch.from_numpy(np.concatenate([first, first + 16 + chance.rand(number, 2) * 64], 1))
        targets.append({"boxes": boxes.float(), "labels": torch.from_numpy(chance.randint(1, CLASSES + 1, number))})
    return images, targets


def start(config) -> dict[str, torch.Tensor]:
    """Weights that all sides start from; shortcuts weigh most, as in trained networks, so that nothing overflows."""
    seed_torch(seed_for(0, "weights"))
    model = build_model(config.model, config.evaluate, CLASSES)
    for name, module in model.named_modules():
        if name.endswith(("bn3", "bn2")) and hasattr(module, "weight"):
            module.weight.data.fill_(0.3)
    return model.state_dict()


def our_step(config, weights: dict, heads: str, precision: str, images: list, targets: list) -> Callable[[], float]:
    device = torch.device("cpu")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, heads=heads))
    model = use_channels_last(build_model(config.model, config.evaluate, CLASSES)).train()
    model.load_state_dict(weights)
    state = TrainState(model, build_optimizer(model, config.optim), torch.amp.GradScaler("cpu", enabled=False), None)
    check, side = FiniteCheck(device), Side(config.augment.short_sides[0], config.augment.long_side)

    def step() -> float:
        seed_torch(seed_for(0, "sampling", state.step))
        with autocast(precision, device):
            losses = model(images, targets, side)
        losses.sum().backward()
        check.note(losses.detach(), {})
        assert check.failed() is None, "the loss is not finite"
        update_weights(state, config)
        state.step += 1
        return float(losses.detach().sum())
    return step


def peer_step(config, weights: dict, images: list, targets: list) -> Callable[[], float]:
    model = peer_model(config, CLASSES).train()
    model.load_state_dict(weights)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad],
                                lr=config.optim.rate, momentum=config.optim.momentum, weight_decay=config.optim.decay)

    def step() -> float:
        losses = model([image.float() / 255 for image in images], [dict(target) for target in targets])
        loss = sum(losses.values())
        value = loss.item()
        assert math.isfinite(value), "the peer's loss is not finite"
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return value
    return step


def measure(case: str, rounds: int, ours: list[str]) -> dict[str, list[float]]:
    """Seconds of each round's step, by side."""
    count, (name, *overrides) = CASES[case]
    config = load_config(name, ["data.root=none", "optim.rate=1e-5", "model.weights=imagenet", "model.frozen_stages=2",
                                *overrides])
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, weights=""))  # random ones will do
    weights = start(config)
    images, targets = scene(count)
    sides = {"torchvision": peer_step(config, weights, images, targets)}
    sides |= {side: our_step(config, weights, *OURS[side], images, targets) for side in ours}
    losses = {side: step() for side, step in sides.items()}  # not measured: what only a first step does
    print(f"{case}, batch {count}; loss of the first step: "
          + ", ".join(f"{side} {loss:.3f}" for side, loss in losses.items()), flush=True)
    seconds = {side: [] for side in sides}
    for turn in range(rounds):
        order = list(sides)
        for side in order[turn % len(order):] + order[:turn % len(order)]:
            started_at = time.perf_counter()
            sides[side]()
            seconds[side].append(time.perf_counter() - started_at)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sides", nargs="+", choices=OURS, default=list(OURS), help="of ours")
    parser.add_argument("--out", default=str(RESULTS), help="where the JSON lines are appended")
    said = parser.parse_args()
    Path(said.out).parent.mkdir(parents=True, exist_ok=True)
    for case in said.cases:
        seconds, count = measure(case, said.rounds, said.sides), CASES[case][0]
        line = {"benchmark": "train_step", "case": case, "batch": count, "seconds": seconds, "ratio": {}}
        for side, own in seconds.items():
            ratios = sorted(peer / mine for peer, mine in zip(seconds["torchvision"], own))
            line["ratio"][side] = {"median": statistics.median(ratios), "from": ratios[0], "to": ratios[-1]}
            print(f"  {side:>26}: {count / statistics.median(own):7.3f} images/s, ratio median "
                  f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)
        with open(said.out, "a", encoding="utf-8") as file:
            file.write(json.dumps({**line, **surroundings()}) + "\n")


if __name__ == "__main__":
    main()
