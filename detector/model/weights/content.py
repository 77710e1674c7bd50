"""Finds the tensors and the class names in the content of a file of weights, in the layouts that programs save."""

import numpy as np
import torch
from torch import Tensor

# Keys below which files keep their tensors, the first that holds some counts; the last is Detectron's.
NESTED = ("ema", "model", "state_dict", "model_state_dict", "module", "blobs")
BACKGROUND = ("__background__", "_background_", "background", "bg")


def find_tensors(content: object) -> dict[str, Tensor]:
    """Returns the dict of tensors that is the content, or lies below one of the keys NESTED; empty if there is none.

    Averaged weights (ema) come before others; an `ema` without tensors, such as the settings of averaging, is passed
    over.
    """
    if not isinstance(content, dict):
        return {}
    for key in NESTED:
        if tensors := find_tensors(content.get(key)):
            return tensors
    tensors = {key: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
               else value for key, value in content.items()}
    return tensors if all(isinstance(value, Tensor) for value in tensors.values()) else {}


def find_class_names(classes: object, tensors: dict[str, Tensor]) -> list[str]:
    """Returns the names that a file states as its classes, from label 0 (background) on; empty for other content.

    Args:
        classes: a list of names, or a dict of names by number or of numbers by name; background may come first.
        tensors: of the file. If their predictor has one row more than there are names, background is not among these.
    """
    if isinstance(classes, dict):
        try:
            by_number = {int(key): value for key, value in classes.items()}
        except (TypeError, ValueError):
            by_number = {value: key for key, value in classes.items() if isinstance(value, int)}
        if len(by_number) != len(classes):
            return []
        classes = [by_number[number] for number in sorted(by_number)]
    if not isinstance(classes, (list, tuple)) or not classes or not all(isinstance(name, str) for name in classes):
        return []
    rows = next((len(value) for key, value in tensors.items() if key.endswith("cls_score.bias")), 0)
    has_background = classes[0].lower() in BACKGROUND and rows != len(classes) + 1
    return ["__background__", *classes[has_background:]]
