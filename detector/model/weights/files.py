"""Files of weights, read without running what is in them, and torchvision's downloads by name."""

import os
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor
from torchvision import models
from torchvision.models import WeightsEnum

from detector.errors import BadInput

BELOW = ("model", "state_dict", "blobs")  # where files keep their tensors; the last is Detectron's


@dataclass(frozen=True)
class Stored:
    """What a file of weights holds."""

    tensors: dict[str, Tensor]    # by the file's own names
    names: list[str]              # of the classes from label 0 on, where they are known
    settings: dict[str, object]   # options below `model.` that its weights were trained with, where it says so


def read_weights(name: str) -> Stored:
    """What a file holds, or a download of torchvision's by its full name. No code of a file is run."""
    if os.path.isfile(os.path.expanduser(name)):
        return _read_file(os.path.expanduser(name))
    entry, place = download_of(name)
    try:
        state = entry.get_state_dict(progress=False, check_hash=True)
    except (EOFError, pickle.UnpicklingError) as error:
        raise BadInput(f"model.weights={name}: {place} is broken. Remove it, and download {entry.url} again") from error
    except (URLError, OSError, RuntimeError) as error:
        raise BadInput(f"model.weights={name}: the file is not there and could not be downloaded ({error}). Download "
                       f"{entry.url} elsewhere and put it at {place}") from error
    pixels = "caffe_rgb" if name == "VGG16_Weights.IMAGENET1K_FEATURES" else "torchvision"
    strides = {"stride_in_1x1": False, "ceil_pool": False} if "ResNet" in name else {}
    return Stored(state, list(entry.meta["categories"]) if name.startswith("FasterRCNN") else [],
                  {"pixels": pixels, **strides})


def download_of(name: str) -> tuple[WeightsEnum, str]:
    """torchvision's entry of a full name, and the file that it is downloaded to."""
    try:
        entry: WeightsEnum = models.get_weight(name)
    except (ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"model.weights={name}: no such file, and torchvision has no weights of this name. Use "
                       "imagenet, coco, a name such as ResNet50_Weights.IMAGENET1K_V2, or a file; those of the tables "
                       "come by `fleet-rcnn data get caffe_weights`") from error
    return entry, os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(entry.url))


def _read_file(path: str) -> Stored:
    try:
        stored = read_pickle(path) if path.endswith(".pkl") else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load names no common base for what a foreign file makes it raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadInput(f"model.weights={path} is no file of tensors: {reason}") from error
    whole = stored if isinstance(stored, dict) else {}
    names = ["__background__", *whole["classes"]] if "classes" in whole else []
    while isinstance(stored, dict) and any(isinstance(stored.get(key), dict) for key in BELOW):
        stored = stored.get("ema") or next(stored[key] for key in BELOW if isinstance(stored.get(key), dict))
    if isinstance(stored, dict):
        stored = {key: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
                  else value for key, value in stored.items()}
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise BadInput(f"model.weights={path}: a dict of tensors expected, or one below {', '.join(BELOW)}")
    return Stored(stored, names, settings_of(whole, stored))


def settings_of(whole: dict, tensors: dict[str, Tensor]) -> dict[str, object]:
    """What a file tells of the network it was trained in, as options of ours below `model.`: a released checkpoint of
    jwyang/faster-rcnn.pytorch by what it holds, Caffe2's names by being those of MSRA's networks."""
    if any(key.startswith("res2_0_branch2a") for key in tensors):
        return {"stride_in_1x1": True}
    if "pooling_mode" not in whole:
        return {}
    resnet = any("RCNN_base.1.running_mean" in key for key in tensors)  # VGG16 has no norms
    pooling = {"align": "align_original"}.get(whole["pooling_mode"], whole["pooling_mode"])
    return {"pixels": "caffe", "pooling": pooling, "class_agnostic": bool(whole.get("class_agnostic", False)),
            **({"stride_in_1x1": True, "ceil_pool": True} if resnet else {})}


def read_pickle(path: str) -> object:
    """A pickle of plain containers and numpy arrays, such as detectron2's R-50.pkl; of Python 2 or 3."""
    with open(path, "rb") as file:
        return ArrayUnpickler(file, encoding="latin1").load()


class ArrayUnpickler(pickle.Unpickler):
    """Knows the few functions that an array is rebuilt with; a file that names any other is refused, and not run."""

    def find_class(self, module: str, name: str) -> object:
        module = module.replace("numpy._core", "numpy.core")  # as it is called since NumPy 2
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which an array of weights does not need")
        return ARRAY_PARTS[module, name]


def latin1(text: str = "", _encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2: as a text whose letters are the bytes, or as `bytes()`."""
    return text.encode("latin1")


ARRAY_PARTS = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
               ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
               ("numpy.core.multiarray", "scalar"): np.float32(0).__reduce__()[0],
               ("numpy.core.numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
               ("collections", "OrderedDict"): OrderedDict, ("_codecs", "encode"): latin1,
               ("__builtin__", "bytes"): latin1}
