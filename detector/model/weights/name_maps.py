"""Whose names a file of weights has, and what those tensors are called here.

Ours are torchvision's. Four other layouts: torchvision's classifiers, which Caffe's converted models share; the
detectors of jwyang/faster-rcnn.pytorch; detectron2's; and the names that Caffe2 left in detectron2's R-50.pkl.
"""

import re

import torch
from torch import Tensor

from detector.config.model_schema import Model

HEAD = "roi_heads.box_head."
PREDICTOR = "roi_heads.box_predictor."
RPN = "rpn.head."

# Each table: what is replaced in a name, one after the other.
# torchvision before 0.13, as its COCO files still are.
OLDER = ((r"^rpn\.head\.conv\.(?=weight|bias)", f"{RPN}conv.0.0."),
         (r"^(backbone\.fpn\.\w+_blocks\.\d)\.(?=weight|bias)", r"\1.0."))

# lib/model/faster_rcnn/{faster_rcnn,vgg16,resnet}.py of jwyang/faster-rcnn.pytorch: a body is a list of layers there.
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

# detectron2's names -> torchvision's: the trunk, whose four stages are called 2 to 5 there; and the rest.
TRUNK = ((r"^stem\.conv1\.norm\.", "bn1."), (r"^stem\.", ""),
         *((rf"^res{stage + 1}\.", f"layer{stage}.") for stage in (1, 2, 3, 4)), (r"\.conv(\d)\.norm\.", r".bn\1."),
         (r"\.shortcut\.norm\.", ".downsample.1."), (r"\.shortcut\.", ".downsample.0."))
DETECTRON2 = ((r"^proposal_generator\.rpn_head\.conv\.", f"{RPN}conv.0.0."),
              (r"^proposal_generator\.rpn_head\.objectness_logits\.", f"{RPN}cls_logits."),
              (r"^proposal_generator\.rpn_head\.anchor_deltas\.", f"{RPN}bbox_pred."),
              (r"^roi_heads\.box_head\.fc1\.", f"{HEAD}fc6."), (r"^roi_heads\.box_head\.fc2\.", f"{HEAD}fc7."),
              *((rf"^backbone\.fpn_{theirs}{level + 2}\.", f"backbone.fpn.{ours}_blocks.{level}.0.")
                for theirs, ours in (("lateral", "inner"), ("output", "layer")) for level in range(4)))


def to_our_names(state: dict[str, Tensor], config: Model) -> dict[str, Tensor]:
    """The tensors of any layout under our names and in our order; those that no layout knows keep their names."""
    if state and all(key.startswith("module.") for key in state):  # of a model inside nn.DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    if any(key.startswith("RCNN_") for key in state):
        return renamed(state, ORIGINAL_VGG if config.backbone == "vgg16" else ORIGINAL_RESNET)
    if any(re.match(r"(backbone\.)?(bottom_up\.)?(stem\.|res\d[._])|proposal_generator\.", key) for key in state):
        return from_detectron2(state, config)
    if any(key.startswith(("backbone.", "rpn.", "roi_heads.")) for key in state):
        return renamed(state, OLDER)
    return from_classifier(state, config.backbone)


def renamed(state: dict[str, Tensor], table: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    named = {}
    for key, value in state.items():
        for pattern, new in table:
            key = re.sub(pattern, new, key)
        named[key] = value
    return named


def from_classifier(state: dict[str, Tensor], body: str) -> dict[str, Tensor]:
    """A classifier of torchvision, or of Caffe in its names: vgg16_caffe.pth, resnet101_caffe.pth."""
    if body == "vgg16":
        moves = {"features.": "backbone.", "classifier.0.": f"{HEAD}fc6.", "classifier.3.": f"{HEAD}fc7."}
    elif body.endswith("_c4"):
        moves = {"layer4.": f"{HEAD}layer4.", "fc.": "fc.", "": "backbone."}
    elif body.startswith("mobilenet"):
        moves = {"features.": "backbone.body."}
    else:
        moves = {"fc.": "fc.", "": "backbone.body."}
    named = {}
    for key, value in state.items():
        start = next((start for start in moves if key.startswith(start)), None)
        named[key if start is None else moves[start] + key[len(start):]] = value
    return named


def from_detectron2(state: dict[str, Tensor], config: Model) -> dict[str, Tensor]:
    """A detector or a classifier of detectron2. Its background is the last class and has no boxes; its anchors count
    through the sizes first, ours through the ratios."""
    trunk, rest = {}, {}
    for key, value in renamed(state, CAFFE2).items():
        short = re.sub(r"^(backbone\.bottom_up|backbone|roi_heads)\.(?=stem|res\d)", "", key)
        (trunk if re.match(r"stem\.|res\d\.", short) else rest)[short] = value
    named = {**from_classifier(renamed(trunk, TRUNK), config.backbone), **renamed(rest, DETECTRON2)}
    for part in ("weight", "bias"):
        scores, boxes = f"{PREDICTOR}cls_score.{part}", f"{PREDICTOR}bbox_pred.{part}"
        if scores in named:
            named[scores] = named[scores].roll(1, 0)
        if boxes in named and not config.class_agnostic:
            named[boxes] = torch.cat([torch.zeros_like(named[boxes][:4]), named[boxes]])
        for key, rows in ((f"{RPN}cls_logits.{part}", 1), (f"{RPN}bbox_pred.{part}", 4)):
            if key in named:
                named[key] = ratios_first(named[key], rows, len(config.anchor_ratios))
    return named


def ratios_first(value: Tensor, rows: int, ratios: int) -> Tensor:
    """Channels [sizes x ratios x rows, ...] in the order [ratios x sizes x rows, ...]."""
    if len(value) % (rows * ratios):
        return value  # of other anchors, which is reported by its shape
    return value.reshape(-1, ratios, rows, *value.shape[1:]).transpose(0, 1).reshape(value.shape)
