"""torch.compile for what is the same in every step: backbone and pyramid, the RPN's head, the boxes' head.

The rest of a step, sampling and NMS, is small operations. The state dict keeps its names, because it is functions that
are compiled, not modules. With batch.pad_to=group each canvas is compiled for itself, a handful in a run.
"""

import importlib.util
import os
import shutil
from typing import Callable

import torch
from torch import nn

from detector.errors import BadInput
from detector.model.faster_rcnn import Detector


def ensure_compiler(mode: str, device: torch.device) -> None:
    """Raises BadInput where torch.compile would fail at the first step."""
    if mode == "off":
        return
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise BadInput(f"run.compile={mode}: there is no package triton here, which PyTorch compiles for GPUs with; "
                       "install it, or set run.compile=off")
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise BadInput(f"run.compile={mode}: no C++ compiler ({', '.join(compilers)}) is here, which PyTorch compiles "
                       "for CPUs with; install g++, set CXX, or set run.compile=off")


def compile_model(model: Detector, mode: str, dynamic: bool, backend: str = "inductor") -> None:
    """In place, for training alone: evaluation has shapes of its own, and is a small share of a run.

    mode: default: fused operations; reduce-overhead: CUDA graphs as well, on GPUs; off: nothing. dynamic: one
    compilation for all shapes, which takes longer and computes slower; else one for each. backend: torch.compile's.
    """
    if mode == "off":
        return
    for part in (model.backbone, model.rpn.head, model.roi_heads.box_head):
        part.forward = in_training(part, torch.compile(part.forward, mode=None if mode == "default" else mode,
                                                       dynamic=dynamic, backend=backend))


def in_training(part: nn.Module, compiled: Callable) -> Callable:
    """What `forward` is called with goes to the compiled one in training, else to the one that was there before."""
    eager = part.forward
    return lambda *arguments: (compiled if part.training else eager)(*arguments)
