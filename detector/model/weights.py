"""Weights from elsewhere: torchvision's by name, or a file; and a report by name of what became of each tensor."""

import os
import pickle
from dataclasses import dataclass
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from detector.config.model import Model
from detector.errors import BadInput

COCO = {"resnet50_fpn": "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",
        "mobilenet_v3_large_fpn": "FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1"}
# torchvision runs these weights without an epsilon in the frozen batch norms (fasterrcnn_resnet50_fpn's last lines).
EPS = {"FasterRCNN_ResNet50_FPN_Weights.COCO_V1": 0.0}
PREDICTOR = "roi_heads.box_predictor."


@dataclass(frozen=True)
class Report:
    """What became of the tensors of a file, and of the model's, by name."""

    loaded: list[str]
    left_out: list[str]     # in the file, of no use here
    other_shape: list[str]  # in both, of different shape: "name [2, 3] here, [4, 3] there"
    fresh: list[str]        # in the model, not filled: they keep their random values
    classes: int = 0        # classes whose rows of the predictor were found by their name

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded"]
        lines += [f"{self.classes} classes matched by name"] * bool(self.classes)
        for what, names in (("left out", self.left_out), ("other shape", self.other_shape), ("fresh", self.fresh)):
            lines += [f"{what} ({len(names)}): {', '.join(names)}"] * bool(names)
        return "; ".join(lines)


def weights_name(config: Model) -> str:
    """The full torchvision name behind imagenet and coco; a file's path or full name as it is."""
    if config.weights == "coco":
        if config.body not in COCO:
            raise BadInput(f"model.weights=coco: torchvision has COCO weights for {' and '.join(COCO)}, not for "
                           f"{config.body}. Use imagenet, or a file")
        return COCO[config.body]
    if config.weights == "imagenet":
        network = config.body.removesuffix("_fpn").removesuffix("_c4")
        return str(models.get_model_weights(network).IMAGENET1K_V1)
    return config.weights


def frozen_eps(config: Model) -> float | None:
    """The epsilon that frozen batch norms need for these weights; None: their own."""
    return EPS.get(weights_name(config))


def load_weights(model: nn.Module, config: Model, classes: tuple[str, ...]) -> Report:
    """Fills the model from `model.weights`. Raises BadInput where there is no such file or nothing in it fits."""
    name = weights_name(config)
    state, names = read_weights(name)
    report = fill(model, to_our_names(state, config.body), names, classes)
    if not report.loaded:
        raise BadInput(f"model.weights={name}: no tensor in it fits {config.body}; it holds "
                       + ", ".join(list(state)[:5]) + ", ...")
    return report


def read_weights(name: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors, and the class names from label 0 on where they are known."""
    if os.path.isfile(os.path.expanduser(name)):
        return _read_file(os.path.expanduser(name))
    try:
        entry: WeightsEnum = models.get_weight(name)
    except (ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"model.weights={name}: no such file, and torchvision has no weights of this name. Use "
                       "imagenet, coco, a name such as ResNet50_Weights.IMAGENET1K_V2, or a file") from error
    place = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(entry.url))
    try:
        state = entry.get_state_dict(progress=False, check_hash=True)
    except (EOFError, pickle.UnpicklingError) as error:
        raise BadInput(f"model.weights={name}: {place} is broken. Remove it, and download {entry.url} again") from error
    except (URLError, OSError, RuntimeError) as error:
        raise BadInput(f"model.weights={name}: the file is not there and could not be downloaded ({error}). Download "
                       f"{entry.url} elsewhere and put it at {place}") from error
    return state, list(entry.meta["categories"]) if name.startswith("FasterRCNN") else []


def _read_file(path: str) -> tuple[dict[str, Tensor], list[str]]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load names no common base for what a foreign file makes it raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadInput(f"model.weights={path} is no file of tensors: {reason}") from error
    names = ["__background__", *stored["classes"]] if isinstance(stored, dict) and "classes" in stored else []
    while isinstance(stored, dict) and isinstance(stored.get("model", stored.get("state_dict")), dict):
        stored = stored.get("ema") or stored.get("model", stored.get("state_dict"))
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise BadInput(f"model.weights={path}: a dict of tensors expected, or one below `model` or `state_dict`")
    return stored, names


def to_our_names(state: dict[str, Tensor], body: str) -> dict[str, Tensor]:
    """A classifier's names as the detector's; a detector's stay as they are."""
    if any(key.startswith(("backbone.", "rpn.", "roi_heads.")) for key in state):
        return state
    head = "roi_heads.box_head."
    if body == "vgg16":
        moves = {"features.": "backbone.", "classifier.0.": f"{head}fc6.", "classifier.3.": f"{head}fc7."}
    elif body.endswith("_c4"):
        moves = {"layer4.": f"{head}layer4.", "fc.": "fc.", "": "backbone."}
    elif body.startswith("mobilenet"):
        moves = {"features.": "backbone.body."}
    else:
        moves = {"fc.": "fc.", "": "backbone.body."}
    named = {}
    for key, value in state.items():
        start = next((start for start in moves if key.startswith(start)), None)
        named[key if start is None else moves[start] + key[len(start):]] = value
    return named


def fill(model: nn.Module, state: dict[str, Tensor], names: list[str], classes: tuple[str, ...]) -> Report:
    """Copies every tensor that has a place of its name and shape; classes are matched by name where both are known."""
    ours = model.state_dict()
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    state = {key: value for key, value in state.items() if key not in counters or key in ours}
    matched = match_classes(ours, state, names, classes)
    fitting = {key: value for key, value in state.items() if key in ours and ours[key].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    other = [f"{key} {list(ours[key].shape)} here, {list(value.shape)} there" for key, value in state.items()
             if key in ours and ours[key].shape != value.shape]
    fresh = [key for key in ours if key not in fitting and not key.endswith("num_batches_tracked")]
    return Report(list(fitting), [key for key in state if key not in ours], other, fresh, matched)


def match_classes(ours: dict[str, Tensor], state: dict[str, Tensor], names: list[str], classes: tuple[str, ...]) -> int:
    """Replaces the predictor's rows in `state` by rows in our order; a class it does not know keeps ours.

    Returns how many classes were found. A class-agnostic box has no rows by class and stays as it is.
    """
    if not names or ["__background__", *classes] == names:
        return 0
    pairs = [(0, 0)] + [(c, names.index(name)) for c, name in enumerate(classes, start=1) if name in names]
    for key in [key for key in state if key.startswith(PREDICTOR) and key in ours]:
        theirs, mine, rows = state[key], ours[key].clone(), 1 if "cls_score" in key else 4
        expected = (rows * (len(classes) + 1), rows * len(names))
        if (len(mine), len(theirs)) != expected or mine.shape[1:] != theirs.shape[1:]:
            continue
        for c, other in pairs:
            mine[c * rows:(c + 1) * rows] = theirs[other * rows:(other + 1) * rows]
        state[key] = mine
    return len(pairs) - 1
