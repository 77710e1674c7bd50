"""Fills a model with weights of torchvision or of a file, and reports by name what became of each tensor."""

from collections import Counter
from dataclasses import dataclass, replace

from torch import Tensor, nn

from detector.config.model_schema import Model
from detector.errors import BadInput, count_of
from detector.model.backbones import BACKBONES, find_backbone
from detector.model.weights.files import StoredWeights, read_weights
from detector.model.weights.name_maps import to_model_names
from detector.py_faster_rcnn.rpn import softmax_logit, two_scores

PREDICTOR = "roi_heads.box_predictor."
MAX_NAMES = 6  # of tensors that are listed one by one
RPN_SCORES = "rpn.head.cls_logits."


@dataclass(frozen=True)
class LoadReport:
    """The outcome of loading a file: the fate of each tensor of the file and of the model, by name."""

    loaded: list[str]
    unused: list[str]       # in the file, not in the model
    mismatched: list[str]   # in both, of different shape: "name [2, 3] in the model, [4, 3] in the file"
    not_loaded: list[str]   # in the model, not filled: they keep their initial values
    matched_classes: int = 0  # classes whose rows of the predictor were found by name, and copied
    new_classes: int = 0      # classes of the model that the file's names lack: their rows keep their initial values
    notes: tuple[str, ...] = ()  # differences between the training of the file and this model

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded", *self.notes]
        if self.matched_classes:
            lines.append(f"{count_of(self.matched_classes, 'class', 'classes')} matched by name")
        if self.new_classes:
            lines.append(f"{count_of(self.new_classes, 'class is', 'classes are')} new, with random rows in the "
                         "predictor")
        for label, names in (("unused", self.unused), ("different shape", self.mismatched),
                             ("not loaded", self.not_loaded)):
            if names:
                lines.append(f"{label} ({len(names)}): {', '.join(group_names(names))}")
        return "; ".join(lines)


def group_names(names: list[str]) -> list[str]:
    """Returns names of tensors; many of them by the stage or the part that they are in, with their number."""
    if len(names) <= MAX_NAMES:
        return names
    groups = Counter(".".join(name.split(".")[:3 if name.startswith("backbone.body.") else 2]) for name in names)
    return [f"{group}.* ({count})" if count > 1 else group for group, count in groups.items()]


def weights_name(config: Model) -> str:
    """Returns the full torchvision name that model.weights=imagenet or coco stands for; other values as they are.

    Raises:
        BadInput: torchvision has no such weights for the backbone.
    """
    if config.weights not in ("imagenet", "coco"):
        return config.weights
    name = getattr(find_backbone(config), f"{config.weights}_weights")
    if not name:
        known = [key for key, backbone in BACKBONES.items() if getattr(backbone, f"{config.weights}_weights")]
        other = "imagenet, or a file" if config.weights == "coco" else "a file"
        raise BadInput(f"model.weights={config.weights}: torchvision has {config.weights} weights for "
                       f"{', '.join(known)}, not for {config.backbone}. Use {other}")
    return name


def frozen_norm_eps(config: Model) -> float | None:
    """Returns the epsilon that frozen batch norms need for these weights; None: that of each norm."""
    backbone = find_backbone(config)
    return backbone.coco_norm_eps if weights_name(config) == backbone.coco_weights else None


def load_weights(model: nn.Module, config: Model, classes: tuple[str, ...],
                 stored: StoredWeights | None = None) -> LoadReport:
    """Fills a model from model.weights.

    Args:
        stored: the content of model.weights; None: it is read.

    Raises:
        BadInput: there is no such file or entry, it cannot be read, or no tensor in it fits.
    """
    name = weights_name(config)
    stored = stored or read_weights(name)
    not_finite = [key for key, value in stored.tensors.items() if not value.isfinite().all()]
    tensors = {key: value for key, value in stored.tensors.items() if key not in not_finite}
    tensors = to_model_names(tensors, config)
    report = fill(model, tensors, stored.class_names, classes)
    if not report.loaded:
        raise BadInput(f"model.weights={name}: no tensor in it fits {config.backbone}; it holds "
                       + ", ".join(list(stored.tensors)[:5]) + ", ...")
    refuse_frozen_without_statistics(report, config)
    notes = [f"not finite and left out ({len(not_finite)}): {', '.join(not_finite)}"] if not_finite else []
    notes += [f"trained with model.{key}={value}, this model has {getattr(config, key)}"
              for key, value in stored.settings.items() if getattr(config, key) != value]
    scores = tensors.get(f"{PREDICTOR}cls_score.bias")
    if stored.class_names and scores is not None and len(scores) != len(stored.class_names):
        notes.append(f"the names of classes in the file ({len(stored.class_names) - 1}) are not used: its predictor "
                     f"has {count_of(len(scores) - 1, 'class', 'classes')}")
    return replace(report, notes=tuple(notes))


def refuse_frozen_without_statistics(report: LoadReport, config: Model) -> None:
    """Raises BadInput where model.norm=frozen freezes norms that a classifier cannot fill, and the weights did not."""
    of_classifier = tuple(new for _, new in find_backbone(config).classifier_prefixes)
    norms = [name.removesuffix(".running_var") for name in report.not_loaded
             if name.endswith(".running_var") and not name.startswith(of_classifier)]
    if config.norm == "frozen" and norms:
        raise BadInput(f"model.weights={config.weights} with model.norm=frozen: the weights have no statistics for "
                       f"{len(norms)} norms of {config.backbone}, {norms[0]} ..., which would stay without effect. Set "
                       "model.norm=trained or model.norm=synchronized, or use weights of the whole detector")


def fill(model: nn.Module, state: dict[str, Tensor], class_names: list[str], classes: tuple[str, ...]) -> LoadReport:
    """Copies every tensor of `state` whose name and shape the model has.

    Args:
        class_names: of the weights, from label 0 (background) on; empty if they are not known.
        classes: of the model, from label 1 on. Rows of the predictor are matched by name where both are known.
    """
    own = model.state_dict()
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    state = {key: value for key, value in state.items() if key not in counters or key in own}
    match_rpn_scores(own, state)
    matched, new = match_classes(own, state, class_names, classes)
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    mismatched = [f"{key} {list(own[key].shape)} in the model, {list(value.shape)} in the file"
                  for key, value in state.items() if key in own and own[key].shape != value.shape]
    not_loaded = [key for key in own if key not in fitting and not key.endswith("num_batches_tracked")]
    return LoadReport(list(fitting), [key for key in state if key not in own], mismatched, not_loaded, matched, new)


def match_classes(own: dict[str, Tensor], state: dict[str, Tensor], class_names: list[str],
                  classes: tuple[str, ...]) -> tuple[int, int]:
    """Reorders the predictor's rows in `state` to the model's classes, in place; returns how many matched, and are new.

    A class that the weights do not know keeps the model's own rows. A class-agnostic box has no rows by class and stays
    as it is. Both numbers are 0 where no rows were copied by name.
    """
    if not class_names or ["__background__", *classes] == class_names:
        return 0, 0
    copied = False
    pairs = [(0, 0)] + [(c, class_names.index(name)) for c, name in enumerate(classes, start=1) if name in class_names]
    for key in [key for key in state if key.startswith(PREDICTOR) and key in own]:
        stored, rows, each = state[key], own[key].clone(), 1 if "cls_score" in key else 4
        expected = (each * (len(classes) + 1), each * len(class_names))
        if (len(rows), len(stored)) != expected or rows.shape[1:] != stored.shape[1:]:
            continue
        for c, stored_class in pairs:
            rows[c * each:(c + 1) * each] = stored[stored_class * each:(stored_class + 1) * each]
        state[key], copied = rows, True
    return (len(pairs) - 1, len(classes) + 1 - len(pairs)) if copied else (0, 0)


def match_rpn_scores(own: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Converts the RPN's scores in `state` to the model's kind, in place: one logit for each anchor, or two scores.

    The softmax of two scores is the sigmoid of their difference, so both kinds give the same probability.
    """
    for key in (f"{RPN_SCORES}weight", f"{RPN_SCORES}bias"):
        if key not in state or key not in own:
            continue
        if len(state[key]) == 2 * len(own[key]):
            state[key] = softmax_logit(state[key], 0)
        elif 2 * len(state[key]) == len(own[key]):
            state[key] = two_scores(state[key])
