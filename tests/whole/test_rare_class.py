"""A class of 1 % of the objects: a real training finds it more often with batch.repeat_threshold, after as many steps."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image
from torch import nn

from detector import load_config, train
from detector.config.load import run_folder
from detector.data.formats.shapes import shape_mask
from detector.model.backbones import BACKBONES, Backbone, BackboneParts, SingleLevel
from detector.seeding import numpy_random_state

CLASSES = ["circle", "square", "ring"]  # rings are rare
SIDE, STEPS = 64, 200
SIZES = [f"augment.min_size=[{SIDE}]", f"augment.max_size={SIDE}", f"evaluate.min_size={SIDE}", f"evaluate.max_size={SIDE}"]
OPTIONS = [*TINY, *SIZES, "data.format=coco", "model.backbone=small", "model.anchor_sizes=[[20]]", "model.anchor_ratios=[1.0]",
           "model.size_divisor=8", "batch.size=8", "batch.micro_batch_size=8", "optim.reference_batch_size=8", "optim.lr=0.02",
           "schedule.epochs=0", f"schedule.steps={STEPS}", "schedule.milestones=[]", "schedule.lr_schedule=cosine",
           "schedule.warmup_steps=20", "evaluate.every_epochs=0", "evaluate.batch_size=10", "run.log_every_steps=100",
           "run.num_val_images=0"]


def draw_split(root: Path, split: str, labels: np.ndarray) -> None:
    """Draws an image of grey noise for each row of labels [I, 2], with brighter shapes of these classes side by side."""
    (root / split).mkdir()
    images, annotations = [], []
    for number, of_image in enumerate(labels.tolist(), start=1):
        state = numpy_random_state(number + 10_000 * (split == "val"))
        pixels = state.normal(110, 20, (SIDE, SIDE, 3))
        for column, label in enumerate(of_image):
            center = 16 + 32 * column + state.uniform(-3, 3), state.uniform(14, 50)
            mask = shape_mask(CLASSES[label - 1], (SIDE, SIDE), center, state.uniform(8, 12), 0.0)
            pixels[np.asarray(mask) > 0] = 0.3 * pixels[np.asarray(mask) > 0] + state.uniform(160, 250)
            left, top, right, bottom = mask.getbbox()
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": label, "iscrowd": 0,
                                "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)})
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / split / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": [
        {"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)]}))


@pytest.fixture
def rings(tmp_path) -> Path:
    """Returns a data set: 8 of 800 objects are rings in training, 50 of 200 in validation."""
    root, state = tmp_path / "rings", numpy_random_state(0)
    (root / "annotations").mkdir(parents=True)
    train_labels, val_labels = (state.randint(1, 3, (count, 2)) for count in (400, 100))
    train_labels[:8, 0] = val_labels[:50, 0] = 3
    draw_split(root, "train", train_labels)
    draw_split(root, "val", val_labels)
    return root


class BoxHead(nn.Sequential):
    out_channels = 64

    def forward(self, pooled):
        return super().forward(pooled.flatten(1))


def build_small(config) -> BackboneParts:
    """Returns three convolutions, so that a step takes 25 ms of one core."""
    layers = [layer for inputs, outputs in ((3, 16), (16, 32), (32, 32))
              for layer in (nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())]
    backbone = SingleLevel(*layers)
    backbone.out_channels = 32
    return BackboneParts(backbone, BoxHead(nn.Linear(32 * config.roi_pooling_size ** 2, 64), nn.ReLU()), [layers])


def ap50_of_classes(root: Path, config_file: Path, threshold: float, seed: int) -> dict[str, float]:
    """Trains and returns the AP50 of each class on the validation images."""
    config = load_config(str(config_file), [*OPTIONS, f"data.root={root}", f"data.cache={root}-cache", f"run.folder={root}-runs",
                                            f"run.name={seed}-{threshold}", f"seed={seed}", f"batch.repeat_threshold={threshold}"])
    train(config)
    results = json.loads((run_folder(config) / "results.json").read_text())
    assert results["step"] == STEPS
    return {name: metrics["AP50"] for name, metrics in results["per_class"].items()}


@pytest.mark.slow
def test_a_class_of_one_percent_of_the_objects_is_found_more_often_after_as_many_steps(rings, config_file, monkeypatch):
    """Means of two seeds."""
    monkeypatch.setitem(BACKBONES, "small", Backbone(build_small, {"0": 8}, ((20,),), num_stages=1))
    plain, repeated = ([ap50_of_classes(rings, config_file, threshold, seed) for seed in (0, 1)]
                       for threshold in (0, 0.5))  # sqrt(0.5 / 0.02): images with rings are drawn five times as often
    gains = {name: np.mean([run[name] for run in repeated]) - np.mean([run[name] for run in plain]) for name in CLASSES}
    assert gains["ring"] > 0.3 and min(gains["circle"], gains["square"]) > -0.1, (plain, repeated)
