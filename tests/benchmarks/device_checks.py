"""What only a device can show: mixed precision, what is the same twice, and that a step waits for nothing.

    python tests/benchmarks/device_checks.py [--case resnet50_fpn_800] [--steps 3] [--batch 4]

Prints a line for each check, exits 1 where one does not hold, and appends a JSON line to
tests/benchmarks/results/device_checks.jsonl.

- amp: the losses of a batch in bf16 and fp16 lie within a twentieth of those in fp32; fp16 with its loss scale trains
- same twice: losses, and detections, of the same weights and batch have the same bits; how far the weights of two trainings
  are apart after some steps is told, not judged: a GPU adds the gradients of RoI align, and of cells near each other, in any order
- no wait: a step with its losses, backward pass and optimiser makes the host wait for nothing (sync debug mode "error")
"""

import argparse
import dataclasses
import sys
from typing import Callable

import torch
from inference import CASES, CLASSES, config_of, weights_of
from measuring import append, scene

from detector.inference.predictor import predict_batch
from detector.model.faster_rcnn import build_model, to_device_and_layout
from detector.model.precision import autocast, to_device
from detector.seeding import derive_seed, seed_torch
from detector.structures import Resize
from detector.training.checkpoint import TrainState
from detector.training.optimizer import build_optimizer
from detector.training.step import update_weights

MOST_APART = 0.05  # of a sum of losses; bf16 has eight bits


class Training:
    """Steps on the same batch, from the same weights."""

    def __init__(self, config, weights: dict, precision: str, images: list, targets: list, device: torch.device):
        model = to_device_and_layout(build_model(config.model, config.evaluate, CLASSES), True, device).train()
        model.load_state_dict(weights)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.state = TrainState(model, build_optimizer(model, config.optim), scaler, None)
        self.config, self.precision, self.device = config, precision, device
        self.batch, self.side = (images, targets), Resize(config.augment.min_size[0], config.augment.max_size)

    def step(self) -> torch.Tensor:
        """The four losses, not fetched."""
        images, targets = to_device(*self.batch, self.device)
        seed_torch(derive_seed(0, "sampling", self.state.step))
        with autocast(self.precision, self.device):
            losses = self.state.model(images, targets, self.side)
        self.state.scaler.scale(losses.sum()).backward()
        update_weights(self.state, self.config)
        self.state.step += 1
        return losses.detach()


def amp(start: Callable[[str], Training], steps: int) -> tuple[bool, str]:
    exact = float(start("fp32").step().sum())
    precisions = ("bf16", "fp16") if torch.cuda.is_available() else ("bf16",)
    found = {precision: [float(training.step().sum()) for _ in range(steps)]
             for precision in precisions for training in [start(precision)]}
    good = all(abs(losses[0] - exact) <= MOST_APART * exact and losses[-1] < 10 * exact for losses in found.values())
    return good, f"fp32 {exact:.4f}, " + ", ".join(f"{name} {losses[0]:.4f}" for name, losses in found.items())


def same_twice(start: Callable[[str], Training], steps: int) -> tuple[bool, str]:
    one, other = start("fp32"), start("fp32")
    good = torch.equal(one.step(), other.step())
    for _ in range(steps - 1):
        one.step(), other.step()
    apart = max(float((a.float() - b.float()).abs().max()) for a, b in zip(one.state.model.state_dict().values(),
                                                                           other.state.model.state_dict().values()))
    model, side = start("fp32").state.model.eval(), one.side
    found = [predict_batch(model, one.batch[0], None, side, "fp32", one.device)[0] for _ in range(2)]
    good &= all(torch.equal(a[key], b[key]) for a, b in zip(*found) for key in a)
    return good, f"after {steps} steps the weights of two trainings are {apart:.1e} apart"


def no_wait(start: Callable[[str], Training], steps: int) -> tuple[bool, str]:
    if not torch.cuda.is_available():
        return True, "not measured: no GPU"
    training = start("bf16")
    for _ in range(2):
        training.step()  # the first ones set up memory, tables and kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.step()
    except RuntimeError as error:
        return False, str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return True, "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="resnet50_fpn_800")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--out", default="", help="where the JSON line is appended")
    said = parser.parse_args()
    device, config = torch.device("cuda" if torch.cuda.is_available() else "cpu"), config_of(said.case)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, lr=1e-4))  # random weights would diverge
    weights, (images, targets) = weights_of(config), scene(said.batch, CLASSES)
    if device.type == "cuda":
        images = [image.pin_memory() for image in images]
        targets = [{key: value.pin_memory() for key, value in target.items()} for target in targets]

    def start(precision: str) -> Training:
        return Training(config, weights, precision, images, targets, device)
    found = {}
    for name, check in (("amp", amp), ("same twice", same_twice), ("no wait", no_wait)):
        good, about = check(start, said.steps)
        found[name] = {"good": good, "about": about}
        print(f"{name:>11}: {'yes' if good else 'NO'}; {about}", flush=True)
    append("device_checks", {"case": said.case, "checks": found}, said.out)
    sys.exit(0 if all(one["good"] for one in found.values()) else 1)


if __name__ == "__main__":
    main()
