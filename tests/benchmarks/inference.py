"""Our predict path beside torchvision's detector: same weights, same images, same options, turn by turn.

    python tests/benchmarks/inference.py [--cases resnet50_fpn_800 resnet18_fpn_320] [--batches 1 4] [--rounds 7]

Both begin with uint8 images in host memory and end with detections there; ours is what `fleet-rcnn predict` and
evaluations call (inference.py: predict_batch), the peer is FasterRCNN with its own transform, on a GPU also with its AMP.
Weights are random, with class scores spread out so that NMS has as much to do as with trained ones or more; in fp32 both
must find the same. Prints images/s, and the ratio to the peer of the same round: median and spread. Appends a JSON line
for each case and batch to tests/benchmarks/results/inference.jsonl.
"""

import argparse
import dataclasses
from typing import Callable

import torch
from against_torchvision import peer_model
from measuring import append, in_turns, ratio, scene, spread, told
from train_step import CLASSES, start

from detector.config.load import load_config
from detector.inference.predictor import predict_batch
from detector.model.faster_rcnn import build_model, to_device_and_layout
from detector.model.precision import autocast
from detector.structures import Resize

CASES = {"resnet50_fpn_800": ["coco/resnet50_fpn"], "resnet18_fpn_320": ["custom/bccd", "evaluate.min_size=320"],
         "tiny": ["custom/bccd", "augment.min_size=[64]", "augment.max_size=128", "evaluate.min_size=64",
                  "evaluate.max_size=128"]}
LEAST_SAME = 0.9  # share of the peer's detections that ours has, too; the rest are ties that rounding decides


def config_of(case: str):
    name, *more = CASES[case]
    config = load_config(name, ["data.root=none", "model.weights=imagenet", "model.norm=frozen", "model.frozen_stages=2", *more])
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, weights=""))  # random ones will do
    assert (config.augment.min_size, config.augment.max_size) == ((config.evaluate.min_size,), config.evaluate.max_size), \
        "the peer has one size only"
    return config


def weights_of(config) -> dict[str, torch.Tensor]:
    """Those that training steps are measured with; class scores are spread out."""
    weights = start(config)
    weights["roi_heads.box_predictor.cls_score.weight"] *= 20
    return weights


def our_side(config, weights: dict, precision: str, images: list, device: torch.device) -> Callable[[], list]:
    model = to_device_and_layout(build_model(config.model, config.evaluate, CLASSES), True, device).eval()
    model.load_state_dict(weights)
    side = Resize(config.evaluate.min_size, config.evaluate.max_size)
    return lambda: predict_batch(model, images, None, side, precision, device)[0]


def peer_side(config, weights: dict, precision: str, images: list, device: torch.device) -> Callable[[], list]:
    model = peer_model(config, CLASSES).eval()
    model.load_state_dict(weights)
    model = model.to(device)

    @torch.no_grad()
    def predict() -> list:
        with autocast(precision, device):
            found = model([image.to(device).float() / 255 for image in images])
        return [{key: value.cpu() for key, value in one.items()} for one in found]
    return predict


def same(ours: list[dict], theirs: list[dict]) -> float:
    """The share of the peer's detections that are among ours: class, score to 0.01, and corners to one pixel."""
    hits, count = 0, 0
    for one, other in zip(ours, theirs, strict=True):
        near = ((one["labels"][:, None] == other["labels"]) & ((one["scores"][:, None] - other["scores"]).abs() < 0.01)
                & ((one["boxes"][:, None] - other["boxes"]).abs().amax(-1) < 1)) if len(other["labels"]) else torch.zeros(1, 0)
        hits, count = hits + int(near.any(0).sum()), count + len(other["labels"])
    return hits / max(count, 1)


def measure(case: str, batch: int, rounds: int, device: torch.device) -> dict:
    config = config_of(case)
    weights = weights_of(config)
    images, _ = scene(batch, CLASSES)
    sides = {"torchvision": peer_side(config, weights, "fp32", images, device)}
    if device.type == "cuda":
        sides["torchvision, AMP"] = peer_side(config, weights, "bf16", images, device)
    sides |= {precision: our_side(config, weights, precision, images, device) for precision in ("fp32", "bf16")}
    found = {name: side() for name, side in sides.items()}  # not measured: what only a first call does
    shared, count = same(found["fp32"], found["torchvision"]), sum(len(one["labels"]) for one in found["torchvision"])
    assert count and shared >= LEAST_SAME, f"{case}: of the peer's {count} detections ours has {shared:.1%}"
    seconds = in_turns(sides, rounds)
    print(f"{case}, batch {batch}: {count} detections, {shared:.1%} of them the same", flush=True)
    line = {"case": case, "batch": batch, "device": device.type, "same": shared, "seconds": seconds,
            "ratio": {name: ratio(seconds["torchvision"], own) for name, own in seconds.items()}}
    for name, own in seconds.items():
        print(f"  {name:>16}: {told(spread([batch / s for s in own]), 3)} images/s, ratio {told(line['ratio'][name])}", flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["resnet50_fpn_800", "resnet18_fpn_320"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", default="", help="where the JSON lines are appended")
    said = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for case in said.cases:
        for batch in said.batches:
            append("inference", measure(case, batch, said.rounds, device), said.out)


if __name__ == "__main__":
    main()
