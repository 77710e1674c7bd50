"""Weights from elsewhere: torchvision's by name, or a file; and a report by name of what became of each tensor."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision import models

from detector.config.model_schema import Model
from detector.errors import BadInput
from detector.model.weights.files import read_weights
from detector.model.weights.name_maps import to_our_names

COCO = {"resnet50_fpn": "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",
        "mobilenet_v3_large_fpn": "FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1"}
# torchvision runs these weights without an epsilon in the frozen batch norms (fasterrcnn_resnet50_fpn's last lines).
EPS = {"FasterRCNN_ResNet50_FPN_Weights.COCO_V1": 0.0}
PREDICTOR = "roi_heads.box_predictor."
RPN_SCORES = "rpn.head.cls_logits."


@dataclass(frozen=True)
class Report:
    """What became of the tensors of a file, and of the model's, by name."""

    loaded: list[str]
    left_out: list[str]     # in the file, of no use here
    other_shape: list[str]  # in both, of different shape: "name [2, 3] here, [4, 3] there"
    fresh: list[str]        # in the model, not filled: they keep their random values
    classes: int = 0        # classes whose rows of the predictor were found by their name
    notes: tuple[str, ...] = ()  # where the file was trained otherwise than this model computes

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded", *self.notes]
        lines += [f"{self.classes} classes matched by name"] * bool(self.classes)
        for what, names in (("left out", self.left_out), ("other shape", self.other_shape), ("fresh", self.fresh)):
            lines += [f"{what} ({len(names)}): {', '.join(names)}"] * bool(names)
        return "; ".join(lines)


def weights_name(config: Model) -> str:
    """The full torchvision name behind imagenet and coco; a file's path or full name as it is."""
    if config.weights == "coco":
        if config.backbone not in COCO:
            raise BadInput(f"model.weights=coco: torchvision has COCO weights for {' and '.join(COCO)}, not for "
                           f"{config.backbone}. Use imagenet, or a file")
        return COCO[config.backbone]
    if config.weights == "imagenet":
        network = config.backbone.removesuffix("_fpn").removesuffix("_c4")
        return str(models.get_model_weights(network).IMAGENET1K_V1)
    return config.weights


def frozen_eps(config: Model) -> float | None:
    """The epsilon that frozen batch norms need for these weights; None: their own."""
    return EPS.get(weights_name(config))


def load_weights(model: nn.Module, config: Model, classes: tuple[str, ...]) -> Report:
    """Fills the model from `model.weights`. Raises BadInput where there is no such file or nothing in it fits."""
    name = weights_name(config)
    stored = read_weights(name)
    broken = [key for key, value in stored.tensors.items() if not value.isfinite().all()]
    tensors = {key: value for key, value in stored.tensors.items() if key not in broken}
    report = fill(model, to_our_names(tensors, config), stored.names, classes)
    if not report.loaded:
        raise BadInput(f"model.weights={name}: no tensor in it fits {config.backbone}; it holds "
                       + ", ".join(list(stored.tensors)[:5]) + ", ...")
    notes = [f"not finite and left out ({len(broken)}): {', '.join(broken)}"] * bool(broken)
    notes += [f"trained with model.{key}={value}, here it is {getattr(config, key)}"
                  for key, value in stored.settings.items() if getattr(config, key) != value]
    return replace(report, notes=tuple(notes))


def fill(model: nn.Module, state: dict[str, Tensor], names: list[str], classes: tuple[str, ...]) -> Report:
    """Copies every tensor that has a place of its name and shape; classes are matched by name where both are known."""
    ours = model.state_dict()
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    state = {key: value for key, value in state.items() if key not in counters or key in ours}
    match_scores(ours, state)
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


def match_scores(ours: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Replaces the RPN's scores in `state` by scores of our kind: one logit for each anchor, or two of a softmax.

    Two are those of all anchors for background, then of all for object. The softmax of two is the sigmoid of their
    difference, so both say the same.
    """
    for key in (f"{RPN_SCORES}weight", f"{RPN_SCORES}bias"):
        theirs, mine = state.get(key), ours.get(key)
        if theirs is None or mine is None:
            continue
        if len(theirs) == 2 * len(mine):
            background, found = theirs.chunk(2)
            state[key] = found - background
        elif 2 * len(theirs) == len(mine):
            state[key] = torch.cat([torch.zeros_like(theirs), theirs])
