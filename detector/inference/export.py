"""`fleet-rcnn export`: writes the detector of a run as ONNX, for torch.export, as TorchScript or as weights.

A file is kept only if its detections agree with those of the model; see export_check.py.
"""

import importlib
import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Callable, Sequence

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from detector.config.model_schema import Model, native_head_options
from detector.config.schema import Config, Evaluate
from detector.errors import BadInput
from detector.inference.export_check import (
    OUTPUTS,
    DetectFunction,
    compare,
    load_check_images,
    model_as_function,
    refuse_disagreement,
)
from detector.inference.fixed_size_model import FixedSizeDetector
from detector.inference.load_detector import open_detector
from detector.inference.traced_model import TracedDetector
from detector.inference.weights_file import named_detector, results_folder
from detector.model.backbones import find_backbone
from detector.model.faster_rcnn import Detector, build_model
from detector.run.files import refuse_folder
from detector.seeding import derive_seed, numpy_random_state
from detector.structures import Resize, scale_and_size

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".torchscript.pt", "weights": ".weights.pt",
            "safetensors": ".safetensors"}
ONNX_OPSET = 20
ONE_IMAGE = ("crop", "align_original")  # kinds of RoI pooling whose graph takes one image; the others take any number
CONTRACT = {  # metadata of fixed-size files; README.md of this folder explains it
    "input images": "uint8 [B, 3, h, w], RGB, each image in the upper left corner; what lies beyond it is not read",
    "input sizes": "int64 [B, 2], height and width of each image in `images`",
    "output boxes": "float32 [B, D, 4], x1 y1 x2 y2 in pixels of the image",
    "output scores": "float32 [B, D], falling; 0 beyond count",
    "output labels": "int64 [B, D], keys of `labels`; 0 beyond count",
    "output count": "int64 [B], detections of each image"}
# Options of the native heads that matter at inference and that torchvision's heads, which TorchScript traces, lack.
UNTRACEABLE = ("model.inclusive_boxes", "model.legacy_anchors", "model.clamp_deltas", "model.rpn.pre_nms_top_n_per",
               "model.rpn.post_nms_top_n_per")


def export(run: str, kind: str, out: str = "", checkpoint: str = "", source: str = "",
           padded_size: tuple[int, int] | None = None, config_name: str = "") -> Path:
    """Exports a detector, with its class names and image size; returns the path of the file.

    Args:
        run: a run folder, or another name of a detector; see open_detector.
        kind: onnx, pt2, torchscript, weights or safetensors.
        out: path of the file; empty: export/detector.SUFFIX in the run folder, or in the current folder without a run.
        checkpoint: of a run, see find_checkpoint.
        source: images for the comparison with the model; empty: the run's validation images.
        padded_size: of onnx and pt2: height and width of the network's input; default: see default_padded_size.
        config_name: of a file of weights, see open_detector.

    Raises:
        BadInput: the format cannot express the model, or the file does not agree with the model; no file is left.
    """
    if padded_size and kind not in FIXED_SIZE_WRITERS:
        raise BadInput(f"--padded-size is for --format {' and '.join(FIXED_SIZE_WRITERS)}, not for {kind}: "
                       "leave it out")
    path = Path(out) if out else results_folder(run) / "export" / f"detector{SUFFIXES[kind]}"
    refuse_folder("--out", path, f"detector{SUFFIXES[kind]}")
    model, config, classes, step = open_detector(run, checkpoint, torch.device("cpu"), config_name)
    model.preprocessing = replace(model.preprocessing, channels_last=False)
    if kind == "torchscript":
        refuse_untraceable_options(config.model, kind)
    if kind == "onnx" and config.model.roi_pooling == "pool":
        raise BadInput("--format onnx cannot express model.roi_pooling=pool: PyTorch's exporter fails to translate "
                       "torchvision's roi_pool. Export with --format pt2 or torchscript")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"part.{path.name}")  # torch.export accepts names that end in .pt2 alone
    images, description = load_check_images(named_detector(run), source)
    metadata = {"labels": json.dumps(dict(enumerate(classes, start=1))), "step": str(step),
                "min_size": str(config.evaluate.min_size), "max_size": str(config.evaluate.max_size)}
    try:
        if kind in FIXED_SIZE_WRITERS:
            padded_size = padded_size or default_padded_size(config.evaluate)
            fixed = build_fixed_size_detector(model, config, len(classes), padded_size)
            images = [image for image in images if fits(image, config.evaluate, fixed.padded_size)]
            if not images:
                raise BadInput(f"--padded-size {'x'.join(map(str, fixed.padded_size))}: none of the {description} "
                               "fits, so that the file could not be compared with the model. Name a larger size, or "
                               "other images: --images FOLDER")
            metadata |= CONTRACT | {"padded_size": json.dumps(list(fixed.padded_size))}
            detect = FIXED_SIZE_WRITERS[kind](fixed, config, partial, metadata)
            agreement = compare(model, detect, images, config.evaluate, fixed.padded_size)
        else:
            detect = WRITERS[kind](model, config, classes, partial, metadata)
            agreement = compare(model, detect, images, config.evaluate)
        refuse_disagreement(agreement, kind, description)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{path}: {kind} of step {step}, {path.stat().st_size / 2**20:.1f} MiB. Compared with the model on "
          f"{description}: {agreement}")
    if config.evaluate.tta != "none" and kind not in ("weights", "safetensors"):
        print(f"The file has no test-time augmentation (evaluate.tta={config.evaluate.tta})")
    return path


def default_padded_size(evaluate: Evaluate) -> tuple[int, int]:
    """Returns a square that every resized image fits in; without a limit of the long side, twice the short one."""
    side = evaluate.max_size or 2 * evaluate.min_size
    return side, side


def fits(image: Tensor, evaluate: Evaluate, padded_size: tuple[int, int]) -> bool:
    """Returns whether a resized image fits the padded size; the graph makes others smaller, the model does not."""
    _, (height, width) = scale_and_size(*image.shape[-2:], Resize(evaluate.min_size, evaluate.max_size))
    return height <= padded_size[0] and width <= padded_size[1]


def build_fixed_size_detector(model: Detector, config: Config, num_classes: int,
                              padded_size: tuple[int, int]) -> FixedSizeDetector:
    """Returns the graph that is exported; a model with torchvision's heads gets native ones, with the same weights."""
    if config.model.heads != "native":
        native = build_model(replace(config.model, heads="native"), config.evaluate, num_classes)
        native.load_state_dict(model.state_dict())
        model = native.eval()
    return FixedSizeDetector(model, config.model, config.evaluate, padded_size).eval()


def export_program(model: FixedSizeDetector, config: Config) -> torch.export.ExportedProgram:
    """Returns the graph for images of any size and, except for ONE_IMAGE, any number of images."""
    dynamic, side = torch.export.Dim.DYNAMIC, 64
    is_batched = config.model.roi_pooling not in ONE_IMAGE
    batch = dynamic if is_batched else torch.export.Dim.STATIC
    num_images = 2 if is_batched else 1  # a dimension of 1 would become a constant
    example = torch.zeros((num_images, 3, side, side + 8), dtype=torch.uint8), torch.full((num_images, 2), side)
    shapes = {"images": {0: batch, 2: dynamic, 3: dynamic}, "sizes": {0: batch}}
    with torch.no_grad():
        return torch.export.export(model, example, dynamic_shapes=shapes, strict=False)


def one_image(detect: Callable[[Tensor, Tensor], Sequence[Tensor]]) -> DetectFunction:
    """Returns a function of one image that runs a detector with padded outputs."""
    def detect_one(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        boxes, scores, labels, count = detect(image[None], torch.tensor([image.shape[-2:]]))
        detected = int(count[0])
        return boxes[0, :detected], scores[0, :detected], labels[0, :detected]
    return detect_one


def write_onnx(model: FixedSizeDetector, config: Config, path: Path, metadata: dict[str, str]) -> DetectFunction:
    """Writes ONNX through torch.export."""
    onnx, onnxruntime, _ = map(import_for_onnx, ("onnx", "onnxruntime", "onnxscript"))
    names = {"input_names": ["images", "sizes"], "output_names": [*OUTPUTS, "count"]}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(export_program(model, config), dynamo=True, opset_version=ONNX_OPSET,
                                    verbose=False, **names)
    graph = program.model_proto
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return one_image(lambda images, sizes: [torch.from_numpy(output) for output in session.run(
        names["output_names"], {"images": images.numpy(), "sizes": sizes.numpy()})])


def write_pt2(model: FixedSizeDetector, config: Config, path: Path, metadata: dict[str, str]) -> DetectFunction:
    """Writes PyTorch's own format: torch.export.load(FILE, extra_files={"labels": ""}) reads graph and metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about weights that share their memory
        torch.export.save(export_program(model, config), path, extra_files=metadata)
    return one_image(torch.no_grad()(torch.export.load(path).module()))


def refuse_untraceable_options(config: Model, kind: str) -> None:
    """Raises BadInput where options of the model cannot be expressed by torchvision's heads, which are traced."""
    options = [f"{path}={value}" for path, value, default in native_head_options(config)
               if path in UNTRACEABLE and value != default]
    if config.size_divisor % 16:
        options.append(f"model.size_divisor={config.size_divisor}")
    if not find_backbone(config).is_traceable:
        options.append(f"model.backbone={config.backbone}, whose computation changes with the size of an image")
    if options:
        raise BadInput(f"--format {kind} cannot express {', '.join(options)}: export with --format pt2 or onnx")


def write_torchscript(model: Detector, config: Config, classes: tuple[str, ...], path: Path,
                      metadata: dict[str, str]) -> DetectFunction:
    """Writes a TorchScript file; torch.jit.load(path, _extra_files={"labels": ""}) reads the metadata."""
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
    return rebuild(config, classes, torch.load(path, weights_only=True))


def write_safetensors(model: Detector, config: Config, classes: tuple[str, ...], path: Path,
                      metadata: dict[str, str]) -> DetectFunction:
    """Writes the state dict and the metadata as safetensors; `model.weights=FILE` starts a run from it."""
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path, metadata)
    return rebuild(config, classes, load_file(path))


def rebuild(config: Config, classes: tuple[str, ...], weights: dict[str, Tensor]) -> DetectFunction:
    model = build_model(config.model, config.evaluate, len(classes)).eval()
    model.load_state_dict(weights)
    return model_as_function(model, Resize(config.evaluate.min_size, config.evaluate.max_size))


# Each writes a file and returns the detector that it reads back from the file.
WRITERS = {"torchscript": write_torchscript, "weights": write_weights, "safetensors": write_safetensors}
FIXED_SIZE_WRITERS = {"onnx": write_onnx, "pt2": write_pt2}


def import_for_onnx(name: str) -> ModuleType:
    """Returns a module of the extra `export`; raises BadInput where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BadInput(f"--format onnx needs {name}, which is not installed: pip install 'fleet-rcnn[export]'"
                       ) from error


def example_image() -> Tensor:
    """Returns an image to trace with: noise, so that every level of a feature pyramid has proposals."""
    return torch.from_numpy(numpy_random_state(derive_seed(0, "trace")).randint(0, 256, (3, 200, 300)).astype(np.uint8))
