"""The index cache: the Dataset of one split as an .npz file, valid as long as its annotation files do not change."""

import hashlib
import json
import os
import tempfile
import zipfile
from dataclasses import fields, replace

import numpy as np

from detector.config.schema import Data
from detector.data.formats import find_format
from detector.errors import BadInput
from detector.structures import Dataset

CACHE_FORMAT = 2  # raise it when a reader's output or the fields of Dataset change; older files are then ignored


def read_cached(config: Data, root: str, split: str) -> Dataset:
    """Returns one split as its reader gives it; from the cache if size and time of its annotation files are unchanged.

    Raises:
        BadInput: an annotation file is missing, or the reader refuses the annotations.
    """
    reader = find_format(config.format)
    stamps = []
    for source in reader.sources(root, split):
        status = _file_status(source)
        stamps.append((source, status.st_size, status.st_mtime_ns))
    key = hashlib.sha256(json.dumps([CACHE_FORMAT, config.format, os.path.abspath(root), split, stamps]).encode())
    path = os.path.join(os.path.expanduser(config.cache), f"{config.format}-{key.hexdigest()[:24]}.npz")
    try:
        with np.load(path) as arrays:
            dataset = replace(_from_arrays(arrays), root=root)
        if len(dataset) and os.path.exists(dataset.path(0)):  # otherwise the images have been moved
            return dataset
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    dataset = reader.read(root, split)
    if dataset.cacheable:
        _write(path, dataset)
    return dataset


def _file_status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise BadInput(f"no such annotation file: {path}") from error


def _write(path: str, dataset: Dataset) -> None:
    """Writes a temporary file and renames it; a folder that cannot be written to is no error."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".part")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **{f.name: np.array(getattr(dataset, f.name)) for f in fields(Dataset)})
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)


def _from_arrays(arrays: np.lib.npyio.NpzFile) -> Dataset:
    def value(name: str):
        array = arrays[name]
        if name in ("name", "root"):
            return str(array)
        if name == "cacheable":
            return bool(array)
        return tuple(str(item) for item in array) if name in ("classes", "warnings") else array
    return Dataset(**{f.name: value(f.name) for f in fields(Dataset)})
