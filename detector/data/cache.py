"""The index cache: the Dataset of one split as an .npz file, valid as long as nothing that it depends on has changed.

It depends on size and time of the annotation files, of the images whose size their headers gave, and on the time of the
folders that hold the images, which changes when a file in them is added, removed or renamed. No cache is written unless
the first, middle or last image exists, because the reader looks for images in several places, nor if an image or folder
changed while it was read.
"""

import hashlib
import inspect
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np

from detector.config.schema import Data
from detector.data.formats import find_format
from detector.data.text_files import cannot_read
from detector.structures import Dataset, ceil_div

CACHE_FORMAT = 5     # raise it when a reader's output or the fields of Dataset change; older files are then ignored
MAX_FOLDERS = 1000   # folders of images that are looked at; of more, as many, spread evenly
THREADS = 8          # that ask for size and time; on a network file system most of the time they wait
MISSING = (-1, -1, -1)  # size and times of a file that is not there


def read_cached(config: Data, root: str, split: str) -> Dataset:
    """Returns one split as its reader gives it, from the cache if nothing that it depends on has changed.

    A cache that cannot be read or written is no error: the reader is then run.

    Raises:
        BadInput: an annotation file is missing, or the reader refuses the annotations.
    """
    reader, images = find_format(config.format), os.path.expanduser(config.images)
    stamps = [(source, *_required_stamp(source)) for source in _call(reader.sources, root, split, images)]
    key = hashlib.sha256(json.dumps(
        [CACHE_FORMAT, config.format, os.path.abspath(root), split, images, stamps]).encode()).hexdigest()
    folder = os.path.expanduser(config.cache)
    has_folder = folder and not folder.startswith("~")  # "~" stays where there is no home
    path = os.path.join(folder, f"{config.format}-{key[:24]}.npz") if has_folder else ""
    dataset = _load(path, root)
    if dataset is None:
        start = time.time_ns()
        dataset = _call(reader.read, root, split, images)
        if path:
            _write(path, dataset, start)
    return replace(dataset, sized_by_header=())


def _call(function: Callable, root: str, split: str, images: str):
    """Calls a function of a reader, with `data.images` if that is set and the function takes it."""
    takes_images = images and len(inspect.signature(function).parameters) > 2
    return function(root, split, images) if takes_images else function(root, split)


def _required_stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise cannot_read(path, error, "annotation file") from error
    return status.st_size, status.st_mtime_ns


def _stamp(path: str) -> tuple[int, int, int]:
    """Returns size and time of change, ns, of a file, 0 as size of a folder; MISSING where there is none.

    The third is the time of the last change by the file system's clock, which copying cannot set back.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return MISSING
    return (0 if os.path.isdir(path) else status.st_size), status.st_mtime_ns, status.st_ctime_ns


def _stamps(paths: Iterable[str]) -> np.ndarray:
    """Returns `_stamp` of each file, int64 [F, 3]."""
    with ThreadPoolExecutor(THREADS) as pool:
        return np.array(list(pool.map(_stamp, paths)), np.int64).reshape(-1, 3)


def _dependencies(dataset: Dataset) -> list[str]:
    """Returns the absolute paths of the folders that hold the images, and of the images sized by their headers."""
    folders = sorted({os.path.dirname(dataset.path(index)) for index in range(len(dataset))})
    folders = folders[::max(1, ceil_div(len(folders), MAX_FOLDERS))]
    images = [dataset.path(index) for index in dataset.sized_by_header]
    return [os.path.join(os.getcwd(), path) for path in folders + images]


def _load(path: str, root: str) -> Dataset | None:
    """Returns the Dataset in a cache file; None if there is none, it is damaged, or a dependency has changed."""
    if not path:
        return None
    try:
        with np.load(path) as arrays:
            paths = [os.fsdecode(bytes(name)) for name in arrays["dependencies"]]
            if not np.array_equal(_stamps(paths)[:, :2], arrays["stamps"]):
                return None
            return replace(_from_arrays(arrays), root=root)
    except Exception:  # numpy and zipfile raise errors of a dozen types for damaged files
        return None


def _write(path: str, dataset: Dataset, start: int) -> None:
    """Writes a temporary file and renames it, unless a dependency is missing or has changed since `start`, ns.

    A folder that cannot be written to is no error.
    """
    paths = _dependencies(dataset)
    stamps = _stamps(paths)
    samples = {0, len(dataset) // 2, len(dataset) - 1} if len(dataset) else ()
    is_stable = ((stamps[:, 2] >= 0) & (stamps[:, 2] < start)).all()
    if not is_stable or not any(os.path.exists(dataset.path(index)) for index in samples):
        return
    arrays = {field.name: np.array(getattr(dataset, field.name)) for field in fields(Dataset)}
    arrays["dependencies"] = np.array([os.fsencode(name) for name in paths], np.bytes_).reshape(len(paths))
    arrays["stamps"] = stamps[:, :2]
    temporary = ""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".part")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _from_arrays(arrays: np.lib.npyio.NpzFile) -> Dataset:
    def value(name: str):
        array = arrays[name]
        if name in ("name", "root"):
            return str(array)
        if name == "sized_by_header":
            return ()
        return tuple(str(item) for item in array) if name in ("classes", "warnings") else array
    return Dataset(**{f.name: value(f.name) for f in fields(Dataset)})
