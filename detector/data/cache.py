"""The index cache: a read split as an .npz file, keyed by the state of its annotation files."""

import hashlib
import json
import os
import tempfile
import zipfile
from dataclasses import fields, replace

import numpy as np

from detector.config.schema import Data
from detector.data.formats import coco, imagenet_det, per_image_json, visual_genome, voc
from detector.errors import BadInput
from detector.structures import Dataset

READERS = {"coco": coco, "voc": voc, "visual_genome": visual_genome, "imagenet_det": imagenet_det,
           "per_image_json": per_image_json, "shapes": coco}
CACHE_FORMAT = 1    # raise it when what a reader gives changes


def cached(config: Data, root: str, split: str) -> Dataset:
    """One split as its reader gives it, from the cache where its files have not changed."""
    reader = READERS[config.format]
    stamps = [(path, status.st_size, status.st_mtime_ns) for path in reader.sources(root, split)
              for status in [_status(path)]]
    key = hashlib.sha256(json.dumps([CACHE_FORMAT, config.format, os.path.abspath(root), split, stamps]).encode())
    path = os.path.join(os.path.expanduser(config.cache), f"{config.format}-{key.hexdigest()[:24]}.npz")
    try:
        with np.load(path) as stored:
            dataset = replace(_unpack(stored), root=root)
        if len(dataset) and os.path.exists(dataset.path(0)):  # else the images have moved
            return dataset
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    dataset = reader.read(root, split)
    if dataset.cacheable:
        _write(path, dataset)
    return dataset


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise BadInput(f"no such annotation file: {path}") from error


def _write(path: str, dataset: Dataset) -> None:
    """Beside, then renamed: a reader never meets half a file. A cache that cannot be written is no error."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".part")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **{f.name: np.array(getattr(dataset, f.name)) for f in fields(Dataset)})
        os.replace(beside, path)
    except OSError:
        os.unlink(beside)


def _unpack(stored) -> Dataset:
    def value(name: str):
        array = stored[name]
        if name in ("name", "root"):
            return str(array)
        if name == "cacheable":
            return bool(array)
        return tuple(str(item) for item in array) if name in ("classes", "faults") else array
    return Dataset(**{f.name: value(f.name) for f in fields(Dataset)})
