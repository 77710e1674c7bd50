"""The networks of the published tables: number of parameters, anchors, and a training step of each."""

from dataclasses import replace

import pytest
import torch

from detector.config.model_schema import Model, Roi, Rpn
from detector.config.schema import Evaluate
from detector.model.backbones import BACKBONES
from detector.model.faster_rcnn import build_model
from detector.structures import Resize

RPN = Rpn(conv_channels=512, softmax_objectness=True, train_on_crossing_anchors=False, pre_nms_top_n_train=12000,
          pre_nms_top_n_eval=6000, post_nms_top_n_eval=300, box_loss_normalizer="last_image")
ORIGINAL = Model(backbone="vgg16", stride_in_1x1=False, pixel_format="caffe", size_divisor=1, roi_pooling="align_original",
                 anchor_sizes=((128, 256, 512),), inclusive_boxes=True, legacy_anchors=True, rpn=RPN,
                 roi=Roi(batch_size_per_image=128, sample_with_replacement=True, smooth_l1_beta=1.0, predictor_init="normal"))
RESNET = replace(ORIGINAL, stride_in_1x1=True, ceil_pool=True)


@pytest.mark.parametrize("config, classes, parameters", [
    (ORIGINAL, 20, 137_078_239), (replace(RESNET, backbone="resnet101_c4"), 20, 47_462_111),
    # By hand: 80 classes instead of 20 are 60 rows of score and 240 of boxes more; agnostic boxes are 4 rows.
    (ORIGINAL, 80, 137_078_239 + 300 * 4097), (replace(ORIGINAL, class_agnostic=True), 20, 137_078_239 - 80 * 4097),
    (replace(RESNET, backbone="resnet101_c4"), 80, 47_462_111 + 300 * 2049)])
def test_parameters_are_as_many_as_counted_by_hand(config, classes, parameters):
    """With trained norms, so that their weights and biases count as parameters, too."""
    with torch.device("meta"):
        model = build_model(replace(config, norm="trained", frozen_stages=0), Evaluate(), classes)
    assert sum(weight.numel() for weight in model.parameters()) == parameters


@pytest.mark.parametrize("norm", ["frozen", "trained"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_is_built_without_memory(backbone, norm):
    with torch.device("meta"):
        model = build_model(Model(backbone=backbone, norm=norm), Evaluate(), 2500)
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


@pytest.mark.parametrize("config, cells", [  # of an image 600 x 1000: VGG rounds down, a ResNet rounds up
    (ORIGINAL, (37, 62)), (replace(RESNET, backbone="resnet101_c4"), (38, 63)), (replace(RESNET, backbone="resnet50_c4"), (38, 63))])
def test_anchors_lie_sixteen_pixels_apart_whatever_the_padded_size(config, cells):
    with torch.device("meta"):
        model = build_model(config, Evaluate(), 20)
        feature = model.backbone(torch.empty(1, 3, 600, 1000))["0"]
    assert tuple(feature.shape[-2:]) == cells
    anchors = model.rpn.anchors.grid([cells], (600, 1000), torch.empty(0)).reshape(*cells, 9, 4)
    assert anchors[0, 0, 0].tolist() == [-84, -40, 99, 55], "the first anchor of VOC, where the first pixel is 0"
    assert (anchors[1:] - anchors[:-1]).unique(dim=0).reshape(-1, 4).unique(dim=0).tolist() == [[0, 16, 0, 16]]
    assert (anchors[:, 1:] - anchors[:, :-1]).reshape(-1, 4).unique(dim=0).tolist() == [[16, 0, 16, 0]]


@pytest.mark.slow
@pytest.mark.parametrize("config", [
    replace(ORIGINAL, dropout=0.0), replace(RESNET, backbone="resnet50_c4")], ids=["vgg16", "resnet50_c4"])
def test_a_step_of_the_original_recipe_gives_every_trained_weight_a_gradient(config):
    torch.manual_seed(0)
    config = replace(config, anchor_sizes=((16, 32),), roi_pooling_size=7 if "c4" in config.backbone else 2,
                     rpn=replace(RPN, post_nms_top_n_train=100))
    model = build_model(config, Evaluate(), 3).train()
    images = [torch.randint(0, 256, (3, 50, 75), dtype=torch.uint8) for _ in range(2)]
    targets = [{"boxes": torch.tensor([[5.0, 6, 40, 40], [30, 2, 74, 30]]), "labels": torch.tensor([1, 3]),
                "frame": (0, 0, 50, 75, 50, 80)}, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64),
                                                   "frame": (0, 0, 50, 75, 50, 80)}]
    losses = model(images, targets, Resize(50, 0))
    sum(losses.values()).backward()
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == trained
    untrained = {name for name, _ in model.named_parameters()} - trained
    first = [f"backbone.{n}." for n in (0, 2, 5, 7)] if config.backbone == "vgg16" else ["backbone.conv1", "backbone.layer1"]
    assert all(name.startswith(tuple(first)) for name in untrained) and len(untrained) > 0
    if "c4" in config.backbone:
        assert not any("bn" in name or "downsample.1" in name for name in trained), "norms are not trained"
