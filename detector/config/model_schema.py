"""The options of the network, of its RPN and of its RoI heads."""

from dataclasses import dataclass

from detector.config.fields import option, section

BACKBONE_NAMES = ("vgg16", "resnet18_c4", "resnet34_c4", "resnet50_c4", "resnet101_c4", "resnet152_c4", "resnet18_fpn",
                  "resnet34_fpn", "resnet50_fpn", "resnet50_fpn_v2", "resnet101_fpn", "resnet152_fpn",
                  "mobilenet_v3_large_fpn", "convnext_tiny_fpn", "swin_t_fpn")


# The code of jwyang/faster-rcnn.pytorch (recipe/original) has faults that are not copied: the RPN counts the positive
# anchors before it samples them, and draws too few negatives; the anchors of every image of a batch are compared with
# the border of the first image; fewer proposals than the limit are filled up with zero boxes, which are scored as well;
# an image whose proposals are neither foreground nor background raises an error; and detections with the same score as
# the last one that is kept exceed the limit of detections.
@dataclass(frozen=True)
class Rpn:
    fg_iou_thresh: float = option(0.7, "an anchor with this IoU or more is foreground", low=0, high=1)
    bg_iou_thresh: float = option(0.3, "an anchor below this IoU is background", low=0, high=1)
    batch_size_per_image: int = option(256, "anchors sampled for each image", low=1)
    positive_fraction: float = option(0.5, "at most this fraction of them is foreground", low=0, high=1)
    pre_nms_top_n_train: int = option(2000, "best proposals of each level that enter NMS in training", low=1)
    pre_nms_top_n_eval: int = option(1000, "the same in evaluation", low=1)
    post_nms_top_n_train: int = option(2000, "proposals of each image that leave NMS in training", low=1)
    post_nms_top_n_eval: int = option(1000, "the same in evaluation", low=1)
    nms_thresh: float = option(0.7, "IoU above which NMS drops the lower-scored proposal", low=0, high=1)
    score_thresh: float = option(0.0, "evaluation: proposals below this score are dropped", low=0, high=1)
    pre_nms_top_n_per: str = option("level", "pre_nms_top_n_* counts, level: the best of each level; image: the best "
                                    "over all levels, with one NMS for all levels", choices=("level", "image"))
    post_nms_top_n_per: str = option("image", "post_nms_top_n_* counts proposals of each level, or of the image",
                                     choices=("level", "image"))
    nms_rounds: int = option(32, "training on a GPU: rounds of an NMS that does not synchronize with the device, see "
                             "detector/model/ops/nms.py; 0: torchvision's NMS, which does", low=0)
    conv_channels: int = option(0, "channels of the RPN's hidden layer; 0: as many as the features have", low=0)
    softmax_objectness: bool = option(False, "two scores for each anchor, background and object, under a softmax")
    train_on_crossing_anchors: bool = option(True, "anchors that cross the border of the image are trained on as well")
    allow_low_quality_matches: bool = option(True, "the anchors with the highest IoU of an object are foreground, "
                                             "however low that IoU is")
    smooth_l1_beta: float = option(1 / 9, "smooth L1 loss is quadratic below this value (1 / sigma^2)", low=1e-6)
    box_loss_normalizer: str = option("sampled", "sampled: the box loss is divided by the number of sampled anchors in "
                                      "the batch; last_image: by the number in its last image, times its images",
                                      choices=("sampled", "last_image"))


@dataclass(frozen=True)
class Roi:
    fg_iou_thresh: float = option(0.5, "a proposal with this IoU or more is foreground", low=0, high=1)
    bg_iou_thresh: float = option(0.5, "a proposal below this IoU is background", low=0, high=1)
    batch_size_per_image: int = option(512, "proposals sampled for each image", low=1)
    positive_fraction: float = option(0.25, "at most this fraction of them is foreground", low=0, high=1)
    bbox_reg_weights: tuple[float, ...] = option((10.0, 10.0, 5.0, 5.0), "weights of dx, dy, dw, dh (inverse standard "
                                                 "deviations)")
    bg_iou_thresh_low: float = option(0.0, "a proposal below this IoU is not even background", low=0, high=1)
    sample_with_replacement: bool = option(False, "background is sampled with replacement, so that there are always "
                                           "batch_size_per_image samples")
    smooth_l1_beta: float = option(1 / 9, "smooth L1 loss is quadratic below this value (1 / sigma^2)", low=1e-6)
    predictor_init: str = option("uniform", "initial weights of the predictor: PyTorch's default, or N(0, 0.01) for "
                                 "classes and N(0, 0.001) for boxes", choices=("uniform", "normal"))


@dataclass(frozen=True)
class Model:
    backbone: str = option("resnet50_fpn", "feature extractor, an entry of BACKBONES; fpn: feature pyramid; v2: two "
                           "convolutions in the RPN's head, four in the box head, norms in pyramid and box head; c4: "
                           "stride 16, with layer4 as box head", choices=BACKBONE_NAMES,
                           table="detector.model.backbones:BACKBONES")
    weights: str = option("imagenet", "imagenet or coco (torchvision's), the name of a torchvision weight entry, a "
                          "file, or a run, with its best checkpoint; empty: random initial weights", path=True)
    norm: str = option("frozen", "batch norms. frozen: fixed statistics and weights; trained: both are learned (except "
                       "in frozen stages); synchronized: also, with the statistics of the images of all processes",
                       choices=("frozen", "trained", "synchronized"))
    frozen_stages: int = option(2, "first stages that are not trained: ResNet stem, layer1 ... layer4 (0-5), VGG16 "
                                "conv1 ... conv5 (0-5), MobileNetV3 stages (0-6), ConvNeXt and Swin stem and stages "
                                "(0-5)", low=0)
    stride_in_1x1: bool = option(False, "ResNet-50 and deeper: the stride of a bottleneck is in its first convolution, "
                                 "as Caffe's weights (MSRA) expect")
    ceil_pool: bool = option(False, "ResNet: the stem's max pool has no padding and rounds up (ceil_mode), as in Caffe")
    pixel_format: str = option("torchvision", "what the weights expect. torchvision: RGB, 0-1, ImageNet's mean and "
                               "deviation; caffe, detectron2: BGR, 0-255, their means; caffe_rgb: RGB, 0-255, of "
                               "VGG16_Weights.IMAGENET1K_FEATURES",
                               choices=("torchvision", "caffe", "caffe_rgb", "detectron2"))
    size_divisor: int = option(32, "height and width of a batch are padded to multiples of this, pixels; an FPN needs "
                               "32", low=1)
    roi_pooling: str = option("align", "align: torchvision's RoIAlign; align_detectron2: shifted by half a pixel; "
                              "align_original: that of the published tables; pool: max pooling; crop: "
                              "spatial-transformer crop",
                              choices=("align", "align_detectron2", "align_original", "pool", "crop"))
    roi_pooling_size: int = option(7, "bins of a pooled proposal in each direction", low=1)
    sampling_ratio: int = option(2, "align: samples in a bin in each direction; 0: one for each pixel", low=0)
    crop_max_pool: bool = option(True, "crop: sample twice as finely, then take the maximum of 2 x 2")
    anchor_sizes: tuple[tuple[float, ...], ...] = option((), "anchor side in pixels, a list for each level; empty: the "
                                                         "usual ones of the backbone")
    anchor_ratios: tuple[float, ...] = option((0.5, 1.0, 2.0), "anchor height / width")
    fpn_channels: int = option(256, "fpn: channels of every level (Lin et al. 2017); fewer are faster", low=1)
    box_head_dim: int = option(1024, "fpn: units of the two hidden layers of the box head", low=1)
    dropout: float = option(0.5, "vgg16: dropout of its two hidden layers (Simonyan & Zisserman 2015, 3.1)", low=0,
                            high=0.99)
    class_agnostic: bool = option(False, "one box for each proposal instead of one for each class")
    heads: str = option("native", "RPN and RoI heads: this package's, or torchvision's (the reference in tests)",
                        choices=("native", "torchvision"))
    inclusive_boxes: bool = option(False, "x2 and y2 are the last pixel of a box: width = x2 - x1 + 1 in IoU, box "
                                   "coding and NMS")
    legacy_anchors: bool = option(False, "py-faster-rcnn's anchors: ratios rounded at the size of a cell, around its "
                                  "centre")
    clamp_deltas: bool = option(True, "dw and dh are clamped: a decoded box is at most 62.5 times as wide or high as "
                                "its anchor or proposal")
    rpn: Rpn = section(Rpn)
    roi: Roi = section(Roi)


def model_contradictions(config: Model) -> list[str]:
    """Returns a sentence for each combination of values of the model that cannot work.

    Contradictions to the levels or stages of the backbone are found by model/backbones.py, where those are known.
    """
    return [*size_contradictions(config), *anchor_contradictions(config), *threshold_contradictions(config),
            *weight_contradictions(config)]


def size_contradictions(config: Model) -> list[str]:
    problems = []
    if config.size_divisor % 16 and config.heads == "torchvision":
        problems.append(f"model.heads=torchvision with model.size_divisor={config.size_divisor}: torchvision's anchors "
                        "need whole cells; set a multiple of 16")
    return problems


def anchor_contradictions(config: Model) -> list[str]:
    problems, sizes = [], [list(level) for level in config.anchor_sizes]
    if not config.anchor_ratios or min(config.anchor_ratios) <= 0:
        problems.append(f"model.anchor_ratios={list(config.anchor_ratios)}: at least one, each above 0")
    if any(not level or min(level) <= 0 for level in sizes):
        problems.append(f"model.anchor_sizes={sizes}: numbers above 0 in each list")
    return problems


def threshold_contradictions(config: Model) -> list[str]:
    problems = []
    if len(config.roi.bbox_reg_weights) != 4 or min(config.roi.bbox_reg_weights) <= 0:
        problems.append(f"model.roi.bbox_reg_weights={list(config.roi.bbox_reg_weights)}: four numbers above 0")
    if config.rpn.bg_iou_thresh > config.rpn.fg_iou_thresh:
        problems.append("model.rpn.bg_iou_thresh is above model.rpn.fg_iou_thresh: an anchor would be both")
    if config.roi.bg_iou_thresh > config.roi.fg_iou_thresh:
        problems.append("model.roi.bg_iou_thresh is above model.roi.fg_iou_thresh: a proposal would be both")
    if config.roi.bg_iou_thresh_low >= config.roi.bg_iou_thresh:
        problems.append(f"model.roi.bg_iou_thresh_low={config.roi.bg_iou_thresh_low}: must be below "
                        f"model.roi.bg_iou_thresh={config.roi.bg_iou_thresh}, or there is no background")
    return problems


def weight_contradictions(config: Model) -> list[str]:
    problems = []
    if not config.weights and (config.frozen_stages or config.norm == "frozen"):
        problems.append(f"model.weights='' with model.frozen_stages={config.frozen_stages} and model.norm="
                        f"{config.norm}: random weights would never be trained. Name weights, or set "
                        "model.frozen_stages=0 and model.norm=trained")
    changed = [key for key, value, usual in native_head_options(config) if value != usual]
    if config.heads == "torchvision" and changed:
        problems.append(f"model.heads=torchvision has no {', '.join(changed)}: leave them at their defaults")
    return problems


def native_head_options(config: Model) -> list[tuple[str, object, object]]:
    """Returns (path, value, default) of the options that torchvision's heads do not have."""
    keys = {"": ("inclusive_boxes", "legacy_anchors", "clamp_deltas"),
            "rpn.": ("pre_nms_top_n_per", "post_nms_top_n_per", "conv_channels", "softmax_objectness",
                     "train_on_crossing_anchors", "allow_low_quality_matches", "smooth_l1_beta", "box_loss_normalizer"),
            "roi.": ("bg_iou_thresh_low", "sample_with_replacement", "smooth_l1_beta")}
    sections = {"": config, "rpn.": config.rpn, "roi.": config.roi}
    return [(f"model.{path}{key}", getattr(sections[path], key), type(sections[path]).__dataclass_fields__[key].default)
            for path, names in keys.items() for key in names]
