"""Each operation of the hot path that this package has of its own, against torchvision's in the same training step.

    python tests/benchmarks/hot_path.py [--case resnet50_fpn_800] [--rounds 7] [--batch N] [--operations "NMS by rounds" ...]

Of two models with the same weights one has the operation replaced; all else is this package's, in bf16 on a GPU and fp32 on a
CPU. Every round runs a step of both. Prints how many times as fast the step is with the own operation, and appends a JSON
line for each operation, as soon as it is measured, to tests/benchmarks/results/hot_path.jsonl.

- NMS by rounds: instead of torchvision's kernel for each group, for which the host waits on a GPU
- RoIAlign of all levels at once: instead of torchvision's MultiScaleRoIAlign
- RPN losses at sampled cells: instead of the RPN's head on whole maps, with gradients
- preprocessing of uint8 images: instead of torchvision's GeneralizedRCNNTransform on float images
"""

import argparse
import dataclasses

import torch
from measuring import append_result, draw_batch, format_spread, ratio, run_interleaved
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from train_step import CASES, CLASSES, OwnStep, config_of, initial_weights

from detector.model.faster_rcnn import Detector
from detector.model.preprocessing import MEAN, STD
from detector.model.rpn import by_anchor


def use_torchvisions_nms(model: Detector) -> None:
    model.rpn.config = dataclasses.replace(model.rpn.config, nms_rounds=0)


def use_torchvisions_roi_align(model: Detector) -> None:
    own = model.roi_heads.box_roi_pool
    model.roi_heads.box_roi_pool = MultiScaleRoIAlign(list(own.strides), own.size, own.sampling_ratio)


def use_dense_rpn(model: Detector) -> None:
    """Lets the one pass over whole maps keep its gradients, and takes the sampled anchors from its outputs."""
    head, outputs = model.rpn.head, []
    forward = head.forward

    def forward_with_gradients(features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        with torch.enable_grad():
            outputs[:] = forward(features)
        return [level.detach() for level in outputs[0]], [level.detach() for level in outputs[1]]

    def at_anchors(features: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        levels, deltas = by_anchor(*outputs)
        outputs.clear()
        return torch.cat(levels, dim=1).gather(1, index), deltas.gather(1, index[..., None].expand(-1, -1, 4))
    head.forward, head.at_anchors = forward_with_gradients, at_anchors


def use_torchvisions_transform(model: Detector) -> None:
    def forward(images: list[Tensor], targets: list[dict], resize) -> dict[str, Tensor]:
        transform = GeneralizedRCNNTransform(resize.min_size, resize.max_size, list(MEAN), list(STD))
        batch, _ = transform([image.float() / 255 for image in images], targets)
        return model.losses(batch, model.backbone(batch.tensors), model.ground_truth(targets, images, resize))
    model.forward = forward


OPERATIONS = {"NMS by rounds": use_torchvisions_nms, "RoIAlign of all levels at once": use_torchvisions_roi_align,
              "RPN losses at sampled cells": use_dense_rpn, "preprocessing of uint8 images": use_torchvisions_transform}


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="resnet50_fpn_800")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=0, help="images per step; 0: those of the case")
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    parser.add_argument("--out", default="", help="file to which the JSON lines are appended")
    args = parser.parse_args()
    count = args.batch or CASES[args.case][device.type == "cuda"]
    config, (images, targets) = config_of(args.case), draw_batch(count, CLASSES)
    if device.type == "cuda":
        images = [image.pin_memory() for image in images]
        targets = [{key: value.pin_memory() for key, value in target.items()} for target in targets]
    weights, variant = initial_weights(config), "bf16" if device.type == "cuda" else "fp32"
    for name in args.operations:
        steps = {key: OwnStep(config, weights, variant, (images, targets), device) for key in ("own", "torchvision")}
        OPERATIONS[name](steps["torchvision"].state.model)
        losses = {key: step() for key, step in steps.items()}  # not measured: the first step sets up memory
        seconds = run_interleaved(steps, args.rounds)
        append_result("hot_path", {"case": args.case, "batch": count, "device": device.type, "operation": name,
                                   "losses": losses, "seconds": seconds}, args.out)
        print(f"{name}: {format_spread(ratio(seconds['torchvision'], seconds['own']))} times as fast as torchvision's", flush=True)


if __name__ == "__main__":
    main()
