"""Counts parameters and operations of the models of published rows, without allocating or computing anything."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detector.config.load import load_config
from detector.config.schema import Config
from detector.model.faster_rcnn import build_model
from detector.model.ops.frozen_batchnorm import FrozenBatchNorm
from detector.tables.published import PublishedRow

# By the folder that a row names as data.root.
NUM_CLASSES = {"VOCdevkit": 20, "coco": 80, "visual_genome": 2500, "ILSVRC": 200, "deeppcb": 6}


@dataclass(frozen=True)
class ModelSize:
    """Size of a model for one image with short side evaluate.min_size, an aspect ratio of 4 : 3, and all proposals."""

    classes: int
    parameters: int        # weights and biases, including those of frozen norms, as published figures do
    trainable: int         # of these, the ones that are trained
    height: int
    width: int
    flops: dict[str, int]  # of "backbone", "rpn" and "head" (box head on every proposal, and the predictor); a
                           # multiplication and an addition are two; pooling, NMS and box decoding are not counted


def size_of_model(config: Config) -> ModelSize:
    """Returns the size of the model that a config describes; the model is built on the meta device."""
    classes = NUM_CLASSES[Path(config.data.root).name]
    height, width = config.evaluate.min_size, round(config.evaluate.min_size * 4 / 3)
    with torch.device("meta"):
        model = build_model(config.model, config.evaluate, classes).eval()
        image = torch.empty(1, 3, height, width)
        flops = {}
        with torch.no_grad():
            features, flops["backbone"] = run_and_count(model.backbone, image)
            levels = list(features.values())
            _, flops["rpn"] = run_and_count(model.rpn.head, levels)
            count, cells = config.model.rpn.post_nms_top_n_eval, config.model.roi_pooling_size
            hidden, flops["head"] = run_and_count(model.roi_heads.box_head,
                                                  torch.empty(count, levels[0].shape[1], cells, cells))
            flops["head"] += run_and_count(model.roi_heads.box_predictor, hidden)[1]
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return ModelSize(classes, count_parameters(model), trainable, height, width, flops)


def run_and_count(module: nn.Module, inputs) -> tuple[object, int]:
    """Returns the output of a module and the number of operations."""
    with FlopCounterMode(display=False) as counter:
        output = module(inputs)
    return output, counter.get_total_flops()


def count_parameters(model: nn.Module) -> int:
    """Counts all parameters, and the scales and shifts of frozen norms, which are buffers."""
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm)]
    return (sum(weight.numel() for weight in model.parameters())
            + sum(norm.weight.numel() + norm.bias.numel() for norm in norms))


def describe_sizes(rows: list[PublishedRow]) -> str:
    """Returns a text table with the model size of each row, in two lines."""
    lines = [f"{'row':32} {'backbone':24} {'classes':>7} {'image':>9}",
             f"  {'parameters':>12} {'trainable':>12}   GFLOPs: {'backbone':>8} {'rpn':>7} {'head':>9} {'total':>9}"]
    for row in rows:
        config = load_config(f"tables/{row.row}")
        size = size_of_model(config)
        gflops = [value / 1e9 for value in (*size.flops.values(), sum(size.flops.values()))]
        lines += [f"{row.row:32} {config.model.backbone:24} {size.classes:7} {f'{size.height}x{size.width}':>9}",
                  f"  {size.parameters:12,} {size.trainable:12,} {' ':9} {gflops[0]:8.1f} {gflops[1]:7.1f} "
                  f"{gflops[2]:9.1f} {gflops[3]:9.1f}"]
    return "\n".join(lines)
