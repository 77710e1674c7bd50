"""Accuracy and speed of this package and of torchvision's FasterRCNN in its reference loop, trained side by side.

    python tests/benchmarks/against_torchvision.py configs/custom/bccd.yaml data.root=DIR [--seeds 0 1 2] [--out FILE]

Both have the same images, image size, network, steps, learning rate, batch size and number of threads. The two trainings
of a seed run at the same time, each with half of the cores, so that other load on the machine slows both alike. Both are
scored by pycocotools. Prints a table, and appends a JSON line for each seed to tests/benchmarks/results/.

The peer is torchvision's FasterRCNN with its transform, in the loop of references/detection (train.py, engine.py): SGD
with momentum 0.9; linear warm-up from 1/1000 over the first epoch, 1000 steps at most; learning rate times 0.1 at 16/26
and 22/26 of the epochs, its defaults; horizontal flips; batches of similar aspect ratio; the loss is read at every step.
Loader, batch plan, schedule and step differ.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import append_result

from detector.config.load import load_config


def peer_model(config, classes: int):
    """Returns torchvision's detector of the same network, with the same RPN, RoI and test options."""
    from torch import nn
    from torchvision import models
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import FrozenBatchNorm2d

    m, rpn, roi, e = config.model, config.model.rpn, config.model.roi, config.evaluate
    if not m.backbone.startswith("resnet") or not m.backbone.endswith("_fpn") or m.weights:
        sys.exit("the peer must be a ResNet FPN with random weights: set model.backbone=resnet50_fpn model.weights=")
    norm = nn.BatchNorm2d if m.norm == "trained" else FrozenBatchNorm2d
    resnet = models.get_model(m.backbone.removesuffix("_fpn"), weights=None, norm_layer=norm)
    for stage in ("conv1", "layer1", "layer2", "layer3", "layer4")[:m.frozen_stages]:
        getattr(resnet, stage).requires_grad_(False)
    channels = resnet.fc.in_features
    backbone = BackboneWithFPN(resnet, {f"layer{i + 1}": str(i) for i in range(4)},
                               [channels // 8, channels // 4, channels // 2, channels], m.fpn_channels)
    sizes = m.anchor_sizes or ((32,), (64,), (128,), (256,), (512,))
    return FasterRCNN(
        backbone, min_size=config.augment.min_size[0], max_size=config.augment.max_size,
        rpn_anchor_generator=AnchorGenerator(sizes, (tuple(m.anchor_ratios),) * len(sizes)),
        rpn_pre_nms_top_n_train=rpn.pre_nms_top_n_train, rpn_pre_nms_top_n_test=rpn.pre_nms_top_n_eval,
        rpn_post_nms_top_n_train=rpn.post_nms_top_n_train, rpn_post_nms_top_n_test=rpn.post_nms_top_n_eval,
        rpn_nms_thresh=rpn.nms_thresh, rpn_batch_size_per_image=rpn.batch_size_per_image,
        rpn_positive_fraction=rpn.positive_fraction, box_batch_size_per_image=roi.batch_size_per_image,
        box_positive_fraction=roi.positive_fraction,
        box_head=TwoMLPHead(m.fpn_channels * m.roi_pooling_size ** 2, m.box_head_dim),
        box_predictor=FastRCNNPredictor(m.box_head_dim, classes + 1),
        box_score_thresh=e.score_thresh, box_nms_thresh=e.nms_thresh, box_detections_per_img=e.max_detections)


class PeerDataset:
    """Examples as references/detection has them: a float image, flipped with probability 0.5, and the boxes of the file."""

    def __init__(self, dataset, flips: bool):
        self.dataset, self.flips = dataset, flips

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        import torch
        from PIL import Image
        from torchvision.transforms.v2 import functional as F
        image = F.pil_to_tensor(Image.open(self.dataset.path(index)).convert("RGB")).float() / 255
        rows = self.dataset.rows(index)
        boxes = torch.from_numpy(self.dataset.boxes[rows].copy())
        if self.flips and torch.rand(()) < 0.5:
            image, width = F.horizontal_flip(image), image.shape[-1]
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        return image, {"boxes": boxes, "labels": torch.from_numpy(self.dataset.labels[rows].astype("int64"))}


def run_peer(config, seed: int, out: str) -> None:
    """Trains and scores torchvision's detector; writes {"AP", "AP50", "images_per_s"} to the file `out`."""
    import torch

    from detector.data.read import read_datasets, select_for_training
    from detector.training.schedule import plan_run

    torch.manual_seed(seed)
    full_train, val = read_datasets(config.data)
    train = select_for_training(full_train, config.data)
    plan = plan_run(config.batch, config.optim, config.schedule, train.sizes, 0, 1)
    if len({tuple(size) for size in train.sizes}) > 1:
        sys.exit("the peer has no aspect-ratio sampler here: use a data set whose images have one size")
    model = peer_model(config, len(full_train.classes)).train()
    seconds = train_peer(model, train, plan, config)
    metrics = evaluate_peer(model, val)
    Path(out).write_text(json.dumps({"AP": metrics["AP"], "AP50": metrics["AP50"],
                                     "images_per_s": plan.global_batch * len(seconds) / sum(seconds)}))


def train_peer(model, train, plan, config) -> list[float]:
    """Trains torchvision's detector in the loop of its reference script; returns the seconds of each step."""
    import torch
    from torch.optim.lr_scheduler import LinearLR, MultiStepLR
    from torch.utils.data import DataLoader, RandomSampler

    optimizer = torch.optim.SGD(model.parameters(), lr=plan.lr, momentum=config.optim.momentum,
                                weight_decay=config.optim.weight_decay)
    per_epoch, epochs = plan.steps_per_epoch, plan.total_steps / plan.steps_per_epoch
    warmup = LinearLR(optimizer, 1 / 1000, total_iters=min(1000, per_epoch - 1))
    milestones = MultiStepLR(optimizer, [round(epochs * 16 / 26), round(epochs * 22 / 26)], 0.1)
    # Full batches only, and as many as this package has: both fill up the last batch of an epoch.
    dataset = PeerDataset(train, flips=True)
    loader = DataLoader(dataset, plan.global_batch, num_workers=config.run.num_workers,
                        sampler=RandomSampler(dataset, num_samples=per_epoch * plan.global_batch),
                        collate_fn=lambda batch: tuple(zip(*batch)))
    step, seconds = 0, []
    while step < plan.total_steps:
        started_at = time.monotonic()
        for images, targets in loader:
            losses = model(list(images), list(targets))
            loss = sum(losses.values())
            if not math.isfinite(loss.item()):
                sys.exit("the peer's loss is not finite")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step < per_epoch:
                warmup.step()
            step += 1
            seconds.append(time.monotonic() - started_at)
            started_at = time.monotonic()
            if step == plan.total_steps:
                break
        milestones.step()
    return seconds


def evaluate_peer(model, val) -> dict[str, float]:
    """Returns COCO's metrics of torchvision's detector on the validation images."""
    import numpy as np
    import torch

    from detector.metrics.coco import coco_metrics
    from detector.structures import Detections, concat_detections

    model.eval()
    dataset, parts = PeerDataset(val, flips=False), []
    with torch.no_grad():
        for index in range(len(val)):
            output = model([dataset[index][0]])[0]
            parts.append(Detections(np.full(len(output["scores"]), val.image_ids[index]), output["boxes"].numpy(),
                                    output["scores"].numpy(), output["labels"].numpy().astype(np.int32)))
    metrics, _ = coco_metrics(concat_detections(parts), val)
    return metrics


def run_pair(config_name: str, overrides: list[str], seed: int, folder: str, threads: int) -> tuple[dict, dict]:
    """Trains this package and the peer at the same time; returns the results of both, this package's first."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    args = [*overrides, f"seed={seed}"]
    training = subprocess.Popen([sys.executable, "-m", "detector", "train", config_name, *args, f"run.folder={folder}",
                                 f"run.name=ours-{seed}"], env=environment, stdout=subprocess.DEVNULL)
    out = f"{folder}/peer-{seed}.json"
    peer = subprocess.Popen([sys.executable, __file__, config_name, *args, "--peer", out, "--seeds", str(seed)],
                            env=environment)
    if training.wait() or peer.wait():
        sys.exit(f"a training failed: this package {training.returncode}, torchvision {peer.poll()}")
    results = json.loads(Path(f"{folder}/ours-{seed}/results.json").read_text())["metrics"]
    lines = [json.loads(line) for line in Path(f"{folder}/ours-{seed}/metrics.jsonl").read_text().splitlines()]
    # A line holds images/s since the line before. The result is all steps over all seconds, as for the peer.
    logged = [(line["step"], line["images_per_s"]) for line in lines if line["kind"] == "train"]
    steps = [step - before for (step, _), before in zip(logged, [0] + [step for step, _ in logged])]
    seconds = sum(count / images_per_s for count, (_, images_per_s) in zip(steps, logged))
    return ({"AP": results["AP"], "AP50": results["AP50"], "images_per_s": sum(steps) / seconds},
            json.loads(Path(out).read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="", help="file to which the JSON lines are appended")
    parser.add_argument("--peer", default="", help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    config = load_config(args.config, args.overrides)
    if args.peer:
        return run_peer(config, args.seeds[0], args.peer)
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            pairs.append(run_pair(args.config, args.overrides, seed, folder, threads))
            own, peer = pairs[-1]
            line = {"config": args.config, "overrides": args.overrides, "seed": seed, "threads_each": threads, "ours": own,
                    "peer": peer}
            append_result("against_torchvision", line, args.out)
            print(f"seed {seed}: AP {own['AP']:.3f} / {peer['AP']:.3f}  AP50 {own['AP50']:.3f} / {peer['AP50']:.3f}  "
                  f"images/s {own['images_per_s']:.2f} / {peer['images_per_s']:.2f}  (this package / torchvision)", flush=True)
    for key in ("AP", "AP50", "images_per_s"):
        a, b = (statistics.mean(result[key] for result in results) for results in zip(*pairs))
        ratios = sorted(own[key] / max(peer[key], 1e-9) for own, peer in pairs)
        print(f"{key}: this package {a:.4f}, torchvision {b:.4f}; ratio median {statistics.median(ratios):.3f} "
              f"({ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
