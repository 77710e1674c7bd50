"""Our RPN and RoI heads beside torchvision's, with the same weights: the same losses and proposals, and no waiting."""

from dataclasses import replace

import pytest
import torch
from refuse_waiting import RefuseWaiting
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models.detection.roi_heads import RoIHeads

from detector.config.model_schema import Model, Roi, Rpn
from detector.config.schema import Evaluate
from detector.model import roi_heads, rpn
from detector.model.box_coder import on_device
from detector.model.faster_rcnn import build_model
from detector.model.matcher import sample_boxes
from detector.model.preprocessing import to_batch
from detector.structures import Resize

SIDE = Resize(96, 128)
SMALL = Model(backbone="resnet18_fpn", weights="", norm="trained", frozen_stages=0, roi_pooling_size=3, fpn_channels=16,
              box_head_dim=32, anchor_sizes=((8,), (16,), (32,), (64,), (128,)),
              rpn=Rpn(pre_nms_top_n_train=200, post_nms_top_n_train=150), roi=Roi(batch_size_per_image=64))
ONE_LEVEL = replace(SMALL, backbone="resnet18_c4", norm="frozen", anchor_sizes=((16, 32, 64),))


def pair(config: Model, classes: int = 3):
    """The same network with our heads and with torchvision's; weights that are sure of something."""
    torch.manual_seed(0)
    ours = build_model(config, Evaluate(score_thresh=0), classes)
    for name, weight in ours.named_parameters():
        if name.startswith(("rpn.head", "roi_heads")) and weight.ndim > 1:
            torch.nn.init.kaiming_normal_(weight, a=9 if "bbox_pred" in name else 0)
    theirs = build_model(replace(config, heads="torchvision"), Evaluate(score_thresh=0), classes)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def scene(*counts: int) -> tuple[list, list]:
    """A picture for each number of objects."""
    chance = torch.Generator().manual_seed(3)
    images = [torch.randint(0, 256, (3, 96, 128 - 16 * (i % 2)), dtype=torch.uint8, generator=chance)
              for i in range(len(counts))]
    targets = []
    for count in counts:
        first = torch.rand(count, 2, generator=chance) * 60
        boxes = torch.cat([first, first + 8 + torch.rand(count, 2, generator=chance) * 30], dim=1)
        targets.append({"boxes": boxes, "labels": torch.randint(1, 4, (count,), generator=chance)})
    return images, targets


def stages(model, images, targets):
    """The parts of a training step: (batch, features, truth)."""
    batch = to_batch(images, SIDE, model.input)
    return batch, model.backbone(batch.tensors), model.truth(targets, images, SIDE)


@pytest.mark.parametrize("counts", [(3, 7), (0, 5), (0, 0), (1,), (4, 0, 2, 9)])
@pytest.mark.parametrize("config", [SMALL, ONE_LEVEL], ids=["pyramid", "one level"])
def test_all_boxes_sampled_give_torchvisions_losses_and_gradients(config, counts):
    """So large a batch takes every box there is, so that chance plays no part."""
    everything = replace(config, rpn=replace(config.rpn, batch_size_per_image=10**6, positive_fraction=0.99),
                         roi=replace(config.roi, batch_size_per_image=10**4, positive_fraction=0.99))
    images, targets = scene(*counts)
    found = []
    for model in pair(everything):
        losses = model.train()(images, targets, SIDE)
        losses.sum().backward()
        found.append((losses.detach(), {name: weight.grad for name, weight in model.named_parameters()}))
    (ours, our_gradients), (theirs, their_gradients) = found
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for name, gradient in our_gradients.items():
        scale = float(their_gradients[name].abs().max())
        torch.testing.assert_close(gradient, their_gradients[name], atol=1e-4 * scale + 1e-7, rtol=1e-3, msg=name)


@pytest.mark.parametrize("config", [SMALL, ONE_LEVEL], ids=["pyramid", "one level"])
def test_the_same_samples_give_torchvisions_losses(config, monkeypatch):
    """torchvision's samplers are handed what ours drew."""
    ours, theirs = pair(config)
    images, targets = scene(6, 0, 3)
    drawn = []

    def note(positive, negative, *rest):
        sample = sample_boxes(positive, negative, *rest)
        masks = []
        for wanted in (sample.positive & sample.real, ~sample.positive & sample.real):
            mask = torch.zeros(positive.shape, dtype=torch.uint8)
            masks.append(mask.scatter_reduce(1, sample.index, wanted.to(torch.uint8), "amax"))
        drawn.append([list(mask) for mask in masks])
        return sample
    monkeypatch.setattr(rpn, "sample", note)
    monkeypatch.setattr(roi_heads, "sample", note)
    losses = ours.train()(images, targets, SIDE)

    theirs.rpn.fg_bg_sampler = lambda labels: drawn[0]

    def cut(labels):  # ours numbers 150 proposals and then padded objects; theirs only what there is
        positives, negatives = drawn[1]
        batch, features, truth = stages(ours, images, targets)
        real = torch.cat([ours.rpn(batch, features, truth)[0].real, truth.real], dim=1)
        return [[mask[keep] for mask, keep in zip(masks, real)] for masks in (positives, negatives)]
    theirs.roi_heads.fg_bg_sampler = cut
    torch.testing.assert_close(losses, theirs.train()(images, targets, SIDE), atol=1e-5, rtol=1e-5)
    assert len(drawn) >= 2 and any(mask.any() for mask in drawn[1][0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("config", [SMALL, ONE_LEVEL], ids=["pyramid", "one level"])
def test_proposals_are_torchvisions(config, training):
    ours, theirs = pair(config)
    images, targets = scene(2, 1, 3)
    batch, features, truth = stages(ours.eval(), images, targets)
    ours.rpn.train(training)
    theirs.rpn.train(training)
    with torch.no_grad():
        mine, _ = ours.rpn(batch, features, truth)
        reference, _ = theirs.rpn(batch, features, truth)
    for boxes, expected in zip(mine.lists(), reference, strict=True):
        assert len(expected) > 50
        torch.testing.assert_close(boxes, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("counts", [(3, 7), (0, 0)])
@pytest.mark.parametrize("config", [SMALL, ONE_LEVEL], ids=["pyramid", "one level"])
def test_a_training_step_of_the_heads_never_waits(config, counts):
    """On the CPU, by what it calls. The RPN, RoI heads and losses, forwards and backwards."""
    torch.manual_seed(0)
    model = build_model(config, Evaluate(), classes=3).train()
    images, targets = scene(*counts)
    batch, features, truth = stages(model, images, targets)
    features = {name: level.detach().requires_grad_() for name, level in features.items()}
    with RefuseWaiting():
        truth = model.truth(targets, images, SIDE)
        model.losses(batch, features, truth).sum().backward()
    assert all(level.grad is not None for level in features.values())


def test_a_copy_to_an_imagined_gpu_is_not_waited_for():
    with FakeTensorMode(), RefuseWaiting():
        image = torch.zeros(3, device="cuda")
        assert on_device([1.0, 2.0], image).device.type == "cuda"
        for waits in (lambda: image.new_tensor([1.0]), lambda: torch.tensor([1.0], device="cuda"),
                      lambda: torch.zeros(2).cuda()):
            with pytest.raises(AssertionError):
                waits()


def test_the_mode_above_refuses_what_waits():
    mask = torch.tensor([True, False])
    for waits in (lambda: mask.nonzero(), lambda: float(mask.sum()), lambda: mask[mask], lambda: torch.where(mask),
                  lambda: torch.ones(2).masked_select(mask), lambda: torch.zeros(2).__setitem__(mask, torch.ones(1))):
        with pytest.raises(AssertionError), RefuseWaiting():
            waits()
    with pytest.raises(AssertionError), RefuseWaiting():
        model = build_model(replace(SMALL, heads="torchvision"), Evaluate(), classes=3).train()
        images, targets = scene(2)
        model.losses(*stages(model, images, targets))


GPU = {"pyramid": SMALL, "one level": ONE_LEVEL, "as many samples as pixels": replace(SMALL, sampling_ratio=0),
       **{kind: replace(ONE_LEVEL, roi_pooling=kind) for kind in ("pool", "crop", "align_original", "align_detectron2")},
       "the original's switches": replace(ONE_LEVEL, inclusive_boxes=True, legacy_anchors=True,
                                          rpn=replace(ONE_LEVEL.rpn, train_on_crossing_anchors=False, softmax_objectness=True, box_loss_normalizer="last_image"),
                                          roi=replace(ONE_LEVEL.roi, sample_with_replacement=True))}


@pytest.mark.parametrize("config", GPU.values(), ids=list(GPU))
def test_on_an_imagined_gpu_shapes_alone_are_enough_forwards(config):
    """PyTorch's fake tensors have a device and a shape and no content: whoever asks for one, or mixes devices, is told.

    The whole forward pass of a step, with the images' resizing and the body.
    """
    with FakeTensorMode():
        with torch.device("cuda"):
            model = build_model(config, Evaluate(), classes=3).train()
            images = [torch.zeros(3, 96, 128, dtype=torch.uint8) for _ in range(2)]
            targets = [{"boxes": torch.zeros(n, 4), "labels": torch.zeros(n, dtype=torch.int64)} for n in (3, 0)]
        with RefuseWaiting():
            losses = model(images, targets, SIDE)
    assert losses.device.type == "cuda" and losses.shape == (4,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("config", [SMALL, ONE_LEVEL], ids=["pyramid", "one level"])
def test_a_training_step_of_the_heads_never_waits_for_a_gpu(config):
    torch.manual_seed(0)
    model = build_model(config, Evaluate(), classes=3).train().cuda()
    images, targets = scene(3, 0)
    images = [image.cuda() for image in images]
    targets = [{key: value.cuda() for key, value in target.items()} for target in targets]
    batch, features, _ = stages(model, images, targets)
    model.losses(batch, features, model.truth(targets, images, SIDE)).sum().backward()  # what only a first call does
    batch, features, _ = stages(model, images, targets)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        model.losses(batch, features, model.truth(targets, images, SIDE)).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_same_seed_draws_the_same_samples_and_another_seed_others():
    model, _ = pair(SMALL)
    images, targets = scene(5, 8)

    def losses(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model.train()(images, targets, SIDE).detach()
    model.backbone.eval()
    assert torch.equal(losses(1), losses(1))
    assert not torch.equal(losses(1), losses(2))


def test_detections_are_torchvisions_with_many_classes_and_empty_answers():
    ours, theirs = pair(SMALL, classes=30)
    images, _ = scene(0, 0, 0)
    for threshold in (0.0, 0.04, 1.0):
        for model in (ours.eval(), theirs.eval()):
            model.roi_heads.score_thresh = threshold
        for mine, expected in zip(ours.predict(images, SIDE)[0], theirs.predict(images, SIDE)[0], strict=True):
            assert torch.equal(mine["labels"], expected["labels"])
            torch.testing.assert_close(mine["boxes"], expected["boxes"], atol=1e-4, rtol=0)
            assert len(expected["labels"]) > 0 or threshold == 1.0
    assert isinstance(theirs.roi_heads, RoIHeads)
