"""torch.compile of the parts that are the same in every training step: backbone, RPN head and box head.

Sampling and NMS, the rest of a step, are many small operations and stay eager. Functions are compiled, not modules, so
that the state dict keeps its names. With batch.pad_to=group only a handful of shapes occur in a run, and each is
compiled once.
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
    """Raises BadInput if torch.compile would fail at the first step, because its compiler is not installed."""
    if mode == "off":
        return
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise BadInput(f"run.compile={mode}: the package triton is not installed; PyTorch needs it to compile for "
                       "GPUs. Install it, or set run.compile=off")
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise BadInput(f"run.compile={mode}: no C++ compiler found ({', '.join(compilers)}); PyTorch needs one to "
                       "compile for CPUs. Install g++, set CXX, or set run.compile=off")


def compile_model(model: Detector, mode: str, dynamic: bool, backend: str = "inductor") -> None:
    """Compiles a model for training, in place; evaluation stays eager, because its shapes differ.

    Args:
        mode: off: nothing is compiled; default: fused operations; reduce-overhead: also CUDA graphs, on GPUs.
        dynamic: compile once for all shapes, which takes longer and runs slower; else once for each shape.
        backend: that of torch.compile.
    """
    if mode == "off":
        return
    for module in (model.backbone, model.rpn.head, model.roi_heads.box_head):
        compiled = torch.compile(module.forward, mode=None if mode == "default" else mode, dynamic=dynamic,
                                 backend=backend)
        module.forward = compiled_in_training(module, compiled)


def compiled_in_training(module: nn.Module, compiled: Callable) -> Callable:
    """Returns a forward function that calls `compiled` in training and the module's present forward in evaluation."""
    eager = module.forward
    return lambda *args: (compiled if module.training else eager)(*args)
