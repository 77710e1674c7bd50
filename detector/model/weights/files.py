"""Reads files of weights without running code in them, and torchvision's downloads by name."""

import hashlib
import json
import os
import pickle
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torchvision import models
from torchvision.models import WeightsEnum

from detector.config.names import named_run
from detector.errors import BadInput
from detector.model.weights.content import NESTED, find_class_names, find_tensors
from detector.run.checkpoint_files import best_path, step_files
from detector.run.file_digest import Damaged, verify_foreign


@dataclass(frozen=True)
class StoredWeights:
    """The content of a file of weights."""

    tensors: dict[str, Tensor]   # by the file's own names
    class_names: list[str]       # from label 0 (background) on; empty if the file does not tell
    settings: dict[str, object]  # options below `model.` that the weights were trained with, as far as known


def read_weights(name: str) -> StoredWeights:
    """Returns the content of a file, or of torchvision's download of this full name. No code in a file is run.

    Raises:
        BadInput: there is no such file or download, or it cannot be read.
    """
    if file := local_file(name):
        return read_file(file)
    entry, path = find_download(name)
    try:
        verify_download(path)
        state = entry.get_state_dict(progress=False, check_hash=True)
    except (EOFError, pickle.UnpicklingError, Damaged) as error:
        raise BadInput(f"model.weights={name}: {path} is damaged. Remove it, and download {entry.url} again") from error
    except (URLError, OSError, RuntimeError) as error:
        raise BadInput(f"model.weights={name}: {path} does not exist and could not be downloaded ({error}). Download "
                       f"{entry.url} on another machine and copy it to {path}") from error
    pixel_format = "caffe_rgb" if name == "VGG16_Weights.IMAGENET1K_FEATURES" else "torchvision"
    strides = {"stride_in_1x1": False, "ceil_pool": False} if "ResNet" in name else {}
    return StoredWeights(state, list(entry.meta["categories"]) if name.startswith("FasterRCNN") else [],
                         {"pixel_format": pixel_format, **strides})


def local_file(name: str) -> str:
    """Returns the path of a file of this name, or of the best or else newest checkpoint of a run; or ""."""
    run = Path(named_run(name)).expanduser()
    files = (Path(name).expanduser(), best_path(run), *step_files(run))
    return next((str(file) for file in files if file.is_file()), "")


def find_download(name: str) -> tuple[WeightsEnum, str]:
    """Returns torchvision's entry of a full name, and the path of its download. Raises BadInput for other names."""
    try:
        entry: WeightsEnum = models.get_weight(name)
    except (ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"model.weights={name}: no such file, and torchvision has no weights of this name. Use "
                       "imagenet, coco, a name such as ResNet50_Weights.IMAGENET1K_V2, a file, or a run folder or its "
                       "name; `fleet-rcnn data get caffe_weights` downloads those of the published tables") from error
    return entry, os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(entry.url))


def verify_download(path: str) -> None:
    """Verifies a download, if it is there: an archive by its CRCs, another file by the part of its SHA-256 in its name.

    Raises:
        Damaged: the file is not as it was published.
    """
    stated = re.search(r"-([0-9a-f]{8})\.", os.path.basename(path))
    if not os.path.isfile(path) or verify_foreign(Path(path)) or not stated:
        return
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if not digest.hexdigest().startswith(stated[1]):
        raise Damaged("its SHA-256 is another")


def read_file(path: str) -> StoredWeights:
    """Returns the content of a .pkl file of arrays, of safetensors, or of a file of torch.save. Raises BadInput."""
    try:
        if path.endswith(".pkl"):
            content = read_pickle(path)
        elif path.endswith(".safetensors"):
            content = read_safetensors(path)
        else:
            verify_foreign(Path(path))
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Damaged as error:
        raise BadInput(f"model.weights={path} is damaged: {error}. Copy or download it again") from error
    except Exception as error:  # torch.load documents no common base class of its errors for foreign files
        raise BadInput(f"model.weights={path} is no file of tensors: {reason_of(error)}") from error
    outer = content if isinstance(content, dict) else {}
    tensors = find_tensors(content)
    if not tensors:
        raise BadInput(f"model.weights={path}: a dict of tensors expected, or one below {', '.join(NESTED)}. Save it "
                       "by torch.save(model.state_dict(), FILE)")
    return StoredWeights(tensors, find_class_names(outer.get("classes"), tensors), settings_of_file(outer, tensors))


def reason_of(error: Exception) -> str:
    """Returns why a file of weights cannot be read, without the advice of PyTorch to run its code."""
    message = str(error) or type(error).__name__
    code = re.search(r"(?:Unsupported (?:global|class)|GLOBAL) ?:?(?: GLOBAL)? ([\w.]+)", message)
    if code:
        return (f"it asks for {code[1]}, which tensors do not need. Save the state dict alone, by "
                "torch.save(model.state_dict(), FILE)")
    return "torch.save has not written it" if "weights_only" in message else message.splitlines()[0]


def settings_of_file(outer: dict, tensors: dict[str, Tensor]) -> dict[str, object]:
    """Returns the options below `model.` that a file was trained with, as far as its content tells.

    A released checkpoint of jwyang/faster-rcnn.pytorch states its pooling; Caffe2's names are those of MSRA's networks.
    """
    if any(key.startswith("res2_0_branch2a") for key in tensors):
        return {"stride_in_1x1": True}
    if "pooling_mode" not in outer:
        return {}
    resnet = any("RCNN_base.1.running_mean" in key for key in tensors)  # VGG16 has no norms
    roi_pooling = {"align": "align_original"}.get(outer["pooling_mode"], outer["pooling_mode"])
    return {"pixel_format": "caffe", "roi_pooling": roi_pooling,
            "class_agnostic": bool(outer.get("class_agnostic", False)),
            **({"stride_in_1x1": True, "ceil_pool": True} if resnet else {})}


def read_safetensors(path: str) -> dict:
    """Returns the tensors of a file of safetensors below "model", and the class names of `fleet-rcnn export`."""
    with safe_open(path, "pt") as file:
        labels = (file.metadata() or {}).get("labels", "{}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    try:
        return {"model": tensors, "classes": json.loads(labels)}
    except ValueError:  # of another program, which does not write JSON there
        return {"model": tensors}


def read_pickle(path: str) -> object:
    """Returns the content of a pickle of plain containers and numpy arrays, such as detectron2's R-50.pkl."""
    with open(path, "rb") as file:
        return ArrayUnpickler(file, encoding="latin1").load()


class ArrayUnpickler(pickle.Unpickler):
    """Knows only the functions that an array is rebuilt with; a file that names any other is refused and not run."""

    def find_class(self, module: str, name: str) -> object:
        module = module.replace("numpy._core", "numpy.core")  # renamed in NumPy 2
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which an array of weights does not need")
        return ARRAY_PARTS[module, name]


def bytes_from_latin1(text: str = "", _encoding: str = "latin1") -> bytes:
    """Rebuilds a bytes object from a pickle of protocol 2, in which Python 3 stores bytes as latin-1 text."""
    return text.encode("latin1")


ARRAY_PARTS = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
               ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
               ("numpy.core.multiarray", "scalar"): np.float32(0).__reduce__()[0],
               ("numpy.core.numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
               ("collections", "OrderedDict"): OrderedDict, ("_codecs", "encode"): bytes_from_latin1,
               ("__builtin__", "bytes"): bytes_from_latin1}
