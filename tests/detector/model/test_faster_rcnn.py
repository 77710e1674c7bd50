"""The assembled detector: the same as torchvision's where torchvision has it, and sound in every other combination."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.models.detection import (
    FasterRCNN_ResNet50_FPN_Weights,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
)
from torchvision.ops import FrozenBatchNorm2d

from detector.config.load import load_config
from detector.config.model_schema import BACKBONE_NAMES, Model, Roi, Rpn
from detector.config.schema import Evaluate
from detector.model.faster_rcnn import LOSSES, build_model, to_device_and_layout, use_channels_last
from detector.model.ops.frozen_batchnorm import FrozenBatchNorm
from detector.model.weights.load import load_weights
from detector.structures import Resize

SIDE = Resize(64, 96)
SMALL = Model(backbone="resnet18_fpn", weights="", norm="trained", frozen_stages=0, roi_pooling_size=3, fpn_channels=16,
              box_head_dim=32, rpn=Rpn(pre_nms_top_n_train=100, post_nms_top_n_train=50, pre_nms_top_n_eval=100, post_nms_top_n_eval=50),
              roi=Roi(batch_size_per_image=32))
PEERS = {"resnet50_fpn": fasterrcnn_resnet50_fpn, "mobilenet_v3_large_fpn": fasterrcnn_mobilenet_v3_large_fpn}


def randomise(model: nn.Module) -> None:
    """Weights as of a trained network: norms that matter, and heads that are sure of something."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            module.weight.data.uniform_(0.4, 0.9)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
        elif name.startswith(("rpn.head", "roi_heads")) and isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, a=9 if name.endswith("bbox_pred") else 0)  # boxes move a little


def pictures(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]


def target(*boxes: tuple, label: int = 1) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.full((len(boxes),), label)}


def one_step(model: nn.Module, targets: list[dict]) -> torch.Tensor:
    """Losses of one optimiser step on two pictures."""
    torch.manual_seed(1)
    losses = model.train()(pictures((64, 90), (80, 64)), targets, SIDE)
    losses.sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01).step()
    return losses.detach()


def learning(model: nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def assert_same_detections(ours: list[dict], theirs: list[dict]) -> None:
    assert all(len(one["scores"]) > 20 for one in theirs)  # else this would compare nothing with nothing
    for mine, one in zip(ours, theirs, strict=True):
        assert torch.equal(mine["labels"], one["labels"])
        torch.testing.assert_close(mine["scores"], one["scores"], atol=1e-4, rtol=0)
        torch.testing.assert_close(mine["boxes"], one["boxes"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("body", PEERS)
def test_torchvisions_detector_loads_completely_and_detects_the_same(body):
    torch.manual_seed(0)
    peer = PEERS[body](weights=None, weights_backbone=None, num_classes=6, min_size=64, max_size=96,
                       rpn_post_nms_top_n_test=100, box_score_thresh=0).eval()
    randomise(peer)
    recipe = load_config(f"coco/{body}").model
    recipe = replace(recipe, weights="", frozen_stages=0, rpn=replace(recipe.rpn, post_nms_top_n_eval=100))
    images = pictures((100, 140), (120, 90))
    with torch.no_grad():
        theirs = peer([image / 255 for image in images])
    for norm in ("trained", "frozen"):
        ours = build_model(replace(recipe, norm=norm), Evaluate(score_thresh=0), classes=5).eval()
        state = {key: value for key, value in peer.state_dict().items()
                 if norm == "trained" or not key.endswith("num_batches_tracked")}  # frozen norms count nothing
        ours.load_state_dict(state, strict=True)
        assert_same_detections(ours.predict(images, SIDE)[0], theirs)
    assert_same_detections(use_channels_last(ours).predict(images, SIDE)[0], theirs)


@pytest.mark.parametrize("body", PEERS)
def test_recipes_have_torchvisions_numbers(body):
    """What the weights do not say: thresholds, counts and anchors. Read from the assembled parts, on no device."""
    def numbers(model: nn.Module) -> dict:
        rpn, roi = model.rpn, model.roi_heads
        return {"anchors": rpn.anchor_generator.sizes, "ratios": rpn.anchor_generator.aspect_ratios,
                "before nms": rpn._pre_nms_top_n, "after nms": rpn._post_nms_top_n,
                "rpn": (rpn.nms_thresh, rpn.score_thresh, rpn.proposal_matcher.high_threshold,
                        rpn.proposal_matcher.low_threshold, vars(rpn.fg_bg_sampler)),
                "roi": (roi.score_thresh, roi.nms_thresh, roi.detections_per_img, roi.proposal_matcher.high_threshold,
                        roi.proposal_matcher.low_threshold, vars(roi.fg_bg_sampler), roi.box_coder.weights)}
    config = load_config(f"coco/{body}")
    with torch.device("meta"):
        theirs = numbers(PEERS[body](weights=None, weights_backbone=None))
        assert numbers(build_model(replace(config.model, heads="torchvision"), config.evaluate, classes=90)) == theirs


def test_coco_weights_are_run_as_torchvision_runs_them(monkeypatch):
    """torchvision sets the epsilon of the norms to 0 for these weights, and for no others."""
    torch.manual_seed(0)
    source = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    randomise(source)
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):  # so small that an epsilon of 1e-5 would be seen
            module.running_var.uniform_(1e-5, 4e-5)
            module.weight.data.uniform_(0.002, 0.005)
    state = source.state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *args, **kwargs: dict(state))
    few = {"rpn_post_nms_top_n_test": 100, "box_score_thresh": 0}
    peer = fasterrcnn_resnet50_fpn(weights="COCO_V1", min_size=64, max_size=96, **few).eval()
    config = load_config("coco/resnet50_fpn", ["model.weights=coco", "model.rpn.post_nms_top_n_eval=100"]).model
    ours = build_model(config, Evaluate(score_thresh=0), classes=90).eval()
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    report = load_weights(ours, config, tuple(names[1:]))
    assert not report.left_out and not report.other_shape and not report.fresh
    images = pictures((64, 80))
    with torch.no_grad():
        theirs = peer([images[0] / 255])
    assert_same_detections(ours.predict(images, SIDE)[0], theirs)


EVERY_POOLING = [(body, pooling) for body in ("resnet18_c4", "resnet18_fpn") for pooling in ("align", "pool", "crop")]
OTHER_BODIES = [(body, "align") for body in ("vgg16", "mobilenet_v3_large_fpn", "resnet34_c4", "resnet34_fpn")]


@pytest.mark.parametrize("targets", ["one image empty", "all images empty"])
@pytest.mark.parametrize("body, pooling", EVERY_POOLING + OTHER_BODIES)
def test_every_learning_weight_gets_a_gradient_whatever_is_in_the_images(body, pooling, targets):
    """A weight that one rank leaves out of its graph makes all others wait for it."""
    torch.manual_seed(0)
    config = replace(SMALL, backbone=body, roi_pooling=pooling, roi_pooling_size=1 if body == "vgg16" else 3)  # 1: a small fc6
    model = build_model(config, Evaluate(), classes=2)
    first = target((10, 10, 50, 60), (30, 5, 60, 40)) if targets == "one image empty" else target()
    losses = one_step(model, [first, target()])
    assert losses.shape == (len(LOSSES),) and losses.dtype == torch.float32 and losses.isfinite().all()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    assert all(weight.grad.isfinite().all() for weight in model.parameters())
    boxes = losses[[LOSSES.index("loss_rpn_box_reg"), LOSSES.index("loss_box_reg")]]
    assert (boxes > 0).all() if targets == "one image empty" else (boxes == 0).all()


@pytest.mark.parametrize("body", BACKBONE_NAMES)
def test_every_body_fits_its_pooling_and_head(body):
    """Shapes alone, on the meta device: an image 96 x 128 has ceil(side / stride) cells at each level."""
    with torch.device("meta"):
        model = build_model(Model(backbone=body, norm="trained"), Evaluate(), classes=4)
        levels = model.backbone(torch.empty(1, 3, 96, 128))
        strides, size = model.roi_heads.box_roi_pool.strides, model.roi_heads.box_roi_pool.size
        for name, stride in strides.items():
            assert levels[name].shape == (1, model.backbone.out_channels, -(-96 // stride), -(-128 // stride))
        hidden = model.roi_heads.box_head(torch.empty(5, model.backbone.out_channels, size, size))
        scores, deltas = model.roi_heads.box_predictor(hidden)
        assert (scores.shape, deltas.shape) == ((5, 5), (5, 20))
        assert len(model.rpn.anchors.sizes) == len(levels)
        logits, _ = model.rpn.head(list(levels.values()))
    each = model.rpn.anchors.per_cell()
    assert [level.shape[1] for level in logits] == each
    norms = {type(module) for module in model.modules() if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm))}
    assert norms == (set() if body == "vgg16" else {nn.BatchNorm2d, FrozenBatchNorm})  # two stages are frozen


def test_class_agnostic_learns_one_box_and_shows_it_to_every_class():
    torch.manual_seed(0)
    model = build_model(replace(SMALL, class_agnostic=True), Evaluate(score_thresh=0), classes=3)
    predictor = model.roi_heads.box_predictor
    assert predictor.bbox_pred.weight.shape == (4, SMALL.box_head_dim)
    hidden = torch.randn(5, SMALL.box_head_dim)
    scores, deltas = predictor(hidden)
    assert scores.shape == (5, 4)
    for label in range(4):
        torch.testing.assert_close(deltas[:, 4 * label:4 * label + 4], predictor.bbox_pred(hidden))
    losses = one_step(model, [target((10, 10, 50, 60), label=3), target()])
    assert losses.isfinite().all() and all(weight.grad is not None for weight in model.parameters())
    assert predictor(hidden[:0])[1].shape == (0, 16)


RESNET = ["conv1 bn1", "layer1", "layer2", "layer3", "layer4"]
VGG = ["backbone.0. backbone.2.", "backbone.5. backbone.7.", "backbone.10. backbone.12. backbone.14.",
       "backbone.17. backbone.19. backbone.21.", "backbone.24. backbone.26. backbone.28."]


@pytest.mark.parametrize("frozen", range(6))
@pytest.mark.parametrize("body, stages, where", [
    ("resnet18_fpn", RESNET, "backbone.body."), ("resnet18_c4", RESNET, "backbone."), ("vgg16", VGG, "")])
def test_the_first_stages_do_not_learn_and_all_others_do(body, stages, where, frozen):
    with torch.device("meta"):
        model = build_model(replace(SMALL, backbone=body, frozen_stages=frozen), Evaluate(), classes=2)
    names = [where + name for stage in stages[:frozen] for name in stage.split()]
    names += ["roi_heads.box_head.layer4"] * (body.endswith("c4") and frozen == 5)  # layer4 is the box head there
    still = {name for name, _ in model.named_parameters() if name.startswith(tuple(names))} if names else set()
    if body.endswith("c4"):
        assert not any(name.startswith("backbone.layer4") for name, _ in model.named_parameters())
    assert learning(model) == {name for name, _ in model.named_parameters()} - still
    assert frozen == 0 or len(still) > 0
    inside = {name for name, module in model.named_modules() if isinstance(module, FrozenBatchNorm2d)}
    assert all(name.startswith(tuple(names)) for name in inside)
    outside = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert not any(names and name.startswith(tuple(names)) for name in outside)


@pytest.mark.parametrize("frozen, first_learning", [(0, 0), (1, 2), (2, 4), (3, 7), (4, 13), (5, 16), (6, 17)])
def test_mobilenet_stages_begin_where_the_stride_doubles(frozen, first_learning):
    with torch.device("meta"):
        model = build_model(replace(SMALL, backbone="mobilenet_v3_large_fpn", frozen_stages=frozen), Evaluate(), classes=2)
    body = model.backbone.body
    for number, block in body.items():
        assert {p.requires_grad for p in block.parameters()} == {int(number) >= first_learning}
    # On an image of 64: a block that begins a stage halves the map it is given; the last stage is one of its own.
    with torch.device("meta"):
        sides, image = [64], torch.empty(1, 3, 64, 64)
        for block in body.values():
            image = block(image)
            sides.append(image.shape[-1])
    halving = [number for number in range(len(sides) - 1) if sides[number + 1] < sides[number]]
    assert first_learning in [*halving, 16, 17]


@pytest.mark.parametrize("norm", ["trained", "frozen"])
def test_frozen_norms_keep_their_statistics_and_learning_ones_do_not(norm):
    torch.manual_seed(0)
    model = build_model(replace(SMALL, norm=norm, frozen_stages=2), Evaluate(), classes=2)
    randomise(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one_step(model, [target((10, 10, 50, 60)), target()])
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    still = ("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1")
    assert not [name for name in changed if name.startswith(still)]
    statistics = {name for name in changed if "running_" in name}
    if norm == "frozen":
        assert statistics == set()
        assert not [name for name in changed if ".bn" in name or "downsample.1" in name]
    else:
        expected = {name for name in before if "running_" in name and not name.startswith(still)}
        assert statistics == expected and expected


def test_frozen_and_trained_norms_share_their_names():
    """So a checkpoint of one is read by the other."""
    with torch.device("meta"):
        states = [build_model(replace(SMALL, norm=norm), Evaluate(), 2).state_dict() for norm in ("trained", "frozen")]
    assert {key for key in states[0] if not key.endswith("num_batches_tracked")} == set(states[1])


@pytest.mark.parametrize("body, said, expected", [
    ("resnet18_fpn", (), ((32,), (64,), (128,), (256,), (512,))),
    ("resnet18_fpn", ((8,), (16,), (32,), (64,), (96,)), ((8,), (16,), (32,), (64,), (96,))),
    ("resnet18_fpn", ((8, 24),), ((8, 24),) * 5),  # one list is for every level
    ("resnet18_c4", ((16, 48),), ((16, 48),))])
def test_anchors_are_those_of_the_config(body, said, expected):
    model = build_model(replace(SMALL, backbone=body, anchor_sizes=said, anchor_ratios=(0.5, 2.0)), Evaluate(), classes=2)
    assert model.rpn.anchors.sizes == expected
    for sizes, anchors in zip(expected, map(torch.tensor, model.rpn.anchors.cells([16] * len(expected)))):
        width, height = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
        want = [size * (root ** 0.5) ** sign for root, sign in ((0.5, 1), (2.0, 1)) for size in sizes]
        assert height.tolist() == pytest.approx(want, abs=1)  # torchvision rounds corners to whole pixels
        assert (width * height).sqrt().tolist() == pytest.approx(list(sizes) * 2, abs=1)
    losses = one_step(model, [target((10, 10, 50, 60)), target()])
    assert losses.isfinite().all()


def test_predicting_with_losses_leaves_the_model_in_eval_mode():
    torch.manual_seed(0)
    model = build_model(SMALL, Evaluate(score_thresh=0), classes=2).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = pictures((64, 90), (80, 64))
    alone, nothing = model.predict(images, SIDE)
    found, losses = model.predict(images, SIDE, [target((10, 10, 50, 60)), target()])
    assert nothing is None and losses.shape == (len(LOSSES),) and losses.isfinite().all()
    assert [name for name, module in model.named_modules() if module.training] == []
    assert not losses.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for with_losses, without in zip(found, alone):
        assert all(torch.equal(with_losses[key], without[key]) for key in without)
    assert model.predict(images, SIDE, [target(), target()])[1].isfinite().all()


def test_a_model_that_could_not_predict_is_in_eval_mode_all_the_same():
    model = build_model(SMALL, Evaluate(), classes=2).eval()
    with pytest.raises(KeyError):
        model.predict(pictures((64, 64)), SIDE, [{"labels": torch.zeros(0, dtype=torch.int64)}])
    assert not any(module.training for module in model.modules())


def test_validation_losses_are_those_of_training():
    """Without dropout and learning norms nothing but the samplers is random, and they are seeded here."""
    torch.manual_seed(0)
    model = build_model(replace(SMALL, norm="frozen"), Evaluate(), classes=2)
    images, targets = pictures((64, 90), (80, 64)), [target((10, 10, 50, 60), (20, 30, 40, 60)), target()]
    torch.manual_seed(7)
    training = model.train()(images, targets, SIDE)
    torch.manual_seed(7)
    _, validation = model.eval().predict(images, SIDE, targets)
    torch.testing.assert_close(validation, training.detach())


def test_boxes_found_are_in_the_pixels_of_each_image():
    torch.manual_seed(0)
    model = build_model(SMALL, Evaluate(score_thresh=0), classes=2).eval()
    sizes = (200, 260), (40, 30)  # one is made smaller for the network, the other larger
    found, _ = model.predict(pictures(*sizes), SIDE)
    for one, (height, width) in zip(found, sizes):
        right, bottom = float(one["boxes"][:, 2].max()), float(one["boxes"][:, 3].max())
        assert one["boxes"].min() >= 0
        assert 0.9 * width < right <= width + 0.01 and 0.9 * height < bottom <= height + 0.01  # some reach the border


def test_targets_are_not_written_to():
    torch.manual_seed(0)
    model = build_model(SMALL, Evaluate(), classes=2)
    given = target((10, 10, 50, 60))
    one_step(model, [given, target()])
    assert torch.equal(given["boxes"], target((10, 10, 50, 60))["boxes"])


@pytest.mark.parametrize("capability, wanted, given", [("AVX512", True, True), ("AVX512_AMX", True, True), ("AVX2", True, False),
                                                       ("DEFAULT", True, False), ("AVX512", False, False)])
def test_channels_last_is_used_where_it_is_wanted_and_faster(capability, wanted, given, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    model = to_device_and_layout(build_model(SMALL, Evaluate(), 2), wanted, torch.device("cpu"))
    weight = model.backbone.body.layer1[0].conv1.weight
    assert model.input.channels_last is given and weight.is_contiguous(memory_format=torch.channels_last) is given
