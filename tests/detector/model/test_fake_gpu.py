"""A rehearsal of the GPU: training steps and predictions of every model on fake CUDA tensors, see fake_gpu.py.

Run for every backbone, pooling and precision: the forward pass with its losses, from images on the host, and the prediction. No
tensor is on another device, the host never waits, and the parts compute in the precision that is meant for them. What does not
see the pooling, which is the backbone and the RPN, runs once for all five. Each backbone runs one whole step, to the optimizer,
and one whole prediction, with its losses; there precisions and poolings take turns.

Not rehearsed, because it needs a driver or content: the backward pass (every parameter gets a gradient of its shape), the
kernels of the optimizer and the loss scale (they do nothing), the stream that copies batches, the drawn resize of a step (a
constant), DistributedDataParallel, and torch.compile.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Iterator
from unittest.mock import patch

import numpy as np
import pytest
import torch
from fake_gpu import KeepEverything, fake_gpu, fake_process_group, no_backward
from refuse_waiting import RefuseWaiting
from torch.utils._pytree import tree_leaves

from detector.config.model_schema import Model, Roi, Rpn
from detector.config.schema import Augment, Batch, Config, Optim, Run, Schedule
from detector.data.padding_buckets import plan_padding_buckets
from detector.model.backbones import BACKBONES
from detector.model.faster_rcnn import build_model
from detector.model.ops.synchronized_batchnorm import use_pytorchs_synchronization
from detector.model.precision import autocast, to_device
from detector.model.preprocessing import to_batch
from detector.structures import Resize
from detector.training.checkpoint import TrainState
from detector.training.optimizer import build_optimizer
from detector.training.schedule import plan_run
from detector.training.step import train_step

POOLINGS = ("align", "align_detectron2", "align_original", "pool", "crop")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIZES, RESIZE = np.array([(96, 128), (80, 128)], np.int32), Resize(96, 128)
LOSSES = ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"]
NARROW = Model(roi_pooling_size=3, fpn_channels=16, box_head_dim=32,
               rpn=Rpn(nms_rounds=1, pre_nms_top_n_train=200, post_nms_top_n_train=100, pre_nms_top_n_eval=100))
ORIGINAL = replace(NARROW, backbone="resnet18_c4", norm="trained", pixel_format="caffe", inclusive_boxes=True, legacy_anchors=True,
                   class_agnostic=True, clamp_deltas=False, ceil_pool=True, size_divisor=1,
                   rpn=replace(NARROW.rpn, softmax_objectness=True, train_on_crossing_anchors=False, box_loss_normalizer="last_image",
                               pre_nms_top_n_per="image", conv_channels=8),
                   roi=Roi(sample_with_replacement=True, bg_iou_thresh_low=0.1, predictor_init="normal"))
FPN = replace(NARROW, backbone="resnet18_fpn", norm="trained")
SWITCHES = {"the original's": ORIGINAL, "VGG16 of the tables": replace(ORIGINAL, backbone="vgg16", roi_pooling="crop"),
            "samples by pixels, NMS of each level": replace(FPN, sampling_ratio=0, rpn=replace(NARROW.rpn, post_nms_top_n_per="level")),
            "class-agnostic": replace(FPN, class_agnostic=True, pixel_format="detectron2", roi_pooling="align_detectron2")}


def config_of(model: Model, precision: str, **batch) -> Config:
    return Config(model=model, run=Run(precision=precision), batch=Batch(2, 2, **batch), schedule=Schedule(steps=4, milestones=(1,)),
                  augment=Augment(min_size=(96,), max_size=128), optim=Optim(lr=0.01, grad_clip_norm=1))


def host_batch() -> tuple[list, list]:
    """Returns images and targets as a loader gives them, one image without objects among them."""
    targets = [{"boxes": torch.zeros(n, 4), "labels": torch.zeros(n, dtype=torch.int64), "index": n % 2} for n in (3, 0)]
    return [torch.zeros(3, *size, dtype=torch.uint8) for size in SIZES.tolist()], targets


def start(config: Config, device: torch.device, with_average: bool = False) -> TrainState:
    with device:  # fake tensors cannot be moved to it later
        model = build_model(config.model, config.evaluate, 3)
        average = build_model(config.model, config.evaluate, 3).requires_grad_(False) if with_average else None
    model.preprocessing = replace(model.preprocessing, channels_last=True)
    return TrainState(model, build_optimizer(model, config.optim), loss_scale(config.run.precision), average)


def loss_scale(precision: str) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cuda", enabled=precision == "fp16")


def assert_a_step_needs_shapes_alone(config: Config, state: TrainState, device: torch.device, batch: tuple[list, list],
                                     waits: bool = False) -> None:
    """Runs one training step, whose host waits for nothing unless `waits`."""
    plan = plan_run(config.batch, config.optim, config.schedule, SIZES, 0, 1)
    buckets = plan_padding_buckets(config, SIZES, plan.global_batch)
    drawn_on_the_host = patch("detector.training.step.draw_resize", lambda config, step: RESIZE)
    with drawn_on_the_host, no_backward(state.model), watch(state.model) as outputs, KeepEverything(), \
            nullcontext() if waits else RefuseWaiting():
        result = train_step(state, state.model, [batch], plan=plan, config=config, buckets=buckets, device=device)
    assert list(result.loss_names) == LOSSES and result.losses.dtype == result.gradient_norm.dtype == torch.float32
    dtype = PRECISIONS[config.run.precision]
    assert outputs == {"backbone": {dtype}, "box_head": {dtype}, "head": {torch.float32}, "box_predictor": {torch.float32}}
    assert {weight.dtype for weight in state.model.parameters()} == {torch.float32}


@contextmanager
def watch(model: torch.nn.Module) -> Iterator[dict[str, set]]:
    """Yields the dtypes of the outputs of the model's parts, filled in while it runs."""
    outputs: dict[str, set] = {}
    parts = {"backbone": model.backbone, "head": model.rpn.head, "box_head": model.roi_heads.box_head,
             "box_predictor": model.roi_heads.box_predictor}
    hooks = [part.register_forward_hook(lambda _part, _args, output, name=name: outputs.update(
        {name: {leaf.dtype for leaf in tree_leaves(output)}})) for name, part in parts.items()]
    yield outputs
    for hook in hooks:
        hook.remove()


def assert_predictions_need_shapes_alone(config: Config, state: TrainState, device: torch.device) -> None:
    """Predicts a batch, and its losses. How many boxes remain depends on content: here all."""
    state.model.eval()
    images, targets = to_device(*host_batch(), device)
    with KeepEverything(), autocast(config.run.precision, device):
        detections, losses = state.model.predict(images, RESIZE, targets)
    assert list(losses) == LOSSES and len(detections) == 2
    for detected in detections:
        assert [(detected[key].dtype, detected[key].device.type) for key in ("boxes", "labels", "scores")] == [
            (torch.float32, "cuda"), (torch.int64, "cuda"), (torch.float32, "cuda")]


@contextmanager
def case(*names: str) -> Iterator[None]:
    """Names the case in the message of an error."""
    try:
        yield
    except Exception as error:
        raise AssertionError(", ".join(names)) from error


@pytest.mark.parametrize("number, backbone", list(enumerate(BACKBONES)), ids=list(BACKBONES))
def test_training_steps_and_predictions_of_a_backbone_need_shapes_alone(number, backbone):
    pooling, precision = POOLINGS[number % 5], list(PRECISIONS)[number % 3]
    with fake_gpu() as device:
        config = config_of(replace(NARROW, backbone=backbone, roi_pooling=pooling), precision)
        state = start(config, device)
        with case(precision, pooling):
            assert_a_step_needs_shapes_alone(config, state, device, host_batch())
            assert_predictions_need_shapes_alone(config, state, device)
        for name in PRECISIONS:
            assert_all_poolings_need_shapes_alone(replace(config, run=Run(precision=name)), state, device, host_batch())


def assert_all_poolings_need_shapes_alone(config: Config, state: TrainState, device: torch.device, batch: tuple[list, list]) -> None:
    """Runs the forward pass of a training step, and then a prediction of its features, with the RoI heads of each pooling."""
    model, (images, targets) = state.model, to_device(*batch, device)
    pooling, dtype = model.roi_heads.box_roi_pool, PRECISIONS[config.run.precision]
    with KeepEverything(), RefuseWaiting(), autocast(config.run.precision, device):
        inputs = to_batch(images, RESIZE, model.preprocessing)
        truth = model.ground_truth(targets, images, RESIZE)
        features = model.train().backbone(inputs.tensors)
    for training in (True, False):
        model.train(training)
        with KeepEverything(), RefuseWaiting() if training else torch.no_grad(), autocast(config.run.precision, device):
            proposals, _ = model.rpn(inputs, features, truth if training else None)
            for kind in POOLINGS:
                pooling.kind = kind
                with case(config.run.precision, kind, "training" if training else "prediction"), watch(model) as outputs:
                    detections, losses = model.roi_heads(features, proposals, inputs.image_sizes, truth if training else None)
                assert outputs == {"box_head": {dtype}, "box_predictor": {torch.float32}}
                assert (list(losses), len(detections)) == ((LOSSES[2:], 0) if training else ([], 2))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", SWITCHES.values(), ids=list(SWITCHES))
def test_training_steps_and_predictions_with_other_switches_need_shapes_alone(model, precision):
    with fake_gpu() as device:
        config = config_of(model, precision, pad_to="group")
        state = start(config, device, with_average=precision == "bf16")
        assert_a_step_needs_shapes_alone(config, state, device, host_batch())
        assert_predictions_need_shapes_alone(config, state, device)


def test_a_step_on_cropped_chunks_needs_shapes_alone():
    """The images of a static chunk are cut to one aspect ratio, see py_faster_rcnn/static_chunks.py."""
    with fake_gpu() as device:
        config = config_of(replace(ORIGINAL, roi_pooling="crop"), "fp32", aspect_ratio_groups="static", crop_to_group=True)
        images, targets = host_batch()
        targets = [{**target, "frame": (0, 8, 64, 96, 96, 96)} for target in targets]
        assert_a_step_needs_shapes_alone(config, start(config, device), device, (images, targets))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backbone, pooling", [("resnet50_fpn", "align"), ("resnet18_c4", "pool"), ("vgg16", "align_detectron2"),
                                               ("mobilenet_v3_large_fpn", "align_original")])
def test_torchvisions_heads_run_on_a_fake_gpu_though_the_host_waits_for_it(backbone, pooling, precision):
    """With one backbone of each kind; which backbone and which pooling makes no difference to these heads."""
    with fake_gpu() as device:
        config = config_of(Model(backbone=backbone, heads="torchvision", roi_pooling=pooling, roi_pooling_size=3, fpn_channels=16,
                                 box_head_dim=32), precision)
        state = start(config, device)
        assert_a_step_needs_shapes_alone(config, state, device, host_batch(), waits=True)
        assert_predictions_need_shapes_alone(config, state, device)
        if precision == "bf16":
            with pytest.raises(AssertionError, match="waits for the device|blocks the host"):
                assert_a_step_needs_shapes_alone(config, state, device, host_batch())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_synchronized_norms_run_on_a_fake_gpu_though_the_host_waits_for_it(precision):
    """PyTorch's SyncBatchNorm drops the statistics of processes without images by a mask, for which the host waits."""
    with fake_process_group(), fake_gpu() as device:
        config = config_of(replace(FPN, norm="synchronized"), precision)
        state = start(config, device)
        use_pytorchs_synchronization(state.model)
        assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in state.model.modules())
        assert_a_step_needs_shapes_alone(config, state, device, host_batch(), waits=True)
        with pytest.raises(AssertionError, match="aten.index"):
            assert_a_step_needs_shapes_alone(config, state, device, host_batch())
        assert_predictions_need_shapes_alone(config, state, device)


def test_a_step_with_torchvisions_nms_waits_for_the_device():
    with fake_gpu() as device:
        config = config_of(replace(FPN, rpn=replace(NARROW.rpn, nms_rounds=0)), "fp32")
        state = start(config, device)
        assert_a_step_needs_shapes_alone(config, state, device, host_batch(), waits=True)
        with pytest.raises(AssertionError, match="torchvision.nms.* waits for the device"):
            assert_a_step_needs_shapes_alone(config, state, device, host_batch())
