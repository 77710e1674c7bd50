"""Exported detectors agree with the model on images of many sizes; a file that disagrees is deleted."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.config.load import load_config
from detector.config.schema import Config
from detector.errors import BadInput
from detector.inference import export as export_module
from detector.inference.export import export
from detector.inference.export_check import compare
from detector.inference.fixed_size_model import FixedSizeDetector
from detector.inference.load_detector import find_checkpoint, load_detector
from detector.inference.traced_model import TracedDetector
from detector.model.faster_rcnn import Detector, build_model
from detector.seeding import numpy_random_state

CPU = torch.device("cpu")
SIZES = [(64, 64), (40, 90), (90, 40), (200, 130), (33, 35), (128, 256), (61, 127)]


def noise(number: int, height: int, width: int) -> torch.Tensor:
    """Returns an image of blobs, on which a detector has different detections in different places."""
    small = torch.from_numpy(numpy_random_state(number).randint(0, 256, (1, 3, 6, 6)).astype(np.uint8))
    return torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear")[0]


def confident_detector(config: Config) -> Detector:
    """Returns a detector of three classes with random weights, whose scores are as far apart as those of a trained one."""
    torch.manual_seed(1)
    model = build_model(config.model, config.evaluate, 3).eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight *= 50
        model.rpn.head.cls_logits.weight *= 50
    return model


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "pt2", "torchscript", "weights", "safetensors"])
def test_each_format_is_written_after_a_comparison_with_the_model(untrained_run, kind, capsys):
    if kind == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    path = export(untrained_run, kind)
    assert path.parent == Path(untrained_run) / "export" and [p.name for p in path.parent.iterdir()] == [path.name]
    output = capsys.readouterr().out
    assert str(path) in output and "boxes differ by" in output and "coco val" in output


@pytest.mark.slow
def test_the_onnx_file_runs_alone_on_batches_and_tells_its_contract(untrained_run):
    runtime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    path = export(untrained_run, "onnx", padded_size=(64, 128))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == {"1": "cat", "2": "dog"} and json.loads(metadata["padded_size"]) == [64, 128]
    assert metadata["output labels"].startswith("int64 [B, D]") and metadata["min_size"] == "64"
    import onnx
    assert "NonZero" not in {node.op_type for node in onnx.load(str(path)).graph.node}
    model, config, _, _ = load_detector(find_checkpoint(untrained_run), CPU)
    images = [noise(number, *size) for number, size in enumerate(SIZES)]
    images = [image for image in images if export_module.fits(image, config.evaluate, (64, 128))]
    batch = torch.stack([torch.nn.functional.pad(image, (0, 256 - image.shape[2], 0, 256 - image.shape[1]), value=77) for image in images])
    outputs = session.run(None, {"images": batch.numpy(), "sizes": np.array([image.shape[-2:] for image in images])})
    boxes, scores, labels, count = map(torch.from_numpy, outputs)
    assert boxes.shape == (len(images), config.evaluate.max_detections, 4) and (labels[0, :count[0]] >= 1).all()
    assert all((part[number, found:] == 0).all() for part in (boxes, scores, labels) for number, found in enumerate(count))
    detections = iter([[part[number, :found] for part in (boxes, scores, labels)] for number, found in enumerate(count)])
    agreement = compare(model, lambda image: next(detections), images, config.evaluate, (64, 128))
    assert agreement.num_boxes > len(images) > 3 and agreement.num_unmatched == 0
    assert max(agreement.max_box_difference, agreement.max_score_difference) < 1e-3


@pytest.mark.slow
def test_the_lines_of_the_readme_run(untrained_run, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    readme = (Path(export_module.__file__).parent / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(blocks) == 3 and blocks[0].count("\n") <= 14
    for kind in ("onnx", "pt2", "safetensors"):
        export(untrained_run, kind, str(tmp_path / f"detector{export_module.SUFFIXES[kind]}"))
    Image.fromarray(noise(3, 90, 130).permute(1, 2, 0).numpy()).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(block, {})  # noqa: S102


@pytest.mark.slow
@pytest.mark.parametrize("change", [
    "", "model.roi_pooling=align_detectron2", "model.roi_pooling=pool", "model.roi_pooling=crop", "model.roi_pooling=align_original",
    "model.backbone=resnet18_c4 model.anchor_sizes=[]", "model.inclusive_boxes=true model.legacy_anchors=true",
    "model.rpn.pre_nms_top_n_per=image", "model.rpn.post_nms_top_n_per=level", "model.class_agnostic=true model.heads=torchvision",
    "model.backbone=mobilenet_v3_large_fpn model.anchor_sizes=[]", "model.backbone=vgg16 model.anchor_sizes=[] model.roi_pooling_size=2",
    "model.backbone=swin_t_fpn model.anchor_sizes=[] model.frozen_stages=0", "model.pixel_format=caffe evaluate.max_size=0"])
def test_the_graph_of_fixed_shapes_agrees_for_every_backbone_and_pooling(tiny, config_file, change):
    config = load_config(str(config_file), [*tiny, *change.split()])
    model = confident_detector(config)
    with torch.no_grad():
        fixed = export_module.build_fixed_size_detector(model, config, 3, export_module.default_padded_size(config.evaluate))
        detect = export_module.one_image(export_module.export_program(fixed, config).module())
        agreement = compare(model, detect, [noise(n, *size) for n, size in enumerate(SIZES)], config.evaluate, fixed.padded_size)
    assert agreement.num_boxes > 0 and agreement.num_unmatched == 0, agreement


def test_an_image_that_does_not_fit_the_padded_size_is_made_smaller(tiny, config_file):
    config = load_config(str(config_file), tiny)
    fixed = FixedSizeDetector(build_model(config.model, config.evaluate, 2).eval(), config.model, config.evaluate, (64, 64))
    sizes = torch.tensor([[64, 64], [1000, 64], [64, 1000], [3000, 3000], [1, 5000]])
    assert fixed.resized_sizes(sizes).tolist() == [[64, 64], [64, 4], [4, 64], [64, 64], [1, 64]]


def test_the_torchscript_file_contains_its_classes(untrained_run, tmp_path):
    path, metadata = export(untrained_run, "torchscript", str(tmp_path / "mine.pt")), {"labels": ""}
    detect = torch.jit.load(str(path), _extra_files=metadata)
    assert json.loads(metadata["labels"]) == {"1": "cat", "2": "dog"}
    boxes, scores, labels = detect(noise(1, 50, 70))
    assert boxes.shape == (len(scores), 4) and labels.dtype == torch.int64


@pytest.mark.parametrize("kind", ["weights", "safetensors"])
def test_the_weights_file_starts_a_run(untrained_run, tiny, config_file, kind):
    from detector.model.weights.load import load_weights
    path = export(untrained_run, kind)
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
def test_every_backbone_and_pooling_can_be_traced(tiny, config_file, change):
    """A trace that made a number of boxes or a size a constant fails on the other sizes."""
    config = load_config(str(config_file), [*tiny, *change.split()])
    model = confident_detector(config)
    with torch.no_grad():
        traced = torch.jit.trace(TracedDetector(model, config.model, config.evaluate).eval(), (noise(0, 70, 90),),
                                 check_trace=False)
        agreement = compare(model, traced, [noise(n, *size) for n, size in enumerate(SIZES)], config.evaluate)
    assert agreement.num_boxes > 0 and agreement.num_unmatched == 0, agreement


@pytest.mark.parametrize("change, option", [
    ("model.inclusive_boxes=true", "model.inclusive_boxes=True"), ("model.legacy_anchors=true", "model.legacy_anchors=True"),
    ("model.rpn.pre_nms_top_n_per=image", "model.rpn.pre_nms_top_n_per=image"),
    ("model.backbone=vgg16 model.anchor_sizes=[] model.size_divisor=1", "model.size_divisor=1"),
    ("model.backbone=swin_t_fpn", "model.backbone=swin_t_fpn, whose computation changes with the size of an image")])
def test_options_that_cannot_be_traced_are_refused(tiny, config_file, change, option):
    config = load_config(str(config_file), [*tiny, *change.split()]).model
    with pytest.raises(BadInput, match=f"--format torchscript cannot express {option}: export with --format pt2"):
        export_module.refuse_untraceable_options(config, "torchscript")
    export_module.refuse_untraceable_options(load_config(str(config_file), tiny).model, "torchscript")


@pytest.mark.parametrize("kind, padded_size, error", [
    ("onnx", None, "cannot express model.roi_pooling=pool: .* roi_pool. Export with --format pt2"),
    ("weights", (64, 64), "--padded-size is for --format onnx and pt2, not for weights")])
def test_what_a_format_cannot_have_is_refused_before_anything_is_written(untrained_run, monkeypatch, kind, padded_size, error):
    original = export_module.open_detector

    def load_with_max_pooling(*arguments):
        model, config, *rest = original(*arguments)
        return model, replace(config, model=replace(config.model, roi_pooling="pool")), *rest
    monkeypatch.setattr(export_module, "open_detector", load_with_max_pooling)
    with pytest.raises(BadInput, match=error):
        export(untrained_run, kind, padded_size=padded_size)
    assert not (Path(untrained_run) / "export").exists()


def test_a_folder_in_place_of_the_file_is_refused(untrained_run, tmp_path):
    with pytest.raises(BadInput, match=f"--out {tmp_path} is a folder. Name a file, such as {tmp_path}/detector.onnx"):
        export(untrained_run, "onnx", out=str(tmp_path))


def test_a_padded_size_that_no_image_fits_is_refused(untrained_run):
    with pytest.raises(BadInput, match="--padded-size 32x32: none of the .* fits"):
        export(untrained_run, "pt2", padded_size=(32, 32))
    assert not list((Path(untrained_run) / "export").glob("*detector.pt2"))


def test_a_file_that_disagrees_is_deleted(untrained_run, monkeypatch):
    original = export_module.write_weights

    def write_wrong(model, config, classes, path, metadata):
        detect = original(model, config, classes, path, metadata)
        return lambda image: (detect(image)[0] + 0.01, *detect(image)[1:])
    monkeypatch.setitem(export_module.WRITERS, "weights", write_wrong)
    with pytest.raises(BadInput, match="does not agree"):
        export(untrained_run, "weights")
    assert list((Path(untrained_run) / "export").iterdir()) == []


def test_without_any_detection_to_compare_the_export_fails(untrained_run, monkeypatch):
    silent = replace(load_detector(find_checkpoint(untrained_run), CPU)[1].evaluate, score_thresh=1.0)
    original = export_module.open_detector

    def load_silent(*arguments):
        model, config, classes, step = original(*arguments)
        model.roi_heads.score_thresh = 1.0
        return model, replace(config, evaluate=silent), classes, step
    monkeypatch.setattr(export_module, "open_detector", load_silent)
    with pytest.raises(BadInput, match="the model detects nothing .* --images FOLDER"):
        export(untrained_run, "torchscript")


def test_without_onnx_the_error_states_what_to_install(untrained_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BadInput, match=r"onnxruntime.*fleet-rcnn\[export\]"):
        export(untrained_run, "onnx")
    assert list((Path(untrained_run) / "export").iterdir()) == []
