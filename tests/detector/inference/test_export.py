"""Exported detectors give what the model gives, on images of many sizes; a file that does not is not kept."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.config.load import load_config
from detector.config.schema import Evaluate
from detector.errors import BadInput
from detector.inference import export as export_module
from detector.inference.export import check_images, compare, export, pair
from detector.inference.predictor import find_checkpoint, load_detector
from detector.inference.traced_model import Portable
from detector.model.faster_rcnn import build_model
from detector.seeding import numpy_random_state
from detector.structures import Resize

CPU = torch.device("cpu")
SIZES = [(64, 64), (40, 90), (90, 40), (200, 130), (33, 35), (128, 256), (61, 127)]


def noise(number: int, height: int, width: int) -> torch.Tensor:
    """Blobs: a detector finds other things here than there."""
    small = torch.from_numpy(numpy_random_state(number).randint(0, 256, (1, 3, 6, 6)).astype(np.uint8))
    return torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear")[0]


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "weights"])
def test_each_kind_is_written_once_it_agrees(untrained_run, kind, capsys):
    if kind == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    path = export(untrained_run, kind)
    assert path.parent == Path(untrained_run) / "export" and [p.name for p in path.parent.iterdir()] == [path.name]
    said = capsys.readouterr().out
    assert str(path) in said and "boxes differ by" in said and "coco val" in said


def test_the_onnx_file_stands_alone_and_says_what_it_needs(untrained_run):
    runtime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    session = runtime.InferenceSession(str(export(untrained_run, "onnx")), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["cat", "dog"] and about["short_side"] == "64"
    model, config, _, _ = load_detector(find_checkpoint(untrained_run), CPU)
    found = compare(model, lambda image: tuple(map(torch.from_numpy, session.run(None, {"image": image.numpy()}))),
                    [noise(number, *size) for number, size in enumerate(SIZES)], config.evaluate)
    assert found.boxes > len(SIZES) and found.strangers == 0 and max(found.box, found.score) < 1e-3


def test_the_torchscript_file_carries_its_classes(untrained_run, tmp_path):
    path, about = export(untrained_run, "torchscript", str(tmp_path / "mine.pt")), {"classes": ""}
    detect = torch.jit.load(str(path), _extra_files=about)
    assert json.loads(about["classes"]) == ["cat", "dog"]
    boxes, scores, labels = detect(noise(1, 50, 70))
    assert boxes.shape == (len(scores), 4) and labels.dtype == torch.int64


def test_the_weights_file_starts_a_run(untrained_run, tiny, config_file):
    from detector.model.weights.load import load_weights
    path = export(untrained_run, "weights")
    config = load_config(str(config_file), [*tiny, f"model.weights={path}"])
    model = build_model(config.model, config.evaluate, 2)
    load_weights(model, config.model, ("cat", "dog"))
    trained = load_detector(find_checkpoint(untrained_run), CPU)[0].state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("change", ["model.backbone=resnet18_c4 model.anchor_sizes=[]", "model.roi_pooling=crop",
                                    "model.roi_pooling=crop model.crop_max_pool=false", "model.roi_pooling=pool",
                                    "model.roi_pooling=align_original model.pixel_format=caffe evaluate.max_size=0",
                                    "model.backbone=vgg16 model.anchor_sizes=[] model.roi_pooling_size=2 model.size_divisor=16",
                                    "model.roi_pooling=align_detectron2 model.pixel_format=detectron2 model.ceil_pool=true",
                                    "model.class_agnostic=true", "model.backbone=mobilenet_v3_large_fpn model.anchor_sizes=[]"])
def test_every_body_and_pooling_is_traced_whole(tiny, config_file, change):
    """A trace that took a number of boxes or a size for a constant fails on the other sizes."""
    config = load_config(str(config_file), [*tiny, *change.split()])
    torch.manual_seed(1)
    model = build_model(config.model, config.evaluate, 3).eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight *= 50
        model.rpn.head.cls_logits.weight *= 50
        traced = torch.jit.trace(Portable(model, config.model, config.evaluate).eval(), (noise(0, 70, 90),),
                                 check_trace=False)
        found = compare(model, traced, [noise(n, *size) for n, size in enumerate(SIZES)], config.evaluate)
    assert found.boxes > 0 and found.strangers == 0, found


@pytest.mark.parametrize("change, said", [
    ("model.inclusive_boxes=true", "model.inclusive_boxes=True"), ("model.legacy_anchors=true", "model.legacy_anchors=True"),
    ("model.rpn.pre_nms_top_n_per=image", "model.rpn.pre_nms_top_n_per=image"),
    ("model.backbone=vgg16 model.anchor_sizes=[] model.size_divisor=1", "model.size_divisor=1")])
def test_heads_that_cannot_be_traced_are_refused(tiny, config_file, change, said):
    config = load_config(str(config_file), [*tiny, *change.split()]).model
    with pytest.raises(BadInput, match=f"--format onnx cannot express {said}: export the weights"):
        export_module.refuse_other_heads(config, "onnx")
    export_module.refuse_other_heads(load_config(str(config_file), tiny).model, "onnx")


def test_a_file_that_does_not_agree_is_not_kept(untrained_run, monkeypatch):
    original = export_module.write_weights

    def wrong(model, config, classes, path, about):
        detect = original(model, config, classes, path, about)
        return lambda image: (detect(image)[0] + 0.01, *detect(image)[1:])
    monkeypatch.setitem(export_module.WRITERS, "weights", wrong)
    with pytest.raises(BadInput, match="does not agree"):
        export(untrained_run, "weights")
    assert list((Path(untrained_run) / "export").iterdir()) == []


def test_nothing_to_compare_is_no_agreement(untrained_run, monkeypatch):
    silent = replace(load_detector(find_checkpoint(untrained_run), CPU)[1].evaluate, score_thresh=1.0)
    original = export_module.load_detector

    def loaded(path, device):
        model, config, classes, step = original(path, device)
        model.roi_heads.score_thresh = 1.0
        return model, replace(config, evaluate=silent), classes, step
    monkeypatch.setattr(export_module, "load_detector", loaded)
    with pytest.raises(BadInput, match="nothing was found .* --images FOLDER"):
        export(untrained_run, "torchscript")


def test_without_onnx_the_error_says_what_to_install(untrained_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BadInput, match=r"onnxruntime.*fleet-rcnn\[export\]"):
        export(untrained_run, "onnx")
    assert list((Path(untrained_run) / "export").iterdir()) == []


def test_without_validation_data_images_are_drawn(untrained_run):
    (Path(untrained_run) / "config.yaml").unlink()
    images, said = check_images(untrained_run, "")
    assert "drawn" in said and len({tuple(image.shape) for image in images}) > 3


def test_boxes_are_compared_in_the_size_that_the_network_sees(untrained_run):
    model, config, _, _ = load_detector(find_checkpoint(untrained_run), CPU)
    image = [noise(1, 640, 640)]  # ten times as large as the network's

    def beside(apart: float):
        def detect(image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            boxes, *rest = export_module.detect_with(model, Resize(64, 128))(image)
            return boxes + apart, *rest
        return compare(model, detect, image, config.evaluate)
    assert beside(8e-3).strangers == 0 and beside(8e-3).box == pytest.approx(8e-4, abs=5e-5) and beside(2e-2).strangers


def answer(*rows) -> tuple[torch.Tensor, ...]:
    boxes = torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return boxes, torch.tensor([row[4] for row in rows]), torch.tensor([row[5] for row in rows])


def test_pairs_by_hand():
    rules = Evaluate(score_thresh=0.1, max_detections=3)
    one, two = (0, 0, 9, 9, 0.9, 1), (0, 0, 9, 9, 0.9, 2)
    near = (0, 0, 9.0005, 9, 0.8999, 1)
    pairs, alone = pair(answer(one, two), answer(two, near), rules)
    assert alone == 0 and pairs[:, 0].max() == pytest.approx(5e-4, abs=1e-6)
    assert pair(answer(one), answer(two), rules)[1] == 2                              # another class
    assert pair(answer(one), answer((0, 0, 9.1, 9, 0.9, 1)), rules)[1] == 2           # another place
    assert pair(answer(one, (5, 5, 6, 6, 0.1005, 1)), answer(one), rules)[1] == 0     # at the threshold
    weak = (5, 5, 6, 6, 0.3, 1), (6, 6, 7, 7, 0.3005, 1)
    assert pair(answer(one, two, weak[0]), answer(one, two, weak[1]), rules)[1] == 0  # in place of each other
    assert pair(answer(), answer(), rules)[0].shape == (0, 2) and pair(answer(one), answer(), rules)[1] == 1
