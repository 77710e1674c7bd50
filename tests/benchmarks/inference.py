"""Predictions of this package and of torchvision's detector: same weights, same images, same options, interleaved.

    python tests/benchmarks/inference.py [--cases resnet50_fpn_800 resnet18_fpn_320] [--batches 1 4] [--rounds 7]

Both start with uint8 images in host memory and end with detections there. This package runs predict_batch
(detector/inference/predictor.py), as `fleet-rcnn predict` and evaluations do; the peer is FasterRCNN with its own
transform, on a GPU also with its AMP. Weights are random; class scores are spread out, so that NMS has at least as much
to do as with trained weights. In fp32 both must have the same detections. Prints images/s and the ratio to the peer of
the same round (median and spread). Appends a JSON line for each case and batch to tests/benchmarks/results/inference.jsonl.
"""

import argparse
import dataclasses
from typing import Callable

import torch
from against_torchvision import peer_model
from measuring import append_result, draw_batch, format_spread, ratio, run_interleaved, spread
from train_step import CLASSES, initial_weights

from detector.config.load import load_config
from detector.inference.predictor import predict_batch
from detector.model.faster_rcnn import build_model, to_device_and_layout
from detector.model.precision import autocast
from detector.structures import Resize

CASES = {"resnet50_fpn_800": ["coco/resnet50_fpn"], "resnet18_fpn_320": ["custom/bccd", "evaluate.min_size=320"],
         "tiny": ["custom/bccd", "augment.min_size=[64]", "augment.max_size=128", "evaluate.min_size=64",
                  "evaluate.max_size=128"]}
MIN_SAME = 0.9  # fraction of the peer's detections that this package has, too; the rest are ties that rounding decides


def config_of(case: str):
    name, *overrides = CASES[case]
    config = load_config(name, ["data.root=none", "model.weights=imagenet", "model.norm=frozen", "model.frozen_stages=2",
                                *overrides])
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, weights=""))  # random weights suffice
    assert (config.augment.min_size, config.augment.max_size) == ((config.evaluate.min_size,), config.evaluate.max_size), \
        "the peer has one image size only"
    return config


def weights_of(config) -> dict[str, torch.Tensor]:
    """Returns the weights of the training benchmark, with class scores spread out."""
    weights = initial_weights(config)
    weights["roi_heads.box_predictor.cls_score.weight"] *= 20
    return weights


def own_predictor(config, weights: dict, precision: str, images: list, device: torch.device) -> Callable[[], list]:
    model = to_device_and_layout(build_model(config.model, config.evaluate, CLASSES), True, device).eval()
    model.load_state_dict(weights)
    resize = Resize(config.evaluate.min_size, config.evaluate.max_size)
    return lambda: predict_batch(model, images, None, resize, precision, device)[0]


def peer_predictor(config, weights: dict, precision: str, images: list, device: torch.device) -> Callable[[], list]:
    model = peer_model(config, CLASSES).eval()
    model.load_state_dict(weights)
    model = model.to(device)

    @torch.no_grad()
    def predict() -> list:
        with autocast(precision, device):
            outputs = model([image.to(device).float() / 255 for image in images])
        return [{key: value.cpu() for key, value in output.items()} for output in outputs]
    return predict


def fraction_in_common(own: list[dict], peer: list[dict]) -> float:
    """Returns the fraction of the peer's detections that this package has: same class, score to 0.01, corners to a pixel."""
    hits, count = 0, 0
    for a, b in zip(own, peer, strict=True):
        near = ((a["labels"][:, None] == b["labels"]) & ((a["scores"][:, None] - b["scores"]).abs() < 0.01)
                & ((a["boxes"][:, None] - b["boxes"]).abs().amax(-1) < 1)) if len(b["labels"]) else torch.zeros(1, 0)
        hits, count = hits + int(near.any(0).sum()), count + len(b["labels"])
    return hits / max(count, 1)


def measure(case: str, batch: int, rounds: int, device: torch.device) -> dict:
    """Returns the result line of a case and batch size, and prints it."""
    config = config_of(case)
    weights = weights_of(config)
    images, _ = draw_batch(batch, CLASSES)
    variants = {"torchvision": peer_predictor(config, weights, "fp32", images, device)}
    if device.type == "cuda":
        variants["torchvision, AMP"] = peer_predictor(config, weights, "bf16", images, device)
    variants |= {precision: own_predictor(config, weights, precision, images, device) for precision in ("fp32", "bf16")}
    outputs = {name: predict() for name, predict in variants.items()}  # not measured: the first call sets up memory
    count = sum(len(output["labels"]) for output in outputs["torchvision"])
    common = fraction_in_common(outputs["fp32"], outputs["torchvision"])
    assert count and common >= MIN_SAME, f"{case}: this package has {common:.1%} of the peer's {count} detections"
    seconds = run_interleaved(variants, rounds)
    print(f"{case}, batch {batch}: {count} detections, {common:.1%} of them the same", flush=True)
    line = {"case": case, "batch": batch, "device": device.type, "same": common, "seconds": seconds,
            "ratio": {name: ratio(seconds["torchvision"], times) for name, times in seconds.items()}}
    for name, times in seconds.items():
        print(f"  {name:>16}: {format_spread(spread([batch / s for s in times]), 3)} images/s, ratio "
              f"{format_spread(line['ratio'][name])}", flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["resnet50_fpn_800", "resnet18_fpn_320"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", default="", help="file to which the JSON lines are appended")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for case in args.cases:
        for batch in args.batches:
            append_result("inference", measure(case, batch, args.rounds, device), args.out)


if __name__ == "__main__":
    main()
