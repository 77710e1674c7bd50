"""`fleet-rcnn export`: writes the detector of a run as ONNX, TorchScript or weights.

A file is kept only if its detections agree with those of the model; see export_check.py.
"""

import importlib
import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector.config.model_schema import Model, native_head_options
from detector.config.schema import Config
from detector.errors import BadInput
from detector.inference.export_check import (
    OUTPUTS,
    DetectFunction,
    compare,
    load_check_images,
    model_as_function,
    refuse_disagreement,
)
from detector.inference.predictor import find_checkpoint, load_detector
from detector.inference.traced_model import TracedDetector
from detector.model.backbones import find_backbone
from detector.model.faster_rcnn import Detector, build_model
from detector.seeding import derive_seed, numpy_random_state
from detector.structures import Resize

SUFFIXES = {"onnx": ".onnx", "torchscript": ".torchscript.pt", "weights": ".weights.pt"}
ONNX_OPSET = 17  # the first one that has all operators of a detector
# Options of the native heads that matter at inference and that torchvision's heads, which are traced, do not have.
UNTRACEABLE = ("model.inclusive_boxes", "model.legacy_anchors", "model.clamp_deltas", "model.rpn.pre_nms_top_n_per",
               "model.rpn.post_nms_top_n_per")


def export(run: str, kind: str, out: str = "", which: str = "best", source: str = "") -> Path:
    """Exports the detector of a run, with its class names and image size; returns the path of the file.

    Args:
        kind: onnx, torchscript or weights.
        out: path of the file; empty: RUN/export/detector.SUFFIX.
        which: checkpoint, see find_checkpoint.
        source: images for the comparison with the model; empty: the run's validation images.

    Raises:
        BadInput: the format cannot express the model, or the file does not agree with the model; no file is left.
    """
    model, config, classes, step = load_detector(find_checkpoint(run, which), torch.device("cpu"))
    model.preprocessing = replace(model.preprocessing, channels_last=False)
    if kind != "weights":
        refuse_untraceable_options(config.model, kind)
    path = Path(out) if out else Path(run) / "export" / f"detector{SUFFIXES[kind]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    images, description = load_check_images(run, source)
    metadata = {"classes": json.dumps(classes), "step": str(step), "min_size": str(config.evaluate.min_size),
                "max_size": str(config.evaluate.max_size), "input": "image: uint8 [3, H, W], RGB, any size"}
    try:
        detect = WRITERS[kind](model, config, classes, partial, metadata)
        agreement = compare(model, detect, images, config.evaluate)
        refuse_disagreement(agreement, kind, description)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{path}: {kind} of step {step}, {path.stat().st_size / 2**20:.1f} MiB. Compared with the model on "
          f"{description}: {agreement}")
    return path


def refuse_untraceable_options(config: Model, kind: str) -> None:
    """Raises BadInput where options of the model cannot be expressed by torchvision's heads, which are traced."""
    options = [f"{path}={value}" for path, value, default in native_head_options(config)
               if path in UNTRACEABLE and value != default]
    if config.size_divisor % 16:
        options.append(f"model.size_divisor={config.size_divisor}")
    if not find_backbone(config).is_traceable:
        options.append(f"model.backbone={config.backbone}, whose computation changes with the size of an image")
    if options:
        raise BadInput(f"--format {kind} cannot express {', '.join(options)}: export with --format weights, or train "
                       "with the defaults of these options")


def write_onnx(model: Detector, config: Config, classes: tuple[str, ...], path: Path,
               metadata: dict[str, str]) -> DetectFunction:
    """Writes ONNX with the exporter that follows a trace: the newer one (dynamo) does not support the data-dependent
    number of boxes yet."""
    onnx, onnxruntime = import_for_onnx("onnx"), import_for_onnx("onnxruntime")
    dynamic = {"image": {1: "height", 2: "width"}, **{name: {0: "found"} for name in OUTPUTS}}
    traced = TracedDetector(model, config.model, config.evaluate).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about constants in the trace, which the comparison would detect
        torch.onnx.export(traced, (example_image(),), str(path), dynamo=False, input_names=["image"],
                          output_names=list(OUTPUTS), dynamic_axes=dynamic, opset_version=ONNX_OPSET)
    graph = onnx.load(str(path))
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: tuple(map(torch.from_numpy, session.run(list(OUTPUTS), {"image": image.numpy()})))


def write_torchscript(model: Detector, config: Config, classes: tuple[str, ...], path: Path,
                      metadata: dict[str, str]) -> DetectFunction:
    """Writes a TorchScript file; torch.jit.load(path, _extra_files={"classes": ""}) reads the metadata."""
    traced = TracedDetector(model, config.model, config.evaluate).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(traced, (example_image(),), check_trace=False)
        torch.jit.save(script, str(path), _extra_files=metadata)
        return torch.no_grad()(torch.jit.load(str(path)))


def write_weights(model: Detector, config: Config, classes: tuple[str, ...], path: Path,
                  metadata: dict[str, str]) -> DetectFunction:
    """Writes the state dict, with the names of torchvision's detectors; `model.weights=FILE` starts a run from it."""
    torch.save(model.state_dict(), path)
    reloaded = build_model(config.model, config.evaluate, len(classes)).eval()
    reloaded.load_state_dict(torch.load(path, weights_only=True))
    return model_as_function(reloaded, Resize(config.evaluate.min_size, config.evaluate.max_size))


# Each writes a file and returns the detector that it reads back from the file.
WRITERS = {"onnx": write_onnx, "torchscript": write_torchscript, "weights": write_weights}


def import_for_onnx(name: str):
    """Returns a module of the extra `export`; raises BadInput where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BadInput(f"--format onnx needs {name}, which is not installed: pip install 'fleet-rcnn[export]'"
                       ) from error


def example_image() -> Tensor:
    """Returns an image to trace with: noise, so that every level of a feature pyramid has proposals."""
    return torch.from_numpy(numpy_random_state(derive_seed(0, "trace")).randint(0, 256, (3, 200, 300)).astype(np.uint8))
