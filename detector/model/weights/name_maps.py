"""Recognises whose names a file of weights has, and translates them to those of the model.

The model has torchvision's names. Four other layouts: torchvision's classifiers, which Caffe's converted models share;
the detectors of jwyang/faster-rcnn.pytorch; detectron2's; and Caffe2's names in detectron2's R-50.pkl.
"""

import re

import torch
from torch import Tensor

from detector.config.model_schema import Model
from detector.model.backbones import find_backbone

HEAD = "roi_heads.box_head."
PREDICTOR = "roi_heads.box_predictor."
RPN = "rpn.head."
# Before all names of a model inside another: nn.DataParallel, AveragedModel and DeepSpeed; a module of Lightning.
WRAPPERS = ("module.", "model.")
COMPILED = "_orig_mod."  # what torch.compile puts before the names of the part that it compiles

# A table is a list of (pattern, replacement), applied one after the other to each name.
# torchvision before 0.13, as its COCO files still are.
OLD_TORCHVISION = ((r"^rpn\.head\.conv\.(?=weight|bias)", f"{RPN}conv.0.0."),
                   (r"^(backbone\.fpn\.\w+_blocks\.\d)\.(?=weight|bias)", r"\1.0."))

# lib/model/faster_rcnn/{faster_rcnn,vgg16,resnet}.py of jwyang/faster-rcnn.pytorch: a backbone is a list of layers.
ORIGINAL = ((r"^RCNN_rpn\.RPN_Conv\.", f"{RPN}conv.0.0."), (r"^RCNN_rpn\.RPN_cls_score\.", f"{RPN}cls_logits."),
            (r"^RCNN_rpn\.RPN_bbox_pred\.", f"{RPN}bbox_pred."), (r"^RCNN_(?=cls_score|bbox_pred)", PREDICTOR))
ORIGINAL_VGG = (*ORIGINAL, (r"^RCNN_base\.", "backbone."), (r"^RCNN_top\.0\.", f"{HEAD}fc6."),
                (r"^RCNN_top\.3\.", f"{HEAD}fc7."))
ORIGINAL_RESNET = (*ORIGINAL, (r"^RCNN_base\.0\.", "backbone.conv1."), (r"^RCNN_base\.1\.", "backbone.bn1."),
                   *((rf"^RCNN_base\.{3 + stage}\.", f"backbone.layer{stage}.") for stage in (1, 2, 3)),
                   (r"^RCNN_top\.0\.", f"{HEAD}layer4."))

# Caffe2's names -> detectron2's (its checkpoint/c2_model_loading.py).
CAFFE2 = ((r"^conv1_w$", "stem.conv1.weight"), (r"^res_conv1_bn_", "stem.conv1.norm."),
          (r"^(res\d)_(\d+)_branch", r"\1.\2.branch"), (r"\.branch1_", ".shortcut."), (r"\.branch2a_", ".conv1."),
          (r"\.branch2b_", ".conv2."), (r"\.branch2c_", ".conv3."), (r"\.w$", ".weight"), (r"\.bn_", ".norm."),
          (r"\.norm\.(s|gamma)$", ".norm.weight"), (r"\.norm\.(b|beta)$", ".norm.bias"),
          (r"\.norm\.rm$", ".norm.running_mean"), (r"\.norm\.riv$", ".norm.running_var"))

# detectron2's names -> torchvision's: the ResNet, whose four stages are called 2 to 5 there; and the rest.
DETECTRON2_RESNET = (
    (r"^stem\.conv1\.norm\.", "bn1."), (r"^stem\.", ""),
    *((rf"^res{stage + 1}\.", f"layer{stage}.") for stage in (1, 2, 3, 4)), (r"\.conv(\d)\.norm\.", r".bn\1."),
    (r"\.shortcut\.norm\.", ".downsample.1."), (r"\.shortcut\.", ".downsample.0."))
DETECTRON2 = ((r"^proposal_generator\.rpn_head\.conv\.", f"{RPN}conv.0.0."),
              (r"^proposal_generator\.rpn_head\.objectness_logits\.", f"{RPN}cls_logits."),
              (r"^proposal_generator\.rpn_head\.anchor_deltas\.", f"{RPN}bbox_pred."),
              (r"^roi_heads\.box_head\.fc1\.", f"{HEAD}fc6."), (r"^roi_heads\.box_head\.fc2\.", f"{HEAD}fc7."),
              *((rf"^backbone\.fpn_{detectron2}{level + 2}\.", f"backbone.fpn.{torchvision}_blocks.{level}.0.")
                for detectron2, torchvision in (("lateral", "inner"), ("output", "layer")) for level in range(4)))


def to_model_names(state: dict[str, Tensor], config: Model) -> dict[str, Tensor]:
    """Returns the tensors of any layout under the model's names and in its order; unknown names stay as they are."""
    state = unwrap_names(state)
    if any(key.startswith("RCNN_") for key in state):
        resnet = any(key.startswith("RCNN_base.1.") for key in state)  # its first norm; a ReLU in VGG16
        return rename(state, ORIGINAL_RESNET if resnet else ORIGINAL_VGG)
    if any(re.match(r"(backbone\.)?(bottom_up\.)?(stem\.|res\d[._])|proposal_generator\.", key) for key in state):
        return from_detectron2(state, config)
    if any(key.startswith(("backbone.", "rpn.", "roi_heads.")) for key in state):
        return rename(state, OLD_TORCHVISION)
    return from_classifier(state, config)


def unwrap_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors by their names inside the model, without those of what was wrapped around it."""
    state = {key.replace(COMPILED, ""): value for key, value in state.items()}
    while True:
        named = {key: value for key, value in state.items() if key != "n_averaged"}  # the counter of AveragedModel
        prefix = next((prefix for prefix in WRAPPERS if named and all(key.startswith(prefix) for key in named)), "")
        if not prefix:
            return state
        state = {key.removeprefix(prefix): value for key, value in named.items()}


def rename(state: dict[str, Tensor], table: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in table:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def from_classifier(state: dict[str, Tensor], config: Model) -> dict[str, Tensor]:
    """Translates a classifier of torchvision, or of Caffe with its names: vgg16_caffe.pth, resnet101_caffe.pth."""
    prefixes = find_backbone(config).classifier_prefixes
    renamed = {}
    for key, value in state.items():
        old, new = next(((old, new) for old, new in prefixes if key.startswith(old)), ("", ""))
        renamed[new + key.removeprefix(old)] = value
    return renamed


def from_detectron2(state: dict[str, Tensor], config: Model) -> dict[str, Tensor]:
    """Translates a detector or a classifier of detectron2.

    Its background is the last class and has no box. Among the anchors of a cell, detectron2's ratio changes fastest,
    this model's size changes fastest.
    """
    resnet, rest = {}, {}
    for key, value in rename(state, CAFFE2).items():
        short = re.sub(r"^(backbone\.bottom_up|backbone|roi_heads)\.(?=stem|res\d)", "", key)
        (resnet if re.match(r"stem\.|res\d\.", short) else rest)[short] = value
    renamed = {**from_classifier(rename(resnet, DETECTRON2_RESNET), config), **rename(rest, DETECTRON2)}
    for part in ("weight", "bias"):
        scores, boxes = f"{PREDICTOR}cls_score.{part}", f"{PREDICTOR}bbox_pred.{part}"
        if scores in renamed:
            renamed[scores] = renamed[scores].roll(1, 0)
        if boxes in renamed and not config.class_agnostic:
            renamed[boxes] = torch.cat([torch.zeros_like(renamed[boxes][:4]), renamed[boxes]])
        for key, rows in ((f"{RPN}cls_logits.{part}", 1), (f"{RPN}bbox_pred.{part}", 4)):
            if key in renamed:
                renamed[key] = ratios_first(renamed[key], rows, len(config.anchor_ratios))
    return renamed


def ratios_first(value: Tensor, rows: int, ratios: int) -> Tensor:
    """Returns the channels [sizes x ratios x rows, ...] in the order [ratios x sizes x rows, ...]."""
    if len(value) % (rows * ratios):
        return value  # of other anchors; the report tells by the shape
    return value.reshape(-1, ratios, rows, *value.shape[1:]).transpose(0, 1).reshape(value.shape)
