"""The native RPN and RoI heads beside torchvision's, with the same weights: the same losses and proposals, and no waiting.

Comparisons run in float64, see in_float64.py.
"""

from dataclasses import replace

import pytest
import torch
from in_float64 import in_float64
from refuse_waiting import RefuseWaiting
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models.detection.roi_heads import RoIHeads

from detector.config.model_schema import Model, Roi, Rpn
from detector.config.schema import Evaluate
from detector.model import roi_heads, rpn
from detector.model.faster_rcnn import build_model
from detector.model.precision import numbers_to_device
from detector.model.preprocessing import to_batch
from detector.model.sampling import sample_boxes
from detector.structures import Resize

RESIZE = Resize(96, 128)
SMALL = Model(backbone="resnet18_fpn", weights="", norm="trained", frozen_stages=0, roi_pooling_size=3, fpn_channels=16,
              box_head_dim=32, anchor_sizes=((8,), (16,), (32,), (64,), (128,)),
              rpn=Rpn(pre_nms_top_n_train=200, post_nms_top_n_train=150), roi=Roi(batch_size_per_image=64))
TWO_CONVOLUTIONS = replace(SMALL, backbone="resnet50_fpn_v2", norm="frozen", weights="none")  # else RoIs share statistics
ONE_LEVEL = replace(SMALL, backbone="resnet18_c4", norm="frozen", anchor_sizes=((16, 32, 64),))


def build_pair(config: Model, classes: int = 3):
    """The same network with native heads and with torchvision's; its scores are neither all alike nor 1 after a sigmoid."""
    torch.manual_seed(0)
    native = build_model(config, Evaluate(score_thresh=0), classes)
    for name, weight in native.named_parameters():
        if name.startswith(("rpn.head", "roi_heads")) and weight.ndim > 1:
            torch.nn.init.kaiming_normal_(weight, a=9 if "bbox_pred" in name or "cls_logits" in name else 0)
    torchvision = build_model(replace(config, heads="torchvision"), Evaluate(score_thresh=0), classes)
    torchvision.load_state_dict(native.state_dict(), strict=True)
    return native, torchvision


def scene(*counts: int) -> tuple[list, list]:
    """Returns images and targets; counts: the number of objects of each image."""
    generator = torch.Generator().manual_seed(3)
    images = [torch.randint(0, 256, (3, 96, 128 - 16 * (i % 2)), dtype=torch.uint8, generator=generator)
              for i in range(len(counts))]
    targets = []
    for count in counts:
        first = torch.rand(count, 2, generator=generator) * 60
        boxes = torch.cat([first, first + 8 + torch.rand(count, 2, generator=generator) * 30], dim=1)
        targets.append({"boxes": boxes, "labels": torch.randint(1, 4, (count,), generator=generator)})
    return images, targets


def stages(model, images, targets):
    """Returns batch, features and ground truth of a training step."""
    batch = to_batch(images, RESIZE, model.preprocessing)
    return batch, model.backbone(batch.tensors), model.ground_truth(targets, images, RESIZE)


def assert_same_losses(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(actual) == list(expected) == ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"]
    for name, loss in expected.items():  # torchvision casts its labels to float32, and with them the objectness loss
        torch.testing.assert_close(actual[name].detach(), loss.detach(), atol=1e-12, rtol=1e-6, msg=name)


@pytest.mark.slow
@in_float64()
@pytest.mark.parametrize("config, counts", [
    *((config, counts) for config in (SMALL, ONE_LEVEL) for counts in [(3, 7), (0, 5), (0, 0), (1,), (4, 0, 2, 9)]),
    (TWO_CONVOLUTIONS, (0, 5))])
def test_all_boxes_sampled_give_torchvisions_losses_and_gradients(config, counts):
    """The batch is so large that it takes every box, so that no random choice is left."""
    everything = replace(config, rpn=replace(config.rpn, batch_size_per_image=10**6, positive_fraction=0.99,
                                                 post_nms_top_n_train=40),  # float64 convolutions of RoIs are slow
                         roi=replace(config.roi, batch_size_per_image=10**4, positive_fraction=0.99))
    images, targets = scene(*counts)
    results = []
    for model in build_pair(everything):
        losses = model.train()(images, targets, RESIZE)
        sum(losses.values()).backward()
        results.append((losses, {name: weight.grad for name, weight in model.named_parameters()}))
    (losses, gradients), (expected_losses, expected_gradients) = results
    assert_same_losses(losses, expected_losses)
    for name, gradient in gradients.items():
        scale = float(expected_gradients[name].abs().max())
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-6 * scale + 1e-15, rtol=1e-6, msg=name)


@in_float64()
@pytest.mark.parametrize("config", [SMALL, ONE_LEVEL], ids=["pyramid", "one level"])
def test_the_same_samples_give_torchvisions_losses(config, monkeypatch):
    """torchvision's samplers return the samples that the native heads drew."""
    native, torchvision = build_pair(config)
    images, targets = scene(6, 0, 3)
    drawn = []

    def record(positive, negative, *rest):
        sample = sample_boxes(positive, negative, *rest)
        masks = []
        for chosen in (sample.positive & sample.valid, ~sample.positive & sample.valid):
            mask = torch.zeros(positive.shape, dtype=torch.uint8)
            masks.append(mask.scatter_reduce(1, sample.index, chosen.to(torch.uint8), "amax"))
        drawn.append([list(mask) for mask in masks])
        return sample
    monkeypatch.setattr(rpn, "sample_boxes", record)
    monkeypatch.setattr(roi_heads, "sample_boxes", record)
    losses = native.train()(images, targets, RESIZE)
    torchvision.rpn.fg_bg_sampler = lambda labels: drawn[0]

    def valid_only(labels):  # the native heads also number proposals and objects that only pad; torchvision does not
        positives, negatives = drawn[1]
        batch, features, ground_truth = stages(native, images, targets)
        valid = torch.cat([native.rpn(batch, features, ground_truth)[0].valid, ground_truth.valid], dim=1)
        return [[mask[keep] for mask, keep in zip(masks, valid)] for masks in (positives, negatives)]
    torchvision.roi_heads.fg_bg_sampler = valid_only
    assert_same_losses(losses, torchvision.train()(images, targets, RESIZE))
    assert len(drawn) >= 2 and any(mask.any() for mask in drawn[1][0])


@in_float64()
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("config", [SMALL, ONE_LEVEL], ids=["pyramid", "one level"])
def test_proposals_are_torchvisions(config, training):
    native, torchvision = build_pair(config)
    images, targets = scene(2, 1, 3)
    batch, features, ground_truth = stages(native.eval(), images, targets)
    native.rpn.train(training)
    torchvision.rpn.train(training)
    with torch.no_grad():
        proposals, _ = native.rpn(batch, features, ground_truth)
        reference, _ = torchvision.rpn(batch, features, ground_truth)
    for boxes, expected in zip(proposals.per_image(), reference, strict=True):
        assert len(expected) > 50
        torch.testing.assert_close(boxes, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("counts", [(3, 7), (0, 0)])
@pytest.mark.parametrize("config", [SMALL, ONE_LEVEL], ids=["pyramid", "one level"])
def test_a_training_step_of_the_heads_never_waits(config, counts):
    """On a CPU, by the operations that are called: RPN, RoI heads and losses, forwards and backwards."""
    torch.manual_seed(0)
    model = build_model(config, Evaluate(), classes=3).train()
    images, targets = scene(*counts)
    batch, features, _ = stages(model, images, targets)
    features = {name: level.detach().requires_grad_() for name, level in features.items()}
    with RefuseWaiting():
        losses = model.losses(batch, features, model.ground_truth(targets, images, RESIZE))
        sum(losses.values()).backward()
    assert all(level.grad is not None for level in features.values())


def test_the_host_does_not_wait_for_a_copy_to_a_fake_gpu():
    with FakeTensorMode(), RefuseWaiting():
        image = torch.zeros(3, device="cuda")
        assert numbers_to_device([1.0, 2.0], image).device.type == "cuda"
        for waits in (lambda: image.new_tensor([1.0]), lambda: torch.tensor([1.0], device="cuda"),
                      lambda: torch.zeros(2).cuda(), lambda: image.cpu(), lambda: image.copy_(torch.zeros(3)),
                      lambda: torch.zeros(3).copy_(image)):
            with pytest.raises(AssertionError):
                waits()


def test_the_mode_refuses_operations_that_wait():
    mask = torch.tensor([True, False])
    for waits in (lambda: mask.nonzero(), lambda: float(mask.sum()), lambda: mask[mask], lambda: torch.where(mask),
                  lambda: torch.ones(2).masked_select(mask), lambda: torch.zeros(2).__setitem__(mask, torch.ones(1))):
        with pytest.raises(AssertionError), RefuseWaiting():
            waits()
    with pytest.raises(AssertionError), RefuseWaiting():
        model = build_model(replace(SMALL, heads="torchvision"), Evaluate(), classes=3).train()
        images, targets = scene(2)
        model.losses(*stages(model, images, targets))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("config", [SMALL, ONE_LEVEL], ids=["pyramid", "one level"])
def test_a_training_step_of_the_heads_never_waits_for_a_gpu(config):
    torch.manual_seed(0)
    model = build_model(config, Evaluate(), classes=3).train().cuda()
    images, targets = scene(3, 0)
    images = [image.cuda() for image in images]
    targets = [{key: value.cuda() for key, value in target.items()} for target in targets]
    batch, features, _ = stages(model, images, targets)
    step = lambda: sum(model.losses(batch, features, model.ground_truth(targets, images, RESIZE)).values()).backward()  # noqa: E731
    step()  # a first call also initialises libraries
    batch, features, _ = stages(model, images, targets)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_same_seed_draws_the_same_samples_and_another_seed_others():
    model, _ = build_pair(SMALL)
    images, targets = scene(5, 8)

    def losses(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.stack(list(model.train()(images, targets, RESIZE).values())).detach()
    model.backbone.eval()
    assert torch.equal(losses(1), losses(1))
    assert not torch.equal(losses(1), losses(2))


@in_float64()
def test_detections_are_torchvisions_with_many_classes_and_without_detections():
    native, torchvision = build_pair(SMALL, classes=30)
    images, _ = scene(0, 0, 0)
    for threshold in (0.0, 0.04, 1.0):
        for model in (native.eval(), torchvision.eval()):
            model.roi_heads.score_thresh = threshold
        for detections, expected in zip(native.predict(images, RESIZE)[0], torchvision.predict(images, RESIZE)[0], strict=True):
            assert torch.equal(detections["labels"], expected["labels"])
            torch.testing.assert_close(detections["boxes"], expected["boxes"], atol=1e-9, rtol=1e-9)
            assert len(expected["labels"]) > 0 or threshold == 1.0
    assert isinstance(torchvision.roi_heads, RoIHeads)
