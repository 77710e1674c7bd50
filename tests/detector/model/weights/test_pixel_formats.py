"""Weights see what they were trained for only in their own pixel format: a linear probe on crops of real photographs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from detector.config.model_schema import Model
from detector.data.formats import coco
from detector.data.image_io import read_image
from detector.model.backbones import BACKBONES
from detector.model.preprocessing import PIXEL_FORMATS, Preprocessing, to_batch
from detector.model.weights.load import load_weights
from detector.structures import Resize

SIDE = 32       # pixels of a crop, as the network gets it
MIN_SIDE = 24   # pixels of the box that it is cut from
GROUPS = {"animal": range(16, 26), "food": range(52, 62), "furniture": range(62, 71), "vehicle": range(2, 10), "kitchen": range(44, 52),
          "electronic": range(72, 78), "appliance": range(78, 84), "indoor": range(84, 92), "accessory": range(27, 34),
          "sports": range(34, 44), "outdoor": range(10, 16)}  # COCO's category ids; people would be a third of all


@pytest.fixture
def caffe_weights() -> Path:
    path = SHARED.parent / "weights" / "vgg16_caffe_features.pth"
    if not path.is_file():
        pytest.skip("real weights are absent: no vgg16_caffe_features.pth in shared/weights beside the checkout")
    return path


def real_crops(root: Path, split: str) -> tuple[list[Tensor], Tensor]:
    """Returns the objects but people, uint8 [3, SIDE, SIDE] each, and the number of each one's group."""
    dataset = coco.read_ground_truth(str(root / "annotations" / f"instances_{split}.json")).dataset
    group_of_id = {category: number for number, ids in enumerate(GROUPS.values()) for category in ids}
    categories, images = dataset.category_ids[dataset.labels - 1], dataset.image_of_box()
    crops, groups = [], []
    for row, (x1, y1, x2, y2) in enumerate(dataset.boxes.round().astype(int).tolist()):
        if min(x2 - x1, y2 - y1) >= MIN_SIDE and not dataset.flags[row] and categories[row] in group_of_id:
            image = torch.as_tensor(read_image(str(root / split / Path(dataset.path(images[row])).name)))
            crop = image[:, y1:y2, x1:x2].float()[None]
            crops.append(interpolate(crop, (SIDE, SIDE), mode="bilinear", antialias=True)[0].round().byte())
            groups.append(group_of_id[categories[row]])
    return crops, torch.tensor(groups)


def pooled_features(config: Model, crops: list[Tensor]) -> Tensor:
    """Returns mean and maximum of the last features of a backbone with these options, float64 [N, 2 F]."""
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.backbone = BACKBONES[config.backbone].build(config).backbone.eval()
    if config.weights:
        assert len(load_weights(model, config, ()).loaded) == 26
    preprocessing = Preprocessing(PIXEL_FORMATS[config.pixel_format], SIDE)
    parts = []
    with torch.no_grad():
        for first in range(0, len(crops), 32):
            features = model.backbone(to_batch(crops[first:first + 32], Resize(SIDE, 0), preprocessing).tensors)["0"]
            parts.append(torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1))
    return torch.cat(parts).double()


def probe(train: Tensor, train_groups: Tensor, test: Tensor, test_groups: Tensor) -> float:
    """Returns the accuracy of a ridge regression of the groups on features, whose penalty is the features' mean square."""
    mean, targets = train.mean(0), one_hot(train_groups, len(GROUPS)).double()
    train, test = train - mean, test - mean
    products = train @ train.T
    penalty = products.diagonal().mean() * torch.eye(len(train), dtype=torch.float64)
    scores = test @ train.T @ torch.linalg.solve(products + penalty, targets - targets.mean(0)) + targets.mean(0)
    return float((scores.argmax(1) == test_groups).double().mean())


@pytest.mark.slow
def test_caffes_vgg16_tells_real_objects_apart_best_in_caffes_pixels_and_far_better_than_random_weights(coco_tiny, caffe_weights):
    (train, train_groups), (test, test_groups) = real_crops(coco_tiny, "train2017"), real_crops(coco_tiny, "val2017")
    assert min(len(train), len(test)) > 300
    own = Model(backbone="vgg16", weights=str(caffe_weights), pixel_format="caffe", roi_pooling_size=1)
    features = {name: pooled_features(config, [*train, *test]) for name, config in {
        "caffe": own, "torchvision": replace(own, pixel_format="torchvision"), "random": replace(own, weights="")}.items()}
    accuracies = {name: probe(rows[:len(train)], train_groups, rows[len(train):], test_groups) for name, rows in features.items()}
    most_frequent = np.bincount(test_groups).max() / len(test_groups)
    assert accuracies["caffe"] >= accuracies["torchvision"] + 0.03, accuracies
    assert accuracies["caffe"] >= max(accuracies["random"], most_frequent) + 0.12, (accuracies, most_frequent)
