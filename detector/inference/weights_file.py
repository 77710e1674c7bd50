"""Detectors without a run: torchvision's COCO detectors by name, and files of weights with their config."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from detector.config.aliases import print_once
from detector.config.load import load_config
from detector.config.names import RUNS_FOLDER, find_config, named_run
from detector.config.options import auto_options
from detector.config.parsing import did_you_mean
from detector.config.schema import Config
from detector.data.formats import voc
from detector.errors import BadInput, count_of, shorten
from detector.model.backbones import find_backbone
from detector.model.faster_rcnn import Detector, build_model
from detector.model.weights.files import StoredWeights, find_download, read_weights
from detector.model.weights.load import PREDICTOR, LoadReport, load_weights, weights_name
from detector.model.weights.name_maps import to_model_names

NAMES_IN_ERROR = 10  # tensors that an error message lists
COCO = "coco"
NO_CLASS = "N/A"  # torchvision's name of the ten category ids that COCO 2017 does not use
WEIGHT_SUFFIXES = (".pth", ".pt", ".pkl", ".safetensors")

# Builders of torchvision -> the config with the same detector, and options that differ from it.
COCO_DETECTORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fasterrcnn_resnet50_fpn": ("coco/resnet50_fpn", ()),
    "fasterrcnn_resnet50_fpn_v2": ("coco/resnet50_fpn_v2", ()),
    "fasterrcnn_mobilenet_v3_large_fpn": ("coco/mobilenet_v3_large_fpn", ()),
    "fasterrcnn_mobilenet_v3_large_320_fpn": ("coco/mobilenet_v3_large_fpn", (
        "model.weights=FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1", "model.rpn.pre_nms_top_n_eval=150",
        "model.rpn.post_nms_top_n_eval=150", "evaluate.min_size=320", "evaluate.max_size=640")),
}


@dataclass(frozen=True)
class WeightsDetector:
    """A detector that was built from a config and filled with weights, on the CPU."""

    model: Detector
    config: Config
    classes: tuple[str, ...]
    report: LoadReport


def is_coco_name(name: str) -> bool:
    """Returns whether a detector is named as one of torchvision's: `coco` or `coco:BUILDER`."""
    return name == COCO or name.startswith(f"{COCO}:")


def named_detector(name: str) -> str:
    """Returns the folder of the run that a detector's name stands for; other names unchanged.

    The run runs/coco comes before torchvision's detectors, and these before a folder ./coco, which may hold a data set.
    """
    inside = os.path.join(RUNS_FOLDER, name)
    return inside if is_coco_name(name) and os.path.isdir(inside) else named_run(name)


def results_folder(name: str) -> Path:
    """Returns the folder for the results of a detector: that of the run, or the current one where there is no run."""
    folder = named_detector(name)
    return Path(folder if os.path.isdir(folder) and not is_coco_name(folder) else ".")


def coco_config(name: str) -> Config:
    """Returns the config of `coco` (ResNet-50 FPN) or `coco:BUILDER`. Raises BadInput for an unknown builder."""
    builder = name.partition(":")[2] or next(iter(COCO_DETECTORS))
    if builder not in COCO_DETECTORS:
        raise BadInput(f"{name}: torchvision has no such Faster R-CNN{did_you_mean(builder, COCO_DETECTORS)}. Name one "
                       "of " + ", ".join(f"{COCO}:{known}" for known in COCO_DETECTORS))
    config_name, options = COCO_DETECTORS[builder]
    return load_config(config_name, ["model.weights=coco", *options])


def config_with_weights(weights: str, config_name: str, overrides: Sequence[str] = (),
                        overridden: frozenset[str] = frozenset()) -> Config:
    """Returns a config with model.weights set to a file.

    Settings of the model that the file stores, such as its RoI pooling, replace those of the config, but not those that
    are `overridden`.

    Args:
        config_name: a row of the tables, a shipped config, or a YAML file.
        overridden: paths of the options that `overrides` set.

    Raises:
        BadInput: there is no such file or config, or the config does not state the size of images.
    """
    if not Path(weights).expanduser().is_file():
        raise BadInput(f"no such file of weights: {weights}")
    try:
        name = str(find_config(f"tables/{config_name}"))
    except BadInput:
        name = config_name
    config = load_config(name, [*overrides, f"model.weights={weights}"])
    if "evaluate.min_size" in auto_options(config):
        raise BadInput("evaluate.min_size=auto: follows from training images, and these weights were trained "
                       f"elsewhere. Set it to the size of that training, such as evaluate.min_size=800, in {name} or "
                       "in a config file with `base:` of that name")
    settings = {key: value for key, value in read_weights(weights).settings.items()
                if f"model.{key}" not in overridden}
    return replace(config, model=replace(config.model, **settings))


def build_from_weights(config: Config, classes: tuple[str, ...],
                       stored: StoredWeights | None = None) -> WeightsDetector:
    """Returns the detector of a config, filled with model.weights.

    Args:
        classes: of the detector.
        stored: the content of model.weights; None: it is read.

    Raises:
        BadInput: the weights cannot be read, or leave a part of the model without weights.
    """
    model = build_model(config.model, config.evaluate, len(classes))
    report = load_weights(model, config.model, classes, stored)
    if report.not_loaded:
        names = ", ".join(report.not_loaded[:NAMES_IN_ERROR])
        raise BadInput(f"{config.model.weights} does not fill {len(report.not_loaded)} tensors of "
                       f"{config.model.backbone} with {len(classes)} classes; they would be random: {names}. {report}. "
                       "Name the config that it was trained with, or set the options that differ")
    if report.new_classes:
        raise BadInput(f"{config.model.weights} does not know {count_of(report.new_classes, 'class', 'classes')} of "
                       f"{shorten(classes)}; their rows in the predictor would be random. Name the classes as the file "
                       "does, in data.classes and in the annotations")
    return WeightsDetector(model, config, classes, report)


def open_weights(name: str, config_name: str = "") -> WeightsDetector:
    """Returns the detector of `coco`, `coco:BUILDER`, or a file of weights with its config. Its classes are known.

    Raises:
        BadInput: there is no such detector, its weights cannot be read or do not fit, or their classes are not known.
    """
    if is_coco_name(name):
        if config_name:
            raise BadInput(f"--config {config_name}: {name} has a config of its own; leave --config out")
        config = coco_config(name)
    else:
        config = config_with_weights(name, config_name)
    stored = read_weights(weights_name(config.model))
    stored = replace(stored, class_names=names_of_classes(config, stored))
    if is_coco_download(name, config):
        config = replace(config, model=replace(config.model, weights="coco"))  # its norms need another epsilon
    return build_from_weights(config, tuple(name for name in stored.class_names[1:] if name != NO_CLASS), stored)


def is_coco_download(path: str, config: Config) -> bool:
    """Returns whether a file has the name of torchvision's COCO weights of the backbone."""
    coco_weights = find_backbone(config.model).coco_weights
    return bool(coco_weights) and os.path.basename(path) == os.path.basename(find_download(coco_weights)[1])


def names_of_classes(config: Config, stored: StoredWeights) -> list[str]:
    """Returns the classes of weights from label 0 (background) on.

    They are those that the file states, or data.classes, or else those of VOC or COCO, by the number of classes; a
    note says so.

    Raises:
        BadInput: the classes are not known.
    """
    if stored.class_names:
        return stored.class_names
    if config.data.classes:
        return ["__background__", *(voc.CLASSES if config.data.classes == ("voc",) else config.data.classes)]
    coco = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    known = (("PASCAL VOC", ["__background__", *voc.CLASSES]), ("COCO", [name for name in coco if name != NO_CLASS]),
             ("COCO", list(coco)))
    scores = to_model_names(stored.tensors, config.model).get(f"{PREDICTOR}cls_score.bias")
    if scores is None:
        raise BadInput(f"{config.model.weights}: no tensor in it fits the class scores of {config.model.backbone}; it "
                       f"holds {shorten(list(stored.tensors))}. Name the file of a whole Faster R-CNN, with the names "
                       "of torchvision, detectron2 or jwyang/faster-rcnn.pytorch")
    for dataset, names in known:
        if len(names) == len(scores):
            if not is_coco_download(config.model.weights, config):
                print_once([f"{config.model.weights} does not name its {len(scores) - 1} classes: those of {dataset} "
                            "are taken; data.classes in the config file of --config states others"])
            return names
    raise BadInput(f"{config.model.weights} does not name its {count_of(len(scores) - 1, 'class', 'classes')}. List "
                   "them in order as data.classes in the config file of --config")
