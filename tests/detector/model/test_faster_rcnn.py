"""The assembled detector: the same as torchvision's where torchvision has it, and correct in every other combination."""

from dataclasses import replace

import pytest
import torch
from in_float64 import in_float64
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.models.detection import (
    FasterRCNN_ResNet50_FPN_V2_Weights,
    FasterRCNN_ResNet50_FPN_Weights,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
)
from torchvision.ops import FrozenBatchNorm2d

from detector.config.load import load_config
from detector.config.model_schema import Model, Roi, Rpn
from detector.config.schema import Evaluate
from detector.model.backbones import BACKBONES
from detector.model.faster_rcnn import build_model, to_device_and_layout, use_channels_last
from detector.model.ops.frozen_batchnorm import FrozenBatchNorm
from detector.model.weights.load import load_weights
from detector.structures import Resize, ceil_div

RESIZE = Resize(64, 96)
SMALL = Model(backbone="resnet18_fpn", weights="", norm="trained", frozen_stages=0, roi_pooling_size=3, fpn_channels=16,
              box_head_dim=32, rpn=Rpn(pre_nms_top_n_train=100, post_nms_top_n_train=50, pre_nms_top_n_eval=100,
                                         post_nms_top_n_eval=50), roi=Roi(batch_size_per_image=32))
TORCHVISION = {"resnet50_fpn": fasterrcnn_resnet50_fpn, "resnet50_fpn_v2": fasterrcnn_resnet50_fpn_v2,
               "mobilenet_v3_large_fpn": fasterrcnn_mobilenet_v3_large_fpn}
NO_BATCH_NORMS = {"vgg16", "convnext_tiny_fpn", "swin_t_fpn"}


def randomise(model: nn.Module) -> None:
    """Weights as of a trained network: norms that change their input, and heads whose scores differ."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            module.weight.data.uniform_(0.4, 0.9)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
        elif name.startswith(("rpn.head", "roi_heads")) and isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, a=9 if name.endswith("bbox_pred") else 0)  # boxes move a little


def random_images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]


def target(*boxes: tuple, label: int = 1) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.full((len(boxes),), label)}


def train_one_step(model: nn.Module, targets: list[dict]) -> dict[str, torch.Tensor]:
    """Returns the losses of one optimizer step on two images."""
    torch.manual_seed(1)
    losses = model.train()(random_images((64, 90), (80, 64)), targets, RESIZE)
    sum(losses.values()).backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01).step()
    return {name: loss.detach() for name, loss in losses.items()}


def all_finite(losses: dict[str, torch.Tensor]) -> bool:
    return all(loss.isfinite() for loss in losses.values())


def trained(model: nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def assert_same_detections(detections: list[dict], expected: list[dict]) -> None:
    """In float64, in which fifty layers add up to 1e-12; torchvision scales boxes back by ratios of float32 (6e-8)."""
    assert all(len(image["scores"]) > 20 for image in expected)  # else nothing would be compared with nothing
    for actual, image in zip(detections, expected, strict=True):
        assert torch.equal(actual["labels"], image["labels"])
        torch.testing.assert_close(actual["scores"], image["scores"], atol=1e-8, rtol=0)
        torch.testing.assert_close(actual["boxes"], image["boxes"], atol=1e-7, rtol=1e-7)


@pytest.mark.slow
@in_float64()
@pytest.mark.parametrize("backbone", TORCHVISION)
def test_torchvisions_detector_loads_completely_and_detects_the_same(backbone):
    torch.manual_seed(0)
    torchvision = TORCHVISION[backbone](weights=None, weights_backbone=None, num_classes=6, min_size=64, max_size=96,
                                        rpn_post_nms_top_n_test=20, box_score_thresh=0).eval()
    randomise(torchvision)
    config = load_config(f"coco/{backbone}").model
    config = replace(config, weights="", frozen_stages=0, rpn=replace(config.rpn, post_nms_top_n_eval=20))
    images = random_images((100, 140), (120, 90))
    with torch.no_grad():
        expected = torchvision([image / 255 for image in images])
    for norm in ("trained", "frozen"):
        model = build_model(replace(config, norm=norm), Evaluate(score_thresh=0), classes=5).eval()
        state = {key: value for key, value in torchvision.state_dict().items()
                 if norm == "trained" or not key.endswith("num_batches_tracked")}  # frozen norms count nothing
        model.load_state_dict(state, strict=True)
        assert_same_detections(model.predict(images, RESIZE)[0], expected)
    assert_same_detections(use_channels_last(model).predict(images, RESIZE)[0], expected)


@pytest.mark.parametrize("backbone", TORCHVISION)
def test_recipes_have_torchvisions_numbers(backbone):
    """Thresholds, counts and anchors, which no weights hold; read from the assembled parts on the meta device."""
    def numbers(model: nn.Module) -> dict:
        rpn, roi = model.rpn, model.roi_heads
        return {"anchors": rpn.anchor_generator.sizes, "ratios": rpn.anchor_generator.aspect_ratios,
                "before nms": rpn._pre_nms_top_n, "after nms": rpn._post_nms_top_n,
                "rpn": (rpn.nms_thresh, rpn.score_thresh, rpn.proposal_matcher.high_threshold,
                        rpn.proposal_matcher.low_threshold, vars(rpn.fg_bg_sampler)),
                "roi": (roi.score_thresh, roi.nms_thresh, roi.detections_per_img, roi.proposal_matcher.high_threshold,
                        roi.proposal_matcher.low_threshold, vars(roi.fg_bg_sampler), roi.box_coder.weights)}
    config = load_config(f"coco/{backbone}")
    with torch.device("meta"):
        expected = numbers(TORCHVISION[backbone](weights=None, weights_backbone=None))
        assert numbers(build_model(replace(config.model, heads="torchvision"), config.evaluate, classes=90)) == expected


def test_the_strongest_detector_has_as_many_parameters_as_torchvision_publishes():
    with torch.device("meta"):
        for heads in ("native", "torchvision"):
            config = Model(backbone="resnet50_fpn_v2", norm="trained", frozen_stages=0, heads=heads)
            model = build_model(config, Evaluate(), classes=90)
            published = FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["num_params"]
            assert sum(weight.numel() for weight in model.parameters()) == published == 43712278


@in_float64()
def test_coco_weights_are_run_as_torchvision_runs_them(monkeypatch):
    """torchvision sets the epsilon of the norms to 0 for these weights, and for no others."""
    torch.manual_seed(0)
    source = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    randomise(source)
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):  # so small that an epsilon of 1e-5 would change the result
            module.running_var.uniform_(1e-5, 4e-5)
            module.weight.data.uniform_(0.002, 0.005)
    state = source.state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *args, **kwargs: dict(state))
    torchvision = fasterrcnn_resnet50_fpn(weights="COCO_V1", min_size=64, max_size=96, rpn_post_nms_top_n_test=100,
                                          box_score_thresh=0).eval()
    config = load_config("coco/resnet50_fpn", ["model.weights=coco", "model.rpn.post_nms_top_n_eval=100"]).model
    model = build_model(config, Evaluate(score_thresh=0), classes=90).eval()
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    report = load_weights(model, config, tuple(names[1:]))
    assert not report.unused and not report.mismatched and not report.not_loaded
    images = random_images((64, 80))
    with torch.no_grad():
        expected = torchvision([images[0] / 255])
    assert_same_detections(model.predict(images, RESIZE)[0], expected)


EVERY_POOLING = [(name, pooling) for name in ("resnet18_c4", "resnet18_fpn") for pooling in ("align", "pool", "crop")]
OTHER_BACKBONES = [(name, "align") for name in ("vgg16", "mobilenet_v3_large_fpn", "resnet34_c4", "resnet34_fpn",
                                                "resnet50_fpn_v2", "convnext_tiny_fpn", "swin_t_fpn")]


@pytest.mark.parametrize("targets", ["one image empty", "all images empty"])
@pytest.mark.parametrize("backbone, pooling", EVERY_POOLING + OTHER_BACKBONES)
def test_every_trained_weight_gets_a_gradient_whatever_the_images_hold(backbone, pooling, targets):
    """With DistributedDataParallel, a weight without a gradient on one rank makes all other ranks wait for it."""
    torch.manual_seed(0)
    size = 1 if backbone == "vgg16" else 3  # 1: a small fc6
    model = build_model(replace(SMALL, backbone=backbone, roi_pooling=pooling, roi_pooling_size=size), Evaluate(), classes=2)
    first = target((10, 10, 50, 60), (30, 5, 60, 40)) if targets == "one image empty" else target()
    losses = train_one_step(model, [first, target()])
    assert list(losses) == ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"]
    assert all(loss.shape == () and loss.dtype == torch.float32 for loss in losses.values()) and all_finite(losses)
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    assert all(weight.grad.isfinite().all() for weight in model.parameters())
    for name in ("loss_rpn_box_reg", "loss_box_reg"):
        assert losses[name] > 0 if targets == "one image empty" else losses[name] == 0


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_fits_its_pooling_and_head(name):
    """Shapes alone, on the meta device: an image of 96 x 128 has ceil(side / stride) cells at each level."""
    with torch.device("meta"):
        model = build_model(Model(backbone=name, norm="trained"), Evaluate(), classes=4)
        levels = model.backbone(torch.empty(1, 3, 96, 128))
        strides, size = model.roi_heads.box_roi_pool.strides, model.roi_heads.box_roi_pool.size
        for level, stride in strides.items():
            assert levels[level].shape == (1, model.backbone.out_channels, ceil_div(96, stride), ceil_div(128, stride))
        hidden = model.roi_heads.box_head(torch.empty(5, model.backbone.out_channels, size, size))
        scores, deltas = model.roi_heads.box_predictor(hidden)
        assert (scores.shape, deltas.shape) == ((5, 5), (5, 20))
        assert len(model.rpn.anchors.sizes) == len(levels)
        logits, _ = model.rpn.head(list(levels.values()))
    assert [level.shape[1] for level in logits] == model.rpn.anchors.num_anchors_per_location()
    norms = {type(module) for module in model.modules() if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm))}
    assert norms == (set() if name in NO_BATCH_NORMS else {nn.BatchNorm2d, FrozenBatchNorm})  # two stages are frozen


def test_a_class_agnostic_predictor_has_one_box_for_every_class():
    torch.manual_seed(0)
    model = build_model(replace(SMALL, class_agnostic=True), Evaluate(score_thresh=0), classes=3)
    predictor = model.roi_heads.box_predictor
    assert predictor.bbox_pred.weight.shape == (4, SMALL.box_head_dim)
    hidden = torch.randn(5, SMALL.box_head_dim)
    scores, deltas = predictor(hidden)
    assert scores.shape == (5, 4)
    for label in range(4):
        torch.testing.assert_close(deltas[:, 4 * label:4 * label + 4], predictor.bbox_pred(hidden))
    losses = train_one_step(model, [target((10, 10, 50, 60), label=3), target()])
    assert all_finite(losses) and all(weight.grad is not None for weight in model.parameters())
    assert predictor(hidden[:0])[1].shape == (0, 16)


RESNET = ["conv1 bn1", "layer1", "layer2", "layer3", "layer4"]
VGG = ["backbone.0. backbone.2.", "backbone.5. backbone.7.", "backbone.10. backbone.12. backbone.14.",
       "backbone.17. backbone.19. backbone.21.", "backbone.24. backbone.26. backbone.28."]


TINY = ["0.", "1.", "2. 3.", "4. 5.", "6. 7."]


@pytest.mark.parametrize("frozen", range(6))
@pytest.mark.parametrize("backbone, stages, prefix", [
    ("resnet18_fpn", RESNET, "backbone.body."), ("resnet18_c4", RESNET, "backbone."), ("vgg16", VGG, ""),
    ("convnext_tiny_fpn", TINY, "backbone.body."), ("swin_t_fpn", TINY, "backbone.body.")])
def test_the_first_stages_are_frozen_and_all_others_are_trained(backbone, stages, prefix, frozen):
    with torch.device("meta"):
        model = build_model(replace(SMALL, backbone=backbone, frozen_stages=frozen), Evaluate(), classes=2)
    names = [prefix + name for stage in stages[:frozen] for name in stage.split()]
    if backbone.endswith("c4") and frozen == 5:
        names.append("roi_heads.box_head.layer4")  # layer4 is the box head there
    untrained = {name for name, _ in model.named_parameters() if name.startswith(tuple(names))} if names else set()
    if backbone.endswith("c4"):
        assert not any(name.startswith("backbone.layer4") for name, _ in model.named_parameters())
    assert trained(model) == {name for name, _ in model.named_parameters()} - untrained
    assert frozen == 0 or len(untrained) > 0
    inside = {name for name, module in model.named_modules() if isinstance(module, FrozenBatchNorm2d)}
    assert all(name.startswith(tuple(names)) for name in inside)
    outside = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert not any(names and name.startswith(tuple(names)) for name in outside)


@pytest.mark.parametrize("frozen, first_trained", [(0, 0), (1, 2), (2, 4), (3, 7), (4, 13), (5, 16), (6, 17)])
def test_mobilenet_stages_begin_where_the_stride_doubles(frozen, first_trained):
    with torch.device("meta"):
        model = build_model(replace(SMALL, backbone="mobilenet_v3_large_fpn", frozen_stages=frozen), Evaluate(), classes=2)
    blocks = model.backbone.body
    for number, block in blocks.items():
        assert {p.requires_grad for p in block.parameters()} == {int(number) >= first_trained}
    # For an image of 64 pixels: the first block of a stage halves the map; only the last stage does not.
    with torch.device("meta"):
        sides, image = [64], torch.empty(1, 3, 64, 64)
        for block in blocks.values():
            image = block(image)
            sides.append(image.shape[-1])
    halving = [number for number in range(len(sides) - 1) if sides[number + 1] < sides[number]]
    assert first_trained in [*halving, 16, 17]


@pytest.mark.parametrize("norm", ["trained", "frozen"])
def test_frozen_norms_keep_their_statistics_and_trained_ones_do_not(norm):
    torch.manual_seed(0)
    model = build_model(replace(SMALL, norm=norm, frozen_stages=2), Evaluate(), classes=2)
    randomise(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_one_step(model, [target((10, 10, 50, 60)), target()])
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    untrained = ("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1")
    assert not [name for name in changed if name.startswith(untrained)]
    statistics = {name for name in changed if "running_" in name}
    if norm == "frozen":
        assert statistics == set()
        assert not [name for name in changed if ".bn" in name or "downsample.1" in name]
    else:
        expected = {name for name in before if "running_" in name and not name.startswith(untrained)}
        assert statistics == expected and expected


def test_frozen_and_trained_norms_share_their_names():
    """A checkpoint of one is read by the other."""
    with torch.device("meta"):
        states = [build_model(replace(SMALL, norm=norm), Evaluate(), 2).state_dict() for norm in ("trained", "frozen")]
    assert {key for key in states[0] if not key.endswith("num_batches_tracked")} == set(states[1])


@pytest.mark.parametrize("backbone, configured, expected", [
    ("resnet18_fpn", (), ((32,), (64,), (128,), (256,), (512,))),
    ("resnet18_fpn", ((8,), (16,), (32,), (64,), (96,)), ((8,), (16,), (32,), (64,), (96,))),
    ("resnet18_fpn", ((8, 24),), ((8, 24),) * 5),  # one list is for every level
    ("resnet18_c4", ((16, 48),), ((16, 48),))])
def test_anchors_are_those_of_the_config(backbone, configured, expected):
    config = replace(SMALL, backbone=backbone, anchor_sizes=configured, anchor_ratios=(0.5, 2.0))
    model = build_model(config, Evaluate(), classes=2)
    assert model.rpn.anchors.sizes == expected
    for sizes, anchors in zip(expected, map(torch.tensor, model.rpn.anchors.cell_anchors([16] * len(expected)))):
        width, height = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
        heights = [size * (root ** 0.5) ** sign for root, sign in ((0.5, 1), (2.0, 1)) for size in sizes]
        assert height.tolist() == pytest.approx(heights, abs=1)  # torchvision rounds corners to whole pixels
        assert (width * height).sqrt().tolist() == pytest.approx(list(sizes) * 2, abs=1)
    losses = train_one_step(model, [target((10, 10, 50, 60)), target()])
    assert all_finite(losses)


def test_predicting_with_losses_leaves_the_model_in_eval_mode():
    torch.manual_seed(0)
    model = build_model(SMALL, Evaluate(score_thresh=0), classes=2).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = random_images((64, 90), (80, 64))
    without_targets, no_losses = model.predict(images, RESIZE)
    with_targets, losses = model.predict(images, RESIZE, [target((10, 10, 50, 60)), target()])
    assert no_losses is None and len(losses) == 4 and all_finite(losses)
    assert [name for name, module in model.named_modules() if module.training] == []
    assert not any(loss.requires_grad for loss in losses.values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for first, second in zip(with_targets, without_targets):
        assert all(torch.equal(first[key], second[key]) for key in second)
    assert all_finite(model.predict(images, RESIZE, [target(), target()])[1])


def test_a_model_is_in_eval_mode_after_a_failed_prediction():
    model = build_model(SMALL, Evaluate(), classes=2).eval()
    with pytest.raises(KeyError):
        model.predict(random_images((64, 64)), RESIZE, [{"labels": torch.zeros(0, dtype=torch.int64)}])
    assert not any(module.training for module in model.modules())


def test_validation_losses_are_those_of_training():
    """Without dropout and trained norms only the samplers are random, and they are seeded here."""
    torch.manual_seed(0)
    model = build_model(replace(SMALL, norm="frozen"), Evaluate(), classes=2)
    images, targets = random_images((64, 90), (80, 64)), [target((10, 10, 50, 60), (20, 30, 40, 60)), target()]
    torch.manual_seed(7)
    training = {name: loss.detach() for name, loss in model.train()(images, targets, RESIZE).items()}
    torch.manual_seed(7)
    _, validation = model.eval().predict(images, RESIZE, targets)
    assert list(validation) == list(training)
    torch.testing.assert_close(validation, training)


def test_detections_are_in_the_pixels_of_each_image():
    torch.manual_seed(0)
    model = build_model(SMALL, Evaluate(score_thresh=0), classes=2).eval()
    sizes = (200, 260), (40, 30)  # the first is shrunk, the second enlarged
    detections, _ = model.predict(random_images(*sizes), RESIZE)
    for image, (height, width) in zip(detections, sizes):
        right, bottom = float(image["boxes"][:, 2].max()), float(image["boxes"][:, 3].max())
        assert image["boxes"].min() >= 0  # and boxes at the border end there, up to float32's rounding
        assert 0.9 * width < right <= width * (1 + 1e-5) and 0.9 * height < bottom <= height * (1 + 1e-5)


def test_targets_stay_unchanged():
    torch.manual_seed(0)
    model = build_model(SMALL, Evaluate(), classes=2)
    first = target((10, 10, 50, 60))
    train_one_step(model, [first, target()])
    assert torch.equal(first["boxes"], target((10, 10, 50, 60))["boxes"])


@pytest.mark.parametrize("capability, wanted, used", [("AVX512", True, True), ("AVX512_AMX", True, True), ("AVX2", True, False),
                                                      ("DEFAULT", True, False), ("AVX512", False, False)])
def test_channels_last_is_used_where_it_is_wanted_and_faster(capability, wanted, used, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    model = to_device_and_layout(build_model(SMALL, Evaluate(), 2), wanted, torch.device("cpu"))
    weight = model.backbone.body.layer1[0].conv1.weight
    assert model.preprocessing.channels_last is used
    assert weight.is_contiguous(memory_format=torch.channels_last) is used
