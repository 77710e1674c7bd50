"""`data.val` as a share: which of the training images are held out for validation."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from detector.errors import BadInput
from detector.seeding import derive_seed
from detector.structures import Dataset

NUMBER = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=e))(e[+-]?\d+)?", re.IGNORECASE)  # 0.2, not 2012: that may be a name
SAMPLE = 4096        # bytes in the middle of files of one size that are compared first
BLOCK = 1 << 20      # bytes that are read at once
THREADS = 8          # that read files; most of the time they wait for the disk


def val_share(val: tuple[str, ...]) -> float | None:
    """Returns the share of the training images that `data.val` states, 0 ... 1; None where it names splits.

    Raises:
        BadInput: the number is not between 0 and 1, or is not alone.
    """
    numbers = [text for text in val if NUMBER.fullmatch(text)]
    if not numbers:
        return None
    share = float(numbers[0])
    if len(val) > 1 or not 0 < share < 1:
        raise BadInput(f"data.val=[{', '.join(val)}]: a share of the training images is one number between 0 and 1, "
                       "such as data.val=0.2")
    return share


def hold_out(dataset: Dataset, share: float, seed: int) -> np.ndarray:
    """Returns the images that are held out for validation, bool [I]: round(share * I) of them, but at least one.

    The choice depends on the images' paths below the folder that holds them all, on which images have equal content,
    and on the seed. The order of the images and the place of the folder do not matter.
    Images of equal content are all held out, or none of them: the number may then differ a little. An image that is
    listed several times counts once.

    Raises:
        BadInput: there are fewer than two different images.
    """
    names = [os.path.normpath(os.fsdecode(bytes(path))) for path in dataset.paths]
    groups = group_equal_files(names, dataset.root)
    if len(groups) < 2:
        raise BadInput(f"data.val={share:g}: {dataset.name} has {len(names)} images of equal content; two different "
                       "ones are needed, one to train on and one to validate")
    keys = _portable(names, dataset.root)
    numbers = {key: derive_seed(seed, "validation", os.fsencode(key).hex()) for key in dict.fromkeys(keys)}
    ordered = sorted(groups, key=lambda group: min((numbers[keys[index]], keys[index]) for index in group))
    wanted = min(max(round(share * len(numbers)), 1), len(numbers) - 1)
    mask, count = np.zeros(len(names), bool), 0
    for group in ordered:
        images = len({keys[index] for index in group})
        if count + images <= wanted:
            mask[list(group)] = True
            count += images
    if not mask.any():  # every group is larger than what is wanted
        mask[list(min(ordered, key=len))] = True
    return mask


def _portable(names: list[str], root: str) -> list[str]:
    """Returns names that are equal on all machines: below the folder that holds all images, letters composed."""
    paths = [os.path.normpath(os.path.join(os.path.abspath(root), name)) for name in names]
    shared = os.path.commonpath([os.path.dirname(path) for path in paths])
    below = [os.path.relpath(path, shared) for path in paths]
    return [unicodedata.normalize("NFC", name).replace(os.sep, "/") for name in below]


def group_equal_files(names: list[str], root: str) -> list[tuple[int, ...]]:
    """Returns groups of indices whose files have the same bytes, or the same name; most groups hold one index.

    Files of one size are compared by a sample, and those of equal samples as a whole. A file that cannot be read is
    equal to no other.
    """
    first = {name: index for index, name in reversed(list(enumerate(names)))}
    candidates = [*first.values()]
    keys: dict[int, tuple] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for describe in (_size, _sample, _whole):
            paths = [os.path.join(root, names[index]) for index in candidates]
            for index, key in zip(candidates, pool.map(describe, paths)):
                keys[index] = (*keys.get(index, ()), -1 - index if key is None else key)
            candidates = [index for group in _groups(candidates, keys) if len(group) > 1 for index in group]
    key_of_image = {index: keys[first[name]] for index, name in enumerate(names)}
    return [tuple(group) for group in _groups(key_of_image, key_of_image)]


def _groups(indices: Iterable[int], keys: dict[int, tuple]) -> list[list[int]]:
    groups: dict[tuple, list[int]] = {}
    for index in indices:
        groups.setdefault(keys[index], []).append(index)
    return list(groups.values())


def _size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _sample(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            file.seek(os.path.getsize(path) // 2)
            return file.read(SAMPLE)
    except OSError:
        return None


def _whole(path: str) -> bytes | None:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()
