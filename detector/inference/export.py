"""A run's detector for other programs: ONNX, TorchScript or weights; compared with the model before it counts."""

import importlib
import json
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from detector.config.load import load_config
from detector.config.model_schema import Model, native_head_options
from detector.config.schema import Config, Evaluate
from detector.data.formats.shapes import draw_image
from detector.data.image_io import image_files, read_image
from detector.data.read import read_splits
from detector.errors import BadInput
from detector.inference.predictor import find_checkpoint, load_detector
from detector.inference.traced_model import Portable
from detector.model.faster_rcnn import Detector, build_model
from detector.seeding import derive_seed, numpy_random_state
from detector.structures import Resize, scale_and_size
from detector.visualization.validation_images import evenly_spaced

ENDING = {"onnx": ".onnx", "torchscript": ".torchscript.pt", "weights": ".weights.pt"}
OPSET = 17          # of ONNX: the first with all that is needed, and known to every runtime that is in use
TOLERANCE = 1e-3    # pixels of a box side, as the network sees the image, and score
CHECKED = 20        # images that model and file are compared on
STRETCH = ((1, 1), (0.5, 0.5), (1, 0.6), (0.6, 1), (1.3, 1.3), (0.4, 0.7))  # of height and width, image by image
OUTPUTS = ("boxes", "scores", "labels")
Detect = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # as Portable


@dataclass(frozen=True)
class Agreement:
    """How far two detectors are from each other on some images."""

    images: int
    sizes: int           # different ones
    boxes: int           # that both found
    box: float           # largest difference of a coordinate, pixels of the resized image
    score: float         # largest difference of a score
    strangers: int       # boxes that only one of them found

    def __str__(self) -> str:
        return (f"{self.boxes} boxes in {self.images} images of {self.sizes} sizes: boxes differ by {self.box:.1e} "
                f"pixels of the resized image at most, scores by {self.score:.1e}")


def export(run: str, kind: str, out: str = "", which: str = "best", source: str = "") -> Path:
    """Writes the detector of a run as `kind` (see ENDING) and gives the file's path; classes and sizes go into it.

    The file appears once its detections agree with the model's to TOLERANCE, on images of `source` or of the run's
    validation data; else BadInput.
    """
    model, config, classes, step = load_detector(find_checkpoint(run, which), torch.device("cpu"))
    model.input = replace(model.input, channels_last=False)
    if kind != "weights":
        refuse_other_heads(config.model, kind)
    path = Path(out) if out else Path(run) / "export" / f"detector{ENDING[kind]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    images, said = check_images(run, source)
    about = {"classes": json.dumps(classes), "step": str(step), "short_side": str(config.evaluate.min_size),
             "long_side": str(config.evaluate.max_size), "input": "image: uint8 [3, H, W], RGB, any size"}
    try:
        detect = WRITERS[kind](model, config, classes, beside, about)
        found = compare(model, detect, images, config.evaluate)
        refuse_disagreement(found, kind, said)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    print(f"{path}: {kind} of step {step}, {path.stat().st_size / 2**20:.1f} MiB. Compared with the model on {said}: "
          f"{found}")
    return path


def refuse_other_heads(config: Model, kind: str) -> None:
    """What is traced is torchvision's heads; they know neither the boxes nor the anchors of the published tables."""
    others = [f"{path}={value}" for path, value, usual in native_head_options(config) if path in UNTRACED and value != usual]
    others += [f"model.size_divisor={config.size_divisor}"] * bool(config.size_divisor % 16)
    if others:
        raise BadInput(f"--format {kind} cannot express {', '.join(others)}: export the weights, or train with the "
                       "defaults of these")


def refuse_disagreement(found: Agreement, kind: str, said: str) -> None:
    if found.strangers:
        raise BadInput(f"the {kind} file does not agree with the model to {TOLERANCE:g}, and was not kept. On {said}: "
                       f"{found.strangers} boxes have no partner; {found}")
    if not found.boxes:
        raise BadInput(f"nothing was found in {said}, so the {kind} file could not be compared with the model, and was "
                       "not kept. Name images in which this detector finds something with --images FOLDER")


def write_onnx(model: Detector, config: Config, classes: tuple[str, ...], path: Path, about: dict[str, str]) -> Detect:
    """The exporter that follows a trace: the newer one cannot yet follow boxes whose number depends on the image."""
    onnx, runtime = needed("onnx"), needed("onnxruntime")
    dynamic = {"image": {1: "height", 2: "width"}, **{name: {0: "found"} for name in OUTPUTS}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of constants in the trace, which the comparison is there to find
        torch.onnx.export(Portable(model, config.model, config.evaluate).eval(), (example(),), str(path), dynamo=False,
                          input_names=["image"], output_names=list(OUTPUTS), dynamic_axes=dynamic, opset_version=OPSET)
    graph = onnx.load(str(path))
    onnx.helper.set_model_props(graph, about)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: tuple(map(torch.from_numpy, session.run(list(OUTPUTS), {"image": image.numpy()})))


def write_torchscript(model: Detector, config: Config, classes: tuple[str, ...], path: Path,
                      about: dict[str, str]) -> Detect:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Portable(model, config.model, config.evaluate).eval(), (example(),), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files=about)
        return torch.no_grad()(torch.jit.load(str(path)))


def write_weights(model: Detector, config: Config, classes: tuple[str, ...], path: Path,
                  about: dict[str, str]) -> Detect:
    """The state dict, with the names of torchvision's detectors; `model.weights=FILE` starts a run from it."""
    torch.save(model.state_dict(), path)
    again = build_model(config.model, config.evaluate, len(classes)).eval()
    again.load_state_dict(torch.load(path, weights_only=True))
    return detect_with(again, Resize(config.evaluate.min_size, config.evaluate.max_size))


# Options of our heads that matter in evaluation and that torchvision's do not have.
UNTRACED = ("model.inclusive_boxes", "model.legacy_anchors", "model.clamp_deltas", "model.rpn.pre_nms_top_n_per",
            "model.rpn.post_nms_top_n_per")
WRITERS = {"onnx": write_onnx, "torchscript": write_torchscript, "weights": write_weights}


def needed(name: str):
    """A module of the extra `export`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BadInput(f"--format onnx needs {name}, which is not installed: pip install 'fleet-rcnn[export]'"
                       ) from error


def example() -> Tensor:
    """An image to trace with. Noise, so that there is something at every level of a pyramid."""
    return torch.from_numpy(numpy_random_state(derive_seed(0, "trace")).randint(0, 256, (3, 200, 300)).astype(np.uint8))


def check_images(run: str, source: str) -> tuple[list[Tensor], str]:
    """Images of many sizes, and what they are: of `source`, else of the validation data, else drawn ones."""
    if source:
        paths, said = image_files(source), f"images of {source}"
    else:
        try:
            data = load_config(str(Path(run) / "config.yaml")).data
            val = read_splits(data, data.val or data.train)
            paths, said = [val.path(index) for index in evenly_spaced(len(val), CHECKED)], f"images of {val.name}"
        except BadInput:
            paths, said = [], "drawn images, as the run's own data cannot be read"
    images = [read_image(paths[number % len(paths)]) for number in range(CHECKED)] if paths else \
        [torch.from_numpy(np.array(draw_image(numpy_random_state(derive_seed(0, "export", number)))[0])).permute(2, 0, 1)
         for number in range(CHECKED)]
    return [stretched(image, *STRETCH[number % len(STRETCH)]) for number, image in enumerate(images)], said


def stretched(image: Tensor, down: float, right: float) -> Tensor:
    size = [max(1, round(image.shape[1] * down)), max(1, round(image.shape[2] * right))]
    return interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def detect_with(model: Detector, side: Resize) -> Detect:
    def detect(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = model.predict([image], side)[0][0]
        return tuple(found[name] for name in OUTPUTS)
    return detect


def compare(model: Detector, detect: Detect, images: list[Tensor], evaluate: Evaluate) -> Agreement:
    """Both detectors on each image; the order of boxes does not count.

    Boxes are compared where they are computed, in the resized image: made large again, rounding is many times as much.
    """
    side = Resize(evaluate.min_size, evaluate.max_size)
    expect = detect_with(model, side)
    boxes, strangers, box, score = 0, 0, 0.0, 0.0
    for image in images:
        scale, _ = scale_and_size(*image.shape[-2:], side)
        expected, found = list(expect(image)), list(detect(image))
        expected[0], found[0] = scale * expected[0], scale * found[0]
        pairs, alone = pair(expected, found, evaluate)
        boxes, strangers = boxes + len(pairs), strangers + alone
        box, score = max(box, pairs[:, 0].max(initial=0)), max(score, pairs[:, 1].max(initial=0))
    sizes = len({tuple(image.shape) for image in images})
    return Agreement(len(images), sizes, boxes, float(box), float(score), strangers)


def pair(expected: Sequence[Tensor], found: Sequence[Tensor], evaluate: Evaluate) -> tuple[np.ndarray, int]:
    """Partners of one class in both lists: their differences (box, score) [P, 2], and how many boxes are alone.

    A box as weak as the weakest that is kept, to TOLERANCE, may be in one list only: rounding decides whether it is.
    """
    a, b = ([part.detach().cpu().double().numpy() for part in parts] for parts in (expected, found))
    floor = max([evaluate.score_thresh] + [scores.min() for _, scores, _ in (a, b) if len(scores) >= evaluate.max_detections])
    pairs, alone = [], 0
    for one, other in ((a, b), (b, a)):
        for box, score, label in zip(*one):
            apart = np.stack([np.abs(other[0] - box).max(axis=1), np.abs(other[1] - score)], axis=1)[other[2] == label]
            near = apart[np.argmin(apart.max(axis=1))] if len(apart) else np.full(2, np.inf)
            if near.max() <= TOLERANCE:
                pairs += [near] if one is a else []
            elif score > floor + TOLERANCE:
                alone += 1
    return np.array(pairs).reshape(-1, 2), alone
