"""Ours beside torchvision's FasterRCNN in the plain loop of its reference script: accuracy and speed, in one run.

    python tests/benchmarks/against_torchvision.py configs/custom/bccd.yaml data.root=DIR [--seeds 0 1 2] [--out FILE]

Both get the same images, size, network, steps, rate, batch and number of threads. The two trainings of a seed run at
the same time, each with half of the cores, so that whatever else the machine does slows both alike. Both are scored by
pycocotools. Prints a table, and appends a JSON line for each seed to tests/benchmarks/results/.

The peer is torchvision's own: its FasterRCNN, its transform, and the loop of references/detection (train.py, engine.py;
SGD with momentum 0.9; linear warm-up from 1/1000 over the first epoch, 1000 steps at most; the rate times 0.1 at 16/26
and 22/26 of the epochs, as its defaults have it; horizontal flips; batches of like aspect ratio; the loss read at every
step). What differs is what is ours: loader, batch plan, schedule and step.
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

from measuring import append

from detector.config.load import load_config


def peer_model(config, classes: int):
    """torchvision's detector of the same network, with the same RPN, RoI and test numbers."""
    from torch import nn
    from torchvision import models
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import FrozenBatchNorm2d

    m, rpn, roi, e = config.model, config.model.rpn, config.model.roi, config.evaluate
    if not m.body.startswith("resnet") or not m.body.endswith("_fpn") or m.weights:
        sys.exit("the peer here is a ResNet FPN from random weights")
    norm = nn.BatchNorm2d if m.norm == "trained" else FrozenBatchNorm2d
    body = models.get_model(m.body.removesuffix("_fpn"), weights=None, norm_layer=norm)
    for stage in ("conv1", "layer1", "layer2", "layer3", "layer4")[:m.frozen_stages]:
        getattr(body, stage).requires_grad_(False)
    top = body.fc.in_features
    backbone = BackboneWithFPN(body, {f"layer{i + 1}": str(i) for i in range(4)},
                               [top // 8, top // 4, top // 2, top], m.pyramid_width)
    sizes = m.anchor_sizes or ((32,), (64,), (128,), (256,), (512,))
    return FasterRCNN(
        backbone, min_size=config.augment.min_size[0], max_size=config.augment.max_size,
        rpn_anchor_generator=AnchorGenerator(sizes, (tuple(m.anchor_ratios),) * len(sizes)),
        rpn_pre_nms_top_n_train=rpn.pre_nms_top_n_train, rpn_pre_nms_top_n_test=rpn.pre_nms_top_n_eval,
        rpn_post_nms_top_n_train=rpn.post_nms_top_n_train, rpn_post_nms_top_n_test=rpn.post_nms_top_n_eval,
        rpn_nms_thresh=rpn.nms_thresh, rpn_batch_size_per_image=rpn.batch_size_per_image, rpn_positive_fraction=rpn.positive_fraction,
        box_batch_size_per_image=roi.batch_size_per_image, box_positive_fraction=roi.positive_fraction,
        box_head=TwoMLPHead(m.pyramid_width * m.pooling_size ** 2, m.head_width),
        box_predictor=FastRCNNPredictor(m.head_width, classes + 1),
        box_score_thresh=e.score, box_nms_thresh=e.nms_iou, box_detections_per_img=e.detections)


class PeerImages:
    """As references/detection: a PIL image, flipped by chance, to a float tensor; boxes as they are in the file."""

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
    """Trains and scores torchvision's detector; writes {"AP", "AP50", "images_per_s"}."""
    import numpy as np
    import torch
    from torch.optim.lr_scheduler import LinearLR, MultiStepLR
    from torch.utils.data import DataLoader, RandomSampler

    from detector.data.read import read_datasets, select_for_training
    from detector.metrics.coco import coco_metrics
    from detector.structures import Detections, concat_detections
    from detector.training.schedule import plan_run

    torch.manual_seed(seed)
    whole, val = read_datasets(config.data)
    train = select_for_training(whole, config.data)
    plan = plan_run(config.batch, config.optim, config.schedule, train.sizes, 0, 1)
    if len({tuple(size) for size in train.sizes}) > 1:
        sys.exit("the peer's aspect-ratio sampler is left out here: use a data set with images of one size")
    model = peer_model(config, len(whole.classes)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=plan.rate, momentum=config.optim.momentum,
                                weight_decay=config.optim.weight_decay)
    per_epoch, epochs = plan.steps_per_epoch, plan.total_steps / plan.steps_per_epoch
    warmup = LinearLR(optimizer, 1 / 1000, total_iters=min(1000, per_epoch - 1))
    milestones = MultiStepLR(optimizer, [round(epochs * 16 / 26), round(epochs * 22 / 26)], 0.1)
    # Whole batches only, as many as ours: the images of the last batch of an epoch are filled up in both.
    samples = per_epoch * plan.global_batch
    images = PeerImages(train, flips=True)
    loader = DataLoader(images, plan.global_batch, num_workers=config.run.num_workers,
                        sampler=RandomSampler(images, num_samples=samples), collate_fn=lambda batch: tuple(zip(*batch)))
    step, seconds = 0, []
    while step < plan.total_steps:
        started_at = time.monotonic()
        for pictures, targets in loader:
            losses = model(list(pictures), list(targets))
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
    model.eval()
    parts = []
    with torch.no_grad():
        for index in range(len(val)):
            found = model([PeerImages(val, flips=False)[index][0]])[0]
            parts.append(Detections(np.full(len(found["scores"]), val.image_ids[index]), found["boxes"].numpy(),
                                    found["scores"].numpy(), found["labels"].numpy().astype(np.int32)))
    metrics, _ = coco_metrics(concat_detections(parts), val)
    Path(out).write_text(json.dumps({"AP": metrics["AP"], "AP50": metrics["AP50"],
                                     "images_per_s": plan.global_batch * len(seconds) / sum(seconds)}))


def run_pair(config_name: str, overrides: list[str], seed: int, folder: str, threads: int) -> tuple[dict, dict]:
    """Ours and the peer at once; (ours, peer)."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    said = [*overrides, f"seed={seed}"]
    ours = subprocess.Popen([sys.executable, "-m", "detector", "train", config_name, *said, f"run.folder={folder}",
                             f"run.name=ours-{seed}"], env=environment, stdout=subprocess.DEVNULL)
    out = f"{folder}/peer-{seed}.json"
    peer = subprocess.Popen([sys.executable, __file__, config_name, *said, "--peer", out, "--seeds", str(seed)],
                            env=environment)
    if ours.wait() or peer.wait():
        sys.exit(f"a training failed: ours {ours.returncode}, torchvision's {peer.poll()}")
    results = json.loads(Path(f"{folder}/ours-{seed}/results.json").read_text())["metrics"]
    lines = [json.loads(line) for line in Path(f"{folder}/ours-{seed}/metrics.jsonl").read_text().splitlines()]
    # Each line is the pace since the one before; all steps over all seconds, as for the peer.
    logged = [(line["step"], line["images_per_s"]) for line in lines if line["kind"] == "train"]
    steps = [step - before for (step, _), before in zip(logged, [0] + [step for step, _ in logged])]
    seconds = sum(count / pace for count, (_, pace) in zip(steps, logged))
    return ({"AP": results["AP"], "AP50": results["AP50"], "images_per_s": sum(steps) / seconds},
            json.loads(Path(out).read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="", help="where the JSON line is appended")
    parser.add_argument("--peer", default="", help=argparse.SUPPRESS)
    said = parser.parse_intermixed_args()
    config = load_config(said.config, said.overrides)
    if said.peer:
        return run_peer(config, said.seeds[0], said.peer)
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in said.seeds:
            pairs.append(run_pair(said.config, said.overrides, seed, folder, threads))
            ours, peer = pairs[-1]
            line = {"config": said.config, "overrides": said.overrides, "seed": seed, "threads_each": threads, "ours": ours, "peer": peer}
            append("against_torchvision", line, said.out)
            print(f"seed {seed}: AP {ours['AP']:.3f} / {peer['AP']:.3f}  AP50 {ours['AP50']:.3f} / {peer['AP50']:.3f}  "
                  f"images/s {ours['images_per_s']:.2f} / {peer['images_per_s']:.2f}  (ours / torchvision)", flush=True)
    for key in ("AP", "AP50", "images_per_s"):
        a, b = (statistics.mean(run[key] for run in side) for side in zip(*pairs))
        ratios = sorted(o[key] / max(p[key], 1e-9) for o, p in pairs)
        print(f"{key}: ours {a:.4f}, torchvision {b:.4f}; ratio median {statistics.median(ratios):.3f} "
              f"({ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
