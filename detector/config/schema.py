"""Every option once: type, default, what is allowed, unit and reason. Frozen; nobody writes to a config.

A YAML file or the command line names an option by its path, such as `optim.rate`. `python -m detector options`
prints this page as a table.
"""

from dataclasses import dataclass, field

BODIES = ("vgg16", "resnet18_c4", "resnet34_c4", "resnet50_c4", "resnet101_c4", "resnet152_c4", "resnet18_fpn",
          "resnet34_fpn", "resnet50_fpn", "resnet101_fpn", "resnet152_fpn", "mobilenet_v3_large_fpn")
METRICS = {"coco": ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
           "voc": ("AP", "AP_11point")}  # what an evaluation gives, the headline first


def option(default, about: str, choices: tuple = (), low: float | None = None, high: float | None = None):
    """One option. Numbers are checked against low <= value <= high, texts against `choices`."""
    return field(default=default, metadata={"about": about, "choices": choices, "low": low, "high": high})


def section(kind: type):
    return field(default_factory=kind)


@dataclass(frozen=True)
class Run:
    name: str = option("", "folder of the run below run.folder; empty: the name of the config file")
    folder: str = option("runs", "where runs live")
    device: str = option("auto", "auto: GPUs where there are any", choices=("auto", "cpu", "cuda"))
    precision: str = option("fp32", "of the forward pass; fp16 scales its loss", choices=("fp32", "bf16", "fp16"))
    channels_last: bool = option(True, "memory layout of images and weights; faster convolutions, same numbers to 1e-5")
    workers: int = option(2, "loader processes for each training process; 0 loads in the step itself", low=0)
    log_every_steps: int = option(20, "steps between two lines of metrics.jsonl", low=1)
    save_every_steps: int = option(500, "steps between two checkpoints", low=1)
    keep: int = option(2, "newest checkpoints that stay on disk, beside the best", low=1)
    pictures: int = option(8, "validation images drawn at each evaluation, the same ones each time", low=0)
    stalled_minutes: float = option(5.0, "without progress, after which every rank leaves its Python stacks in the "
                                    "run folder and rank 0 says who is late; 0: never", low=0)
    restarts: int = option(100, "how often Slurm may start the run again; one that brings no step forward ends it, too",
                           low=0)
    timeout_minutes: float = option(10.0, "how long a rank waits for the others before it gives up", low=0.1)


@dataclass(frozen=True)
class Data:
    format: str = option("coco", "layout of the annotations", choices=("coco", "voc", "per_image_json", "shapes"))
    root: str = option("", "folder that holds images and annotations")
    train: tuple[str, ...] = option(("train",), "split names, or annotation files below data.root")
    val: tuple[str, ...] = option(("val",), "the same, for evaluation; may be empty")
    classes: tuple[str, ...] = option((), "class names in order; empty: those of the training annotations; "
                                          "[voc]: the 20 of PASCAL VOC")
    cache: str = option("~/.cache/fleet-rcnn", "folder of the index caches")
    faulty_boxes: str = option("clip", "boxes outside their image, or without area. clip: cut to the image, leave out "
                               "what has no area; drop: leave out; refuse: stop", choices=("clip", "drop", "refuse"))
    empty_images: str = option("keep", "training images without an object", choices=("keep", "drop"))
    broken_images: str = option("refuse", "images that cannot be read. grey: a grey picture without objects stands in, "
                                "and is counted", choices=("refuse", "grey"))
    train_on_crowd: bool = option(False, "COCO crowd regions as training objects")
    train_on_difficult: bool = option(False, "VOC difficult objects as training objects")


@dataclass(frozen=True)
class Batch:
    size: int = option(16, "images of one optimiser step, over all processes; 0: per_process x processes", low=0)
    per_process: int = option(2, "images a process holds at once; gradients of the rest are accumulated", low=1)


@dataclass(frozen=True)
class Augment:
    flip: float = option(0.5, "probability of a horizontal flip", low=0, high=1)
    short_sides: tuple[int, ...] = option((800,), "short side in pixels; one is drawn for each step")
    long_side: int = option(1333, "cap of the long side, pixels", low=32)
    jitter: tuple[float, ...] = option((1.0, 1.0), "scale jitter, from and to: above 1 zooms into a crop, below 1 "
                                       "shrinks the image on its canvas")
    photometric: float = option(0.0, "probability of each of: brightness, contrast, saturation, hue", low=0, high=1)


@dataclass(frozen=True)
class Rpn:
    positive_iou: float = option(0.7, "an anchor with this overlap is an object", low=0, high=1)
    negative_iou: float = option(0.3, "an anchor below this overlap is background", low=0, high=1)
    batch: int = option(256, "anchors sampled for each image", low=1)
    positive_share: float = option(0.5, "at most this share of them are objects", low=0, high=1)
    before_nms_train: int = option(2000, "best proposals of each level that enter NMS in training", low=1)
    before_nms_eval: int = option(1000, "the same in evaluation", low=1)
    after_nms_train: int = option(2000, "proposals of each image that leave NMS in training", low=1)
    after_nms_eval: int = option(1000, "the same in evaluation", low=1)
    nms_iou: float = option(0.7, "overlap above which NMS removes the weaker proposal", low=0, high=1)
    score: float = option(0.0, "proposals below this score are left out", low=0, high=1)


@dataclass(frozen=True)
class Roi:
    positive_iou: float = option(0.5, "a proposal with this overlap is an object", low=0, high=1)
    negative_iou: float = option(0.5, "a proposal below this overlap is background", low=0, high=1)
    batch: int = option(512, "proposals sampled for each image", low=1)
    positive_share: float = option(0.25, "at most this share of them are objects", low=0, high=1)
    box_weights: tuple[float, ...] = option((10.0, 10.0, 5.0, 5.0), "scale of dx, dy, dw, dh (inverse deviations)")


@dataclass(frozen=True)
class Model:
    body: str = option("resnet50_fpn", "network below the RPN; fpn: pyramid, c4: stride 16 with layer4 as box head",
                       choices=BODIES)
    weights: str = option("imagenet", "imagenet, coco (torchvision's), the name of one of torchvision's weight "
                          "entries, or a file; empty: start from random weights")
    norm: str = option("frozen", "batch norms: frozen ones keep statistics and weights, trained ones learn both "
                       "(except in frozen stages)", choices=("frozen", "trained"))
    frozen_stages: int = option(2, "first stages that do not learn: ResNet stem, layer1 ... layer4 (0-5), VGG16 "
                                "conv1 ... conv5 (0-5), MobileNetV3 stages (0-6)", low=0, high=6)
    pooling: str = option("align", "of proposals: RoIAlign, max pooling or spatial-transformer crop",
                          choices=("align", "pool", "crop"))
    pooling_size: int = option(7, "cells of a pooled proposal in each direction", low=1)
    sampling_ratio: int = option(2, "align: samples in a cell in each direction; 0: as many as pixels", low=0)
    crop_max_pool: bool = option(True, "crop: sample twice as finely and take the maximum of 2 x 2")
    anchor_sizes: tuple[tuple[float, ...], ...] = option((), "anchor side in pixels, a list for each level; empty: the "
                                                         "usual ones of the body")
    anchor_ratios: tuple[float, ...] = option((0.5, 1.0, 2.0), "anchor height / width")
    pyramid_width: int = option(256, "fpn: channels of every level (Lin et al. 2017); fewer are faster", low=1)
    head_width: int = option(1024, "fpn: units of the two hidden layers of the box head", low=1)
    dropout: float = option(0.5, "vgg16: in its two hidden layers (Simonyan & Zisserman 2015, 3.1)", low=0, high=0.99)
    class_agnostic: bool = option(False, "one box for each proposal instead of one for each class")
    rpn: Rpn = section(Rpn)
    roi: Roi = section(Roi)


@dataclass(frozen=True)
class Optim:
    rate: float = option(0.02, "learning rate at reference_batch images a step; follows batch.size linearly", low=0)
    reference_batch: int = option(16, "the global batch that rate and schedule.warmup_steps are stated for", low=1)
    momentum: float = option(0.9, "of SGD", low=0, high=0.9999)
    decay: float = option(1e-4, "weight decay", low=0)
    decay_norms: bool = option(True, "weight decay on the weights and biases of norms")
    decay_biases: bool = option(True, "weight decay on biases")
    bias_rate: float = option(1.0, "biases learn this many times as fast", low=0)
    clip_norm: float = option(0.0, "largest norm of the whole gradient; 0: no limit", low=0)
    ema: float = option(0.0, "decay of an average of the weights, used in evaluation; 0: none", low=0, high=0.999999)


@dataclass(frozen=True)
class Schedule:
    epochs: float = option(12.0, "passes over the training images", low=0)
    steps: int = option(0, "optimiser steps; 0: schedule.epochs decides", low=0)
    shape: str = option("milestones", "how the rate falls", choices=("milestones", "cosine"))
    milestones: tuple[float, ...] = option((8.0, 11.0), "epochs at which the rate is multiplied by gamma")
    gamma: float = option(0.1, "factor at a milestone", low=0, high=1)
    warmup_steps: int = option(1000, "steps of linear warm-up at reference_batch; fewer steps at a larger batch", low=0)
    warmup_factor: float = option(0.001, "rate at step 0, as a share", low=0, high=1)
    patience: int = option(0, "stop after this many evaluations without a better evaluate.best; 0: never", low=0)


@dataclass(frozen=True)
class Evaluate:
    every_epochs: float = option(1.0, "epochs between two evaluations; 0: only at the end", low=0)
    metric: str = option("coco", "coco: AP over IoU 0.50 to 0.95; voc: AP at IoU 0.5, 11 points and area",
                         choices=("coco", "voc"))
    best: str = option("AP", "the metric that best.pt and schedule.patience follow; the more the better")
    batch: int = option(2, "images a process predicts at once", low=1)
    short_side: int = option(800, "pixels", low=32)
    long_side: int = option(1333, "cap, pixels", low=32)
    score: float = option(0.05, "detections below this score are left out", low=0, high=1)
    nms_iou: float = option(0.5, "overlap above which NMS removes the weaker detection of a class", low=0, high=1)
    detections: int = option(100, "most detections of one image", low=1)
    loss: bool = option(True, "also compute the validation loss")


@dataclass(frozen=True)
class Config:
    run: Run = section(Run)
    data: Data = section(Data)
    batch: Batch = section(Batch)
    augment: Augment = section(Augment)
    model: Model = section(Model)
    optim: Optim = section(Optim)
    schedule: Schedule = section(Schedule)
    evaluate: Evaluate = section(Evaluate)
    seed: int = option(0, "of everything random", low=0)


def contradictions(config: Config) -> list[str]:
    """Values that are allowed alone and not together, one sentence each; the rest is checked option by option."""
    found = []
    sides = config.augment.short_sides
    if not sides or min(sides) < 32:
        found.append(f"augment.short_sides={list(sides)}: at least one, each 32 pixels or more")
    low, high = config.augment.jitter if len(config.augment.jitter) == 2 else (0, 0)
    if not 0.1 <= low <= high <= 4:
        found.append(f"augment.jitter={list(config.augment.jitter)}: two numbers, 0.1 <= from <= to <= 4")
    if not config.data.train:
        found.append("data.train=[]: at least one split is needed")
    if not config.data.root and config.data.format != "shapes":
        found.append("data.root='': name the folder of the data set, for example data.root=/data/coco")
    if len(config.model.roi.box_weights) != 4 or min(config.model.roi.box_weights) <= 0:
        found.append(f"model.roi.box_weights={list(config.model.roi.box_weights)}: four numbers above 0")
    if config.model.rpn.negative_iou > config.model.rpn.positive_iou:
        found.append("model.rpn.negative_iou is above model.rpn.positive_iou: an anchor would be both")
    if not config.model.anchor_ratios or min(config.model.anchor_ratios) <= 0:
        found.append(f"model.anchor_ratios={list(config.model.anchor_ratios)}: at least one, each above 0")
    if any(not sizes or min(sizes) <= 0 for sizes in config.model.anchor_sizes):
        found.append(f"model.anchor_sizes={[list(s) for s in config.model.anchor_sizes]}: numbers above 0 in each list")
    if not config.model.weights and (config.model.frozen_stages or config.model.norm == "frozen"):
        found.append(f"model.weights='' with model.frozen_stages={config.model.frozen_stages} and model.norm="
                     f"{config.model.norm}: random weights would stay random. Name weights, or set "
                     "model.frozen_stages=0 and model.norm=trained")
    levels = 5 if config.model.body.startswith("resnet") and config.model.body.endswith("_fpn") else \
        3 if config.model.body.startswith("mobilenet") else 1
    if len(config.model.anchor_sizes) not in (0, 1, levels) or len({len(s) for s in config.model.anchor_sizes}) > 1:
        found.append(f"model.anchor_sizes={[list(s) for s in config.model.anchor_sizes]}: {config.model.body} has "
                     f"{levels} levels; give a list for each, all equally long, or one list for all")
    if config.model.roi.negative_iou > config.model.roi.positive_iou:
        found.append("model.roi.negative_iou is above model.roi.positive_iou: a proposal would be both")
    if config.evaluate.best not in METRICS[config.evaluate.metric]:
        found.append(f"evaluate.best={config.evaluate.best}: evaluate.metric={config.evaluate.metric} gives "
                     + ", ".join(METRICS[config.evaluate.metric]))
    stages = 6 if config.model.body.startswith("mobilenet") else 5
    if config.model.frozen_stages > stages:
        found.append(f"model.frozen_stages={config.model.frozen_stages}: {config.model.body} has {stages} stages")
    if config.schedule.epochs == 0 and config.schedule.steps == 0:
        found.append("schedule.epochs=0: nothing to train; give epochs, or schedule.steps")
    return found
