"""The options of the network, of its RPN and of its RoI heads."""

from dataclasses import dataclass

from detector.config.fields import option, section

BODIES = ("vgg16", "resnet18_c4", "resnet34_c4", "resnet50_c4", "resnet101_c4", "resnet152_c4", "resnet18_fpn",
          "resnet34_fpn", "resnet50_fpn", "resnet101_fpn", "resnet152_fpn", "mobilenet_v3_large_fpn")


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
    before_nms_per: str = option("level", "what before_nms_* counts: the best of each level, or of the image over all "
                                 "levels, which then also go through NMS together", choices=("level", "image"))
    after_nms_per: str = option("image", "what after_nms_* counts", choices=("level", "image"))
    nms_rounds: int = option(32, "training on a GPU: rounds of an NMS that does not wait for the device, see "
                             "detector/model/ops/nms.py; 0: torchvision's, which does", low=0)
    # Where the defaults differ from the original's recipe, so do its faults; those named here are not copied: negatives
    # counted before positives are sampled, the first image's size for all, zero boxes scored as proposals, an error
    # where an image has neither objects nor background, and detections beyond the limit that tie with the last.
    width: int = option(0, "channels of its hidden layer; 0: as many as the features have", low=0)
    two_way: bool = option(False, "two scores for each anchor, background and object, under a softmax")
    straddling: bool = option(True, "anchors that cross the border of the image learn, too")
    best_anchor: bool = option(True, "the anchors that an object overlaps most are its own, whatever their overlap")
    box_beta: float = option(1 / 9, "smooth L1 is quadratic below; 1 / sigma^2", low=1e-6)
    box_mean: str = option("sampled", "the boxes' loss is divided by the samples of the whole batch, or for each image "
                           "by those of the last one", choices=("sampled", "last_image"))


@dataclass(frozen=True)
class Roi:
    positive_iou: float = option(0.5, "a proposal with this overlap is an object", low=0, high=1)
    negative_iou: float = option(0.5, "a proposal below this overlap is background", low=0, high=1)
    batch: int = option(512, "proposals sampled for each image", low=1)
    positive_share: float = option(0.25, "at most this share of them are objects", low=0, high=1)
    box_weights: tuple[float, ...] = option((10.0, 10.0, 5.0, 5.0), "scale of dx, dy, dw, dh (inverse deviations)")
    background_from: float = option(0.0, "a proposal below this overlap is not even background", low=0, high=1)
    replacement: bool = option(False, "background is drawn with replacement, so that roi.batch is always full")
    box_beta: float = option(1 / 9, "smooth L1 is quadratic below; 1 / sigma^2", low=1e-6)
    init: str = option("uniform", "the predictor's weights at first: PyTorch's, or N(0, 0.01) for classes and "
                       "N(0, 0.001) for boxes", choices=("uniform", "normal"))


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
    stride_in_1x1: bool = option(False, "ResNet-50 and deeper: a bottleneck strides in its first convolution, as "
                                 "Caffe's weights (MSRA) want it; others have none")
    ceil_pool: bool = option(False, "ResNet: the pool of the stem pads nothing and rounds up, as in Caffe")
    pixels: str = option("torchvision", "what the weights expect. torchvision: RGB, 0-1, ImageNet's mean and "
                         "deviation; caffe, detectron2: BGR, 0-255, their means; caffe_rgb: RGB, 0-255, of "
                         "VGG16_Weights.IMAGENET1K_FEATURES",
                         choices=("torchvision", "caffe", "caffe_rgb", "detectron2"))
    canvas_multiple: int = option(32, "sides of a batch are padded to multiples of this, pixels; a pyramid needs 32",
                                  low=1)
    pooling: str = option("align", "of proposals: torchvision's RoIAlign, detectron2's (half a cell to the upper "
                          "left), that of the published tables, max pooling or spatial-transformer crop",
                          choices=("align", "align_detectron2", "align_original", "pool", "crop"))
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
    heads: str = option("ours", "RPN and RoI heads: ours, or torchvision's as a reference",
                        choices=("ours", "torchvision"))
    plus_one: bool = option(False, "boxes end with their last pixel: width = x2 - x1 + 1 in overlaps, deltas and NMS")
    legacy_anchors: bool = option(False, "py-faster-rcnn's: ratios rounded at the size of a cell, around its centre")
    clamp_deltas: bool = option(True, "a box is made at most 62.5 times as wide or high as what it starts from")
    rpn: Rpn = section(Rpn)
    roi: Roi = section(Roi)


def model_contradictions(config: Model) -> list[str]:
    """Values of the model that are allowed alone and not together, one sentence each."""
    found = []
    if config.canvas_multiple % 32 and config.body.endswith("_fpn"):
        found.append(f"model.canvas_multiple={config.canvas_multiple}: the levels of {config.body} fit each other on "
                     "multiples of 32 only")
    if config.canvas_multiple % 16 and config.heads == "torchvision":
        found.append(f"model.heads=torchvision with model.canvas_multiple={config.canvas_multiple}: its anchors need "
                     "whole cells; take a multiple of 16")
    if len(config.roi.box_weights) != 4 or min(config.roi.box_weights) <= 0:
        found.append(f"model.roi.box_weights={list(config.roi.box_weights)}: four numbers above 0")
    if config.rpn.negative_iou > config.rpn.positive_iou:
        found.append("model.rpn.negative_iou is above model.rpn.positive_iou: an anchor would be both")
    if not config.anchor_ratios or min(config.anchor_ratios) <= 0:
        found.append(f"model.anchor_ratios={list(config.anchor_ratios)}: at least one, each above 0")
    if any(not sizes or min(sizes) <= 0 for sizes in config.anchor_sizes):
        found.append(f"model.anchor_sizes={[list(s) for s in config.anchor_sizes]}: numbers above 0 in each list")
    if not config.weights and (config.frozen_stages or config.norm == "frozen"):
        found.append(f"model.weights='' with model.frozen_stages={config.frozen_stages} and model.norm="
                     f"{config.norm}: random weights would stay random. Name weights, or set "
                     "model.frozen_stages=0 and model.norm=trained")
    levels = 5 if config.body.startswith("resnet") and config.body.endswith("_fpn") else \
        3 if config.body.startswith("mobilenet") else 1
    if len(config.anchor_sizes) not in (0, 1, levels) or len({len(s) for s in config.anchor_sizes}) > 1:
        found.append(f"model.anchor_sizes={[list(s) for s in config.anchor_sizes]}: {config.body} has "
                     f"{levels} levels; give a list for each, all equally long, or one list for all")
    if config.roi.negative_iou > config.roi.positive_iou:
        found.append("model.roi.negative_iou is above model.roi.positive_iou: a proposal would be both")
    if config.roi.background_from >= config.roi.negative_iou:
        found.append(f"model.roi.background_from={config.roi.background_from}: below model.roi.negative_iou="
                     f"{config.roi.negative_iou}, or there would be no background")
    changed = [key for key, value, usual in of_our_heads(config) if value != usual]
    if config.heads == "torchvision" and changed:
        found.append("model.heads=torchvision does not know " + ", ".join(changed) + ": leave them as they are")
    stages = 6 if config.body.startswith("mobilenet") else 5
    if config.frozen_stages > stages:
        found.append(f"model.frozen_stages={config.frozen_stages}: {config.body} has {stages} stages")
    return found


def of_our_heads(config: Model) -> list[tuple[str, object, object]]:
    """Options that torchvision's heads do not have: path, value, default."""
    keys = {"": ("plus_one", "legacy_anchors", "clamp_deltas"),
            "rpn.": ("before_nms_per", "after_nms_per", "width", "two_way", "straddling", "best_anchor", "box_beta",
                     "box_mean"),
            "roi.": ("background_from", "replacement", "box_beta")}
    here = {"": config, "rpn.": config.rpn, "roi.": config.roi}
    return [(f"model.{path}{key}", getattr(here[path], key), type(here[path]).__dataclass_fields__[key].default)
            for path, names in keys.items() for key in names]
