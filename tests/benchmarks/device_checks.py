"""Properties that only a GPU can show: mixed precision, determinism, and steps in which the host never waits.

    python tests/benchmarks/device_checks.py [--case resnet50_fpn_800] [--steps 3] [--batch 4]

Prints a line for each check and exits 1 if one fails. After each check it appends a JSON line with all results so far to
tests/benchmarks/results/device_checks.jsonl. no wait, the fastest and the one that a change breaks first, is the first.

- amp: the losses of a batch in bf16 and fp16 are within 5 % of those in fp32; fp16 with its loss scale trains
- same twice: losses and detections of the same weights and batch have the same bits. The difference between the weights
  of two trainings after some steps is printed, not checked: a GPU adds the gradients of RoIAlign, and of neighboring
  cells, in any order
- no wait: in a step with losses, backward pass and optimizer the host waits for nothing (sync debug mode "error")
"""

import argparse
import dataclasses
import sys
from typing import Callable

import torch
from inference import CASES, CLASSES, config_of, weights_of
from measuring import append_result, draw_batch

from detector.inference.predictor import predict_batch
from detector.model.faster_rcnn import build_model, to_device_and_layout
from detector.model.precision import autocast, to_device
from detector.seeding import derive_seed, seed_torch
from detector.structures import Resize
from detector.training.checkpoint import TrainState
from detector.training.optimizer import build_optimizer
from detector.training.step import update_weights

MAX_DIFFERENCE = 0.05  # relative, of the sum of losses; bf16 has 8 significant bits


class Training:
    """Training steps on one and the same batch, from given weights."""

    def __init__(self, config, weights: dict, precision: str, images: list, targets: list, device: torch.device):
        model = to_device_and_layout(build_model(config.model, config.evaluate, CLASSES), True, device).train()
        model.load_state_dict(weights)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.state = TrainState(model, build_optimizer(model, config.optim), scaler, None)
        self.config, self.precision, self.device = config, precision, device
        self.batch, self.resize = (images, targets), Resize(config.augment.min_size[0], config.augment.max_size)

    def step(self) -> torch.Tensor:
        """Trains one step; returns its losses, float32 [L], still on the device."""
        images, targets = to_device(*self.batch, self.device)
        seed_torch(derive_seed(0, "sampling", self.state.step))
        with autocast(self.precision, self.device):
            losses = torch.stack(list(self.state.model(images, targets, self.resize).values()))
        self.state.scaler.scale(losses.sum()).backward()
        update_weights(self.state, self.config)
        self.state.step += 1
        return losses.detach()


def amp(start: Callable[[str], Training], steps: int) -> tuple[bool, str]:
    exact = float(start("fp32").step().sum())
    precisions = ("bf16", "fp16") if torch.cuda.is_available() else ("bf16",)
    losses_of = {precision: [float(training.step().sum()) for _ in range(steps)]
                 for precision in precisions for training in [start(precision)]}
    good = all(abs(losses[0] - exact) <= MAX_DIFFERENCE * exact and losses[-1] < 10 * exact for losses in losses_of.values())
    return good, f"fp32 {exact:.4f}, " + ", ".join(f"{name} {losses[0]:.4f}" for name, losses in losses_of.items())


def same_twice(start: Callable[[str], Training], steps: int) -> tuple[bool, str]:
    first, second = start("fp32"), start("fp32")
    good = torch.equal(first.step(), second.step())
    for _ in range(steps - 1):
        first.step(), second.step()
    weights = zip(first.state.model.state_dict().values(), second.state.model.state_dict().values())
    difference = max(float((a.float() - b.float()).abs().max()) for a, b in weights)
    model = start("fp32").state.model.eval()
    outputs = [predict_batch(model, first.batch[0], None, first.resize, "fp32", first.device)[0] for _ in range(2)]
    good &= all(torch.equal(a[key], b[key]) for a, b in zip(*outputs) for key in a)
    return good, f"after {steps} steps the weights of two trainings differ by {difference:.1e}"


def no_wait(start: Callable[[str], Training], steps: int) -> tuple[bool, str]:
    if not torch.cuda.is_available():
        return True, "not measured: no GPU"
    training = start("bf16")
    for _ in range(2):
        training.step()  # the first steps set up memory, tables and kernels
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
    parser.add_argument("--out", default="", help="file to which the JSON line is appended")
    args = parser.parse_args()
    device, config = torch.device("cuda" if torch.cuda.is_available() else "cpu"), config_of(args.case)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, lr=1e-4))  # random weights would diverge
    weights, (images, targets) = weights_of(config), draw_batch(args.batch, CLASSES)
    if device.type == "cuda":
        images = [image.pin_memory() for image in images]
        targets = [{key: value.pin_memory() for key, value in target.items()} for target in targets]

    def start(precision: str) -> Training:
        return Training(config, weights, precision, images, targets, device)
    results = {}
    for name, check in (("no wait", no_wait), ("amp", amp), ("same twice", same_twice)):
        good, details = check(start, args.steps)
        results[name] = {"good": good, "about": details}
        print(f"{name:>11}: {'yes' if good else 'NO'}; {details}", flush=True)
        append_result("device_checks", {"case": args.case, "checks": results}, args.out)
    sys.exit(0 if all(result["good"] for result in results.values()) else 1)


if __name__ == "__main__":
    main()
