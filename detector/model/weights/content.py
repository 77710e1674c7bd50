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
