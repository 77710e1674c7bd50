"""How large each row's model is: parameters, and operations for one image, counted without computing anything."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detector.config.load import load_config
from detector.config.schema import Config
from detector.model.faster_rcnn import build_model
from detector.model.ops.frozen_batchnorm import FrozenBatchNorm
from detector.tables.published import Printed

CLASSES = {"voc": 20, "coco": 80, "visual_genome": 2500, "imagenet_det": 200}


@dataclass(frozen=True)
class Size:
    """Of a model at one image of short side S and long side 4/3 S, with all the proposals that evaluation keeps."""

    classes: int
    parameters: int            # weights and biases, those of frozen norms too, as the published figures count
    learning: int              # those that training changes
    height: int
    width: int
    flops: dict[str, int]      # body, rpn, head (fc or layer4 on every proposal, and the predictor); 2 for a
                               # multiplication and addition; pooling, NMS and decoding are not counted


def size_of_row(row: str) -> Size:
    return size_of_model(load_config(f"tables/{row}"))


def size_of_model(config: Config) -> Size:
    """Builds the model on the meta device, which has shapes and no memory."""
    classes = CLASSES[config.data.format]
    height, width = config.evaluate.min_size, round(config.evaluate.min_size * 4 / 3)
    with torch.device("meta"):
        model = build_model(config.model, config.evaluate, classes).eval()
        image = torch.empty(1, 3, height, width)
        flops = {}
        with torch.no_grad():
            features, flops["body"] = counted(model.backbone, image)
            levels = list(features.values())
            _, flops["rpn"] = counted(model.rpn.head, levels)
            count, cells = config.model.rpn.post_nms_top_n_eval, config.model.roi_pooling_size
            hidden, flops["head"] = counted(model.roi_heads.box_head,
                                            torch.empty(count, levels[0].shape[1], cells, cells))
            flops["head"] += counted(model.roi_heads.box_predictor, hidden)[1]
    learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return Size(classes, parameters(model), learning, height, width, flops)


def counted(module: nn.Module, inputs) -> tuple[object, int]:
    """The output, and how many operations it took."""
    with FlopCounterMode(display=False) as counter:
        output = module(inputs)
    return output, counter.get_total_flops()


def parameters(model: nn.Module) -> int:
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm)]
    return (sum(weight.numel() for weight in model.parameters())
            + sum(norm.weight.numel() + norm.bias.numel() for norm in norms))


def sizes_text(rows: list[Printed]) -> str:
    """A line for each row; rows with the same model look the same."""
    found = [f"{'row':26} {'body':24} {'classes':>7} {'parameters':>12} {'learning':>12} {'image':>9} "
             f"{'body':>8} {'rpn':>7} {'head':>9} {'all':>9}  GFLOPs"]
    for row in rows:
        size, config = size_of_row(row.row), load_config(f"tables/{row.row}")
        giga = [value / 1e9 for value in (*size.flops.values(), sum(size.flops.values()))]
        found.append(f"{row.row:26} {config.model.backbone:24} {size.classes:7} {size.parameters:12,} {size.learning:12,} "
                     f"{f'{size.height}x{size.width}':>9} {giga[0]:8.1f} {giga[1]:7.1f} {giga[2]:9.1f} {giga[3]:9.1f}")
    return "\n".join(found)
